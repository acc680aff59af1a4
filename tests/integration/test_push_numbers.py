"""What a plan says of bytes, and what goes over the wire: a real docker-registry behind a proxy that counts."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Sample, measure
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import contents
from pipeline.core.digest import Digest
from pipeline.core.image import Registry
from pipeline.core.model import FileEntry
from pipeline.resources.image.layers import Layer
from tests.parts.faults import MIB, flip_a_byte, manifest_of, small_disk, weights, whole_images
from tests.parts.project import MP, Project
from tests.parts.proxy import CountingProxy, counting
from tests.parts.registry import RealRegistry, running_registry

pytestmark = pytest.mark.registry

SHARD_BYTES = 64 * MIB  # as large as a file has to be for a layer of its own
OVERHEAD_BYTES = 200_000  # headers, configs, image manifests, and what is said of an image beside it
PEAK_BYTES = 60 * 10**6  # of memory, above a plan's


@dataclass
class Bench:
    """A project of two shards, and what its runs send to the registry."""

    project: Project
    registry: RealRegistry
    proxy: CountingProxy

    @property
    def place(self) -> dict[str, dict[str, str]]:
        return {"main": {"url": f"{self.proxy.host}/acme"}}

    def declare(self, *models: str, **more: object) -> None:
        manifest = manifest_of({name: f"./{name}" for name in models}, self.place)
        for name in models:
            manifest["models"][name] |= more
        self.project.write(manifest)

    def shard(self, model: str, number: int, seed: str) -> None:
        folder = self.project.folder / model
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_bytes(b"{}")
        content = weights(seed, SHARD_BYTES)
        (folder / f"model-{number:05}-of-00002.safetensors").write_bytes(content)

    def planned(self) -> dict[str, Any]:  # Any: the plan's JSON
        """What the plan says will move."""
        found = self.project.mp("plan", "--json").json()["transfer"]
        assert isinstance(found, dict)
        return found

    def sent(self, *words: str) -> int:
        """Bytes that an apply sends."""
        before = self.proxy.sent_bytes
        self.project.applied(*words)
        return self.proxy.sent_bytes - before

    def measured(self, *words: str) -> Sample:
        """One run, with what it took."""
        environ = {**os.environ, "MP_CACHE": str(self.project.cache), **self.project.environ}
        return measure([str(MP), *words], self.project.folder, environ)

    def second_machine(self, folder: Path) -> "Bench":
        """Another checkout of the same project: an empty cache, an empty HOME, no inventory."""
        folder.mkdir()
        kept = shutil.ignore_patterns(".mp")
        shutil.copytree(self.project.folder, folder / "project", ignore=kept)
        (folder / "home").mkdir()
        environ = {**self.project.environ, "HOME": str(folder / "home")}
        project = Project(folder / "project", folder / "cache", environ, self.project.manifest)
        return replace(self, project=project)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    (tmp_path / "project").mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, tmp_path / "registry", ignore_errors=True)
        registry = stack.enter_context(running_registry(tmp_path / "registry"))
        proxy = stack.enter_context(counting(registry.host))
        project = Project(tmp_path / "project", tmp_path / "cache", {"NO_COLOR": "1", "COLUMNS": "200"})
        made = Bench(project, registry, proxy)
        for number in (1, 2):
            made.shard("big", number, f"shard {number}")
        made.declare("big")
        yield made


def layer_bytes(path: str, size_bytes: int = SHARD_BYTES) -> int:
    return Layer((FileEntry(path, size_bytes, ""),)).size_bytes


def test_every_push_sends_what_its_plan_said(bench: Bench, tmp_path: Path) -> None:
    shard = layer_bytes("model-00002-of-00002.safetensors")

    first = bench.planned()
    assert first["push_bytes"] == 2 * shard + layer_bytes("config.json", 2)
    assert not first["exact"]
    assert first["push_bytes"] <= bench.sent() < first["push_bytes"] + OVERHEAD_BYTES

    assert bench.planned()["push_bytes"] == 0
    asked = len(bench.registry.requests())
    assert bench.sent() < 2_000
    assert {one.split()[0] for one in bench.registry.requests()[asked:]} <= {"GET", "HEAD"}

    (bench.project.folder / "chat.jinja").write_text("{{ messages }}")
    bench.declare("big", chat={"template": "chat.jinja"})
    code = bench.planned()
    assert code["push_bytes"] == layer_bytes("chat_template.jinja", 14)
    assert code["reused_bytes"] == first["push_bytes"]
    assert bench.sent() < OVERHEAD_BYTES

    bench.shard("big", 2, "another")
    changed = bench.planned()
    assert changed["push_bytes"] == shard
    assert changed["push_bytes"] <= bench.sent() < changed["push_bytes"] + OVERHEAD_BYTES


def test_a_push_writes_no_weights_to_this_disk_and_holds_little_memory(bench: Bench) -> None:
    assert [bench.project.mp(*words).code for words in (["lock"], ["pull", "big"])] == [0, 0]

    planned, applied = bench.measured("plan"), bench.measured("apply", "--yes")

    assert bench.proxy.sent_bytes > 2 * SHARD_BYTES
    assert applied.peak_bytes - planned.peak_bytes < PEAK_BYTES
    assert applied.written_bytes < MIB  # inventory, journal, lock, remembered layers


def test_another_machine_learns_from_the_images_which_layers_there_are(bench: Bench, tmp_path: Path) -> None:
    bench.sent()
    other = bench.second_machine(tmp_path / "other")

    same = other.planned()

    assert (same["push_bytes"], same["download_bytes"], same["exact"]) == (0, 0, True)
    other.shard("big", 2, "another")
    changed = other.planned()
    assert changed["push_bytes"] == layer_bytes("model-00002-of-00002.safetensors")
    assert changed["push_bytes"] <= other.sent() < changed["push_bytes"] + OVERHEAD_BYTES


def test_layers_that_were_made_here_before_are_counted_exactly(bench: Bench) -> None:
    bench.sent()
    wanted = 2 * layer_bytes("model-00002-of-00002.safetensors") + layer_bytes("config.json", 2)
    bench.project.write(
        manifest_of({"big": "./big"}, {**bench.place, "other": {"url": f"{bench.proxy.host}/other"}})
    )

    planned = bench.planned()

    assert (planned["push_bytes"], planned["exact"]) == (wanted, True)
    assert wanted <= bench.sent() < wanted + OVERHEAD_BYTES


def test_models_with_equal_weights_send_them_once_and_the_plan_says_so(bench: Bench) -> None:
    shutil.copytree(bench.project.folder / "big", bench.project.folder / "twin")
    bench.declare("big", "twin")
    wanted = 2 * layer_bytes("model-00002-of-00002.safetensors") + layer_bytes("config.json", 2)

    planned = bench.planned()

    assert (planned["push_bytes"], planned["reused_bytes"]) == (wanted, wanted)
    assert wanted <= bench.sent() < wanted + OVERHEAD_BYTES


@pytest.mark.parametrize("kind", ["url", "layout"])
def test_a_byte_that_rots_after_its_layer_is_known_never_reaches_a_tag(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    bench.sent()
    right = layers_of(Registry("main", url=bench.place["main"]["url"]))
    content = weights("shard 2", SHARD_BYTES)
    second = f"{bench.registry.host}/second" if kind == "url" else str(tmp_path / "layout")
    place = Registry("second", url=second) if kind == "url" else Registry("second", layout=second)
    bench.project.write(manifest_of({"big": "./big"}, {**bench.place, "second": {kind: second}}))
    blob = next(one for one in _blobs(bench.project.cache) if one.read_bytes() == content)
    flip_a_byte(blob, quietly=True)

    bench.project.applied()

    assert whole_images(place)
    assert layers_of(place) == right
    assert blob.read_bytes() == content


def test_a_disk_that_is_too_small_for_downloads_and_images_is_said_by_the_plan(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 12 * MIB) as disk:
        (tmp_path / "project" / "tiny").mkdir(parents=True)
        content = weights("one", 8 * MIB)
        (tmp_path / "project" / "tiny" / "model.safetensors").write_bytes(content)
        project = Project(tmp_path / "project", disk / "cache", {"NO_COLOR": "1", "COLUMNS": "400"})
        images = disk / "images"
        project.write(manifest_of({"tiny": "./tiny"}, {"main": {"layout": str(images)}}))

        planned, applied = project.mp("plan"), project.mp("apply", "--yes")

        needed = 8 * MIB + layer_bytes("model.safetensors", 8 * MIB)
        said = f"the disk of {disk / 'cache'} and {images} is full: {needed:,} bytes are needed and "
        assert (planned.code, applied.code) == (1, 1), planned.text + applied.text
        assert said in " ".join(planned.out.split()), planned.text
        assert not images.exists()
        assert not (disk / "cache" / "blobs").exists()


def layers_of(place: Registry) -> list[tuple[Digest, int]]:
    """Of the one image of the model's weights."""
    repository = Repositories({})(place, "big.weights")
    (tag,) = repository.tags()
    image = repository.manifest(tag)
    assert image is not None
    return contents(image)[1]


def _blobs(cache: Path) -> Iterator[Path]:
    return (
        one for one in (cache / "blobs").rglob("*") if one.is_file() and one.stat().st_size == SHARD_BYTES
    )
