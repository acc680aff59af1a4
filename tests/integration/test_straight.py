"""Straight through: a model goes from the Hub to a registry by the command line, on a machine whose disk could never hold it."""

import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import contents
from pipeline.core.image import Registry
from tests.fakes.hub import FakeHub, Fault, Request
from tests.parts.bulk import Bulk
from tests.parts.faults import MIB, manifest_of, small_disk, whole_images
from tests.parts.project import Result
from tests.parts.registry import RealRegistry, running_registry

pytestmark = pytest.mark.registry

PEAK_BYTES = 120 * MIB  # of memory: 61 MiB were measured, with 128 MiB to move and with 2 GiB
DISK_BYTES = MIB  # manifest, lock, inventory, remembered layers
MODEL, REPOSITORY = "hf://acme/big", "big.weights"
ERROR = 1


@dataclass
class Runner:
    """A small machine: everything that mp may write to is on one little disk."""

    disk: Path
    hub: FakeHub
    registry: RealRegistry
    files: dict[str, Bulk | bytes]
    disk_bytes: int = 0  # used, at most, while mp ran
    memory_bytes: int = 0  # of mp, at most

    @property
    def images(self) -> Registry:
        return Registry("main", url=f"{self.registry.host}/acme")

    def write(self, **options: str) -> None:
        manifest = manifest_of({"big": MODEL}, {"main": {"url": str(self.images.url)}})
        manifest["models"]["big"] |= options
        (self.disk / "project").mkdir(exist_ok=True)
        (self.disk / "project" / "models.yaml").write_text(yaml.safe_dump(manifest))

    def mp(self, *words: str) -> Result:
        """One run, its peaks of memory and disk remembered."""
        home = {name: str(self.disk / name) for name in ("home", "tmp", "cache")}
        for folder in home.values():
            Path(folder).mkdir(exist_ok=True)
        environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_", "MP_"))},
            **{"HOME": home["home"], "TMPDIR": home["tmp"], "MP_CACHE": home["cache"]},
            **{"HF_ENDPOINT": self.hub.endpoint, "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        }
        logs = self.registry.folder
        with (logs / "out").open("wb") as out, (logs / "err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", *words],
                cwd=self.disk / "project",
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
            while process.poll() is None:
                self._look(process.pid)
                time.sleep(0.02)
        return Result(process.returncode, (logs / "out").read_text(), (logs / "err").read_text())

    def _look(self, pid: int) -> None:
        """The peaks so far: of the disk, and of the process's memory as the kernel counts it."""
        self.disk_bytes = max(self.disk_bytes, shutil.disk_usage(self.disk).used)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if peak := re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()):
                self.memory_bytes = max(self.memory_bytes, int(peak[1]) * 1024)

    def published(self) -> dict[str, str]:
        """Path → sha256 of every file in the one image that there is; its blobs are hashed too."""
        tags = whole_images(self.images)
        assert list(tags) == [REPOSITORY]
        assert len(set(tags[REPOSITORY].values())) == 1
        repository = Repositories({})(self.images, REPOSITORY)
        manifest = repository.manifest("main")
        assert manifest is not None
        found: dict[str, str] = {}
        for layer, _ in contents(manifest)[1]:
            with repository.open_blob(layer) as blob, tarfile.open(fileobj=blob, mode="r|") as tar:
                for member in tar:
                    if member.isfile() and (file := tar.extractfile(member)):
                        found[member.name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        return found

    def expected(self) -> dict[str, str]:
        return {
            f"models/{path}": body.sha256 if isinstance(body, Bulk) else hashlib.sha256(body).hexdigest()
            for path, body in self.files.items()
        }

    def requests_of(self, path: str) -> list[str]:
        """The ranges in which the Hub was asked for the bytes of a file."""
        body = self.files[path]
        assert isinstance(body, Bulk)
        return [asked.headers.get("range", "") for asked in self.hub.asked(f"^GET /lfs/{body.sha256}")]


Machine = Callable[[int, int], Runner]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine by the sizes of its disk and of the model; the registry's storage is on a real disk, and removed."""
    with contextlib.ExitStack() as stack:

        def make(disk_bytes: int, model_bytes: int) -> Runner:
            files: dict[str, Bulk | bytes] = {
                "config.json": b'{"num_hidden_layers": 2}',
                "model-00001-of-00002.safetensors": Bulk(1, model_bytes // 2),
                "model-00002-of-00002.safetensors": Bulk(2, model_bytes // 2),
            }
            hub = stack.enter_context(FakeHub())
            hub.commit("acme/big", files)
            stack.callback(shutil.rmtree, tmp_path / "registry", ignore_errors=True)
            registry = stack.enter_context(running_registry(tmp_path / "registry"))
            disk = stack.enter_context(small_disk(tmp_path / "disk", disk_bytes))
            return Runner(disk, hub, registry, files)

        yield make


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("disk_bytes", "model_bytes", "said"),
    [
        pytest.param(16 * MIB, 128 * MIB, "134.22 MB", id="128 MiB"),
        pytest.param(64 * MIB, 2048 * MIB, "2.15 GB", id="2 GiB", marks=pytest.mark.slow),
    ],
)
def test_a_model_larger_than_the_disk_is_published(
    machine: Machine, disk_bytes: int, model_bytes: int, said: str
) -> None:
    runner = machine(disk_bytes, model_bytes)
    runner.write(cache="none")

    planned = runner.mp("plan")
    applied = runner.mp("apply", "--yes")

    way = f"push at most {said} straight from {MODEL} through this machine ({platform.node()}), nothing kept"
    assert way in in_one_line(planned.out), planned.text
    assert f"Transfer at most {said} in, {said} out." in planned.out
    assert applied.code == 0, applied.text
    assert runner.published() == runner.expected()
    assert runner.disk_bytes < DISK_BYTES
    assert runner.memory_bytes < PEAK_BYTES
    again = runner.mp("plan", "--detailed-exitcode")
    assert again.code == 0, again.text


def test_a_flipped_byte_tags_nothing_and_names_the_file_and_the_next_apply_sends_the_rest(
    machine: Machine,
) -> None:
    runner = machine(16 * MIB, 128 * MIB)
    runner.write()
    right, wrong = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    body = runner.files[wrong]
    assert isinstance(body, Bulk)
    runner.hub.faults.append(Fault(f"GET /lfs/{body.sha256}", corrupt_at=len(body) // 2))

    failed = runner.mp("apply", "--yes", "--no-cache")

    assert failed.code == ERROR, failed.text
    assert f'{MODEL}: "{wrong}" of big is not what its sha256 says: nothing was tagged' in in_one_line(
        failed.out
    )
    assert Repositories({})(runner.images, REPOSITORY).tags() == ()

    applied = runner.mp("apply", "--yes", "--no-cache")

    assert applied.code == 0, applied.text
    assert runner.published() == runner.expected()
    assert len(runner.requests_of(right)) == 1
    assert runner.disk_bytes < DISK_BYTES


def test_a_source_that_is_cut_goes_on_where_it_was_inside_one_upload(machine: Machine) -> None:
    runner = machine(16 * MIB, 128 * MIB)
    runner.write(cache="none")
    runner.hub.faults.append(Fault("GET /lfs/", times=3, cut_after_bytes=10 * MIB))

    applied = runner.mp("apply", "--yes")

    assert applied.code == 0, applied.text
    assert runner.published() == runner.expected()
    asked = [one for path in sorted(runner.files)[1:] for one in runner.requests_of(path)]
    assert len(asked) == 5
    assert sorted(filter(None, asked))[0] == f"bytes={10 * MIB}-"
    begun = [one for one in runner.registry.requests() if one.startswith("POST ")]
    # three layers and a config, two documents beside the image and their config: no upload was begun twice
    assert len(begun) == 7


def test_a_registry_that_stops_half_way_gets_the_layer_again_from_its_source(machine: Machine) -> None:
    runner = machine(16 * MIB, 128 * MIB)
    runner.write(cache="none")
    runner.hub.faults.append(Fault("GET /lfs/", times=2, cut_after_bytes=32 * MIB))
    stopped: list[bool] = []
    remember = runner.hub.remember

    def stop_once(request: Request) -> Fault | None:
        if "range" in request.headers and not stopped:
            stopped.append(True)
            runner.registry.stop()
        return remember(request)

    runner.hub.remember = stop_once  # type: ignore[method-assign]
    failed = runner.mp("apply", "--yes")
    assert failed.code == ERROR, failed.text
    assert stopped

    runner.registry.start()
    applied = runner.mp("apply", "--yes")

    assert applied.code == 0, applied.text
    assert runner.published() == runner.expected()
    assert runner.disk_bytes < DISK_BYTES
