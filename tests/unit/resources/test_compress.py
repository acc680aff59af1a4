"""Compressed layers: what they are called, what they push, and that another machine and the source understand them."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, Repository
from pipeline.core.change import Action, Change
from pipeline.core.digest import digest
from pipeline.core.errors import Corrupt
from pipeline.core.image import Registry
from pipeline.core.model import Overlay
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Absent, Address, Entry, Mark, Observed, Resource, Transfer, fields_of
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.compress import gzipped
from pipeline.resources.image.layers import layers
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.sources.oci.source import OciSource
from tests.fakes import engine
from tests.parts.absorbing import Absorbing

OWNER = Mark("test", "default", Address(""))
ANSWER = "the sky is blue " * 10_000


class Desk:
    """A model that compresses well, and two folders of layouts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = Cache(folder / "cache")
        self.model = engine.model(folder, self.cache, ANSWER)

    def registry(self, compression: str = "gzip") -> Registry:
        return Registry("main", layout=str(self.folder / "layouts"), compression=compression)

    @property
    def repository(self) -> Repository:
        return Repositories({})(self.registry(), "tiny.weights")

    def wanted(self, compression: str = "gzip") -> Resource[ImageState]:
        return image.weights_image(self.model, self.registry(compression), "acme")

    def transfer(self, wanted: Resource[ImageState], *known: Entry) -> Transfer:
        driver = ImageDriver(self.cache, {}, Repositories({}), OWNER)
        answer = driver.observe([wanted], known)[wanted.address]
        assert isinstance(answer, Observed | Absent)
        return answer.transfer

    def bring(self, wanted: Resource[ImageState]) -> Observed[ImageState]:
        driver = ImageDriver(self.cache, {}, Repositories({}), OWNER)
        change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
        made = driver.apply(change, {}, engine.ignore)
        assert made is not None
        return made

    def manifest(self, made: Observed[ImageState]) -> ImageManifest:
        found = self.repository.manifest(str(made.digest))
        assert found is not None
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_compressed_layer_holds_the_same_tar_and_says_so(desk: Desk) -> None:
    manifest = desk.manifest(desk.bring(desk.wanted()))
    (layer,) = json.loads(manifest.body)["layers"]
    config = json.loads(desk.repository.blob(json.loads(manifest.body)["config"]["digest"]) or b"")
    body = desk.repository.blob(layer["digest"])
    assert body is not None

    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert layer["size"] == len(body) < len(ANSWER) / 10
    tar = gzip.decompress(body)
    (wanted,) = layers(desk.model.files)
    assert len(tar) == wanted.size_bytes
    assert config["rootfs"]["diff_ids"] == [digest(tar)]


def test_the_same_input_gives_the_same_image_on_one_machine(desk: Desk) -> None:
    first = desk.bring(desk.wanted())
    (desk.cache.root / "layers").unlink()
    (desk.folder / "layouts").rename(desk.folder / "before")
    desk.cache = Cache(desk.cache.root)

    assert desk.bring(desk.wanted()).digest == first.digest


def test_without_compression_nothing_is_named_otherwise_and_with_it_everything(desk: Desk) -> None:
    (plain,), (packed,) = layers(desk.model.files), layers(desk.model.files, compression="gzip")

    assert packed.key != plain.key == packed.plain.key
    assert desk.wanted().desired.fingerprint != desk.wanted("").desired.fingerprint


def test_bytes_are_at_most_before_the_first_push_and_exact_after(desk: Desk) -> None:
    (layer,) = layers(desk.model.files)
    planned = desk.transfer(desk.wanted())
    assert planned.push_bytes >= layer.size_bytes
    assert not planned.exact
    made = desk.bring(desk.wanted())
    size_bytes = json.loads(desk.manifest(made).body)["layers"][0]["size"]

    assert desk.transfer(desk.wanted()) == Transfer()
    renamed = replace(desk.model, name="other")
    elsewhere = image.weights_image(
        renamed, Registry("main", layout=str(desk.folder / "b"), compression="gzip"), "acme"
    )
    assert desk.transfer(elsewhere) == Transfer(push_bytes=size_bytes)


def test_another_machine_learns_a_compressed_layer_from_the_annotations(desk: Desk) -> None:
    old = desk.wanted()
    made = desk.bring(old)
    state = fields_of(old.desired)
    entry = Entry(old.address, old.kind, old.locator, None, made.digest, state, state)
    (desk.cache.root / "layers").unlink()
    desk.cache = Cache(desk.cache.root)
    template = desk.folder / "t.jinja"
    template.write_text("{{ messages }}")
    desk.model = replace(
        desk.model,
        overlays=(Overlay("chat_template.jinja", digest(template.read_bytes())[7:], 14, str(template)),),
    )

    assert (
        desk.transfer(desk.wanted(), entry).reused_bytes
        == json.loads(desk.manifest(made).body)["layers"][0]["size"]
    )


def test_the_source_reads_compressed_weights_back(desk: Desk) -> None:
    made = desk.bring(desk.wanted())
    source = OciSource(lambda registry, name: desk.repository, Absorbing(), lambda seconds: None)

    found = source.resolve(SourceSpec("oci://registry.test/tiny.weights", str(made.digest)), None)

    assert found.files == desk.model.files


def test_compressed_bytes_are_there_from_any_offset_and_leave_nothing_behind(tmp_path: Path) -> None:
    body = bytes(range(256)) * 20_000
    with gzipped(lambda start: iter([body[start:]]), tmp_path) as (held, chunks):
        whole = b"".join(chunks(0))
        assert list(tmp_path.iterdir()) == []
        assert b"".join(chunks(1000)) == whole[1000:]
        assert list(chunks(len(whole))) == []
    assert gzip.decompress(whole) == body
    assert (held.digest, held.size_bytes, held.diff_id) == (digest(whole), len(whole), digest(body))


def test_what_breaks_while_it_is_read_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken(start: int) -> Iterator[bytes]:
        yield b"half"
        raise Corrupt("cache", "damaged")

    with pytest.raises(Corrupt), gzipped(broken, tmp_path):
        raise AssertionError("nothing is to be sent")
    assert list(tmp_path.iterdir()) == []
