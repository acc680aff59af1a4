"""The cache under many processes, kills and foreign copies: bytes travel once, and nothing wrong is ever named."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.clients.http import Http
from pipeline.clients.hub import Hub
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Address
from pipeline.resources.cache.store import WORKERS, Cache
from pipeline.sources.huggingface import HuggingFaceSource
from tests.fakes.hub import MOST_S, FakeHub, Fault

WHERE = Address("big/artifact")
SPEC = SourceSpec("hf://acme/big", "main")
MIB = 1 << 20
BLOB = r"GET /lfs/"
ROOT = Path(__file__).parents[2]

PULL = """
import sys
from pathlib import Path
from pipeline.clients.hub import Hub
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.huggingface import HuggingFaceSource
source = HuggingFaceSource(Hub(sys.argv[1], "hf_reader"))
artifact = source.resolve(SourceSpec("hf://acme/big", "main"), None)
print("begun", flush=True)
Cache(Path(sys.argv[2])).add(artifact, source, lambda event: None, Address("big/artifact"))
"""


def silent(event: Event) -> None:
    pass


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.tokens.add("hf_reader")
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def source(hub: FakeHub) -> HuggingFaceSource:
    return HuggingFaceSource(Hub(hub.endpoint, "hf_reader", Http(pause=lambda _: None), pause=lambda _: None))


def shards(count: int, size_bytes: int) -> dict[str, bytes]:
    chance = random.Random(3)
    block = chance.randbytes(MIB)
    return {
        f"model-{number}.safetensors": (chance.randbytes(8) + block * (size_bytes // MIB))[:size_bytes]
        for number in range(count)
    }


def pulling(hub: FakeHub, cache: Cache) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", PULL, hub.endpoint, str(cache.root)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, env=environ)


def ended(process: subprocess.Popen[bytes], timeout_s: float = 120) -> int:
    process.communicate(timeout=timeout_s)
    return process.returncode


def sent_bytes(hub: FakeHub, files: Mapping[str, bytes]) -> int:
    """What the server was asked to send of blobs."""
    sizes = {hashlib.sha256(content).hexdigest(): len(content) for content in files.values()}
    total = 0
    for request in hub.asked(BLOB):
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        total += sizes[request.path.removeprefix("/lfs/").partition("?")[0]] - start
    return total


def assert_right(cache: Cache, artifact: Artifact, files: Mapping[str, bytes]) -> None:
    fresh = Cache(cache.root)
    assert fresh.complete(artifact)
    folder = fresh.view(artifact.files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert list((cache.root / "partial").iterdir()) == []


def test_eight_processes_pull_one_model_with_one_download_on_the_wire(hub: FakeHub, cache: Cache) -> None:
    files = shards(8, 4 * MIB)
    hub.commit("acme/big", files)
    artifact = source(hub).resolve(SPEC, None)

    processes = [pulling(hub, cache) for _ in range(8)]

    assert [ended(process) for process in processes] == [0] * 8
    assert sent_bytes(hub, files) == sum(map(len, files.values()))
    assert len(hub.asked(BLOB)) == 8
    assert_right(cache, artifact, files)


def test_processes_that_come_together_divide_the_files(hub: FakeHub, cache: Cache) -> None:
    files = shards(4 * WORKERS, MIB)
    hub.commit("acme/big", files)
    both_asked = threading.Event()
    hub.faults.append(Fault(BLOB, times=2 * WORKERS, until=both_asked))

    processes = [pulling(hub, cache) for _ in range(2)]
    until = time.monotonic() + MOST_S / 2
    while (
        len(hub.asked(BLOB)) < 2 * WORKERS
    ):  # none is answered yet, and one process asks for WORKERS at a time
        assert time.monotonic() < until, hub.asked(BLOB)
        time.sleep(0.02)
    both_asked.set()

    assert [ended(process) for process in processes] == [0, 0]
    assert len(hub.asked(BLOB)) == len(files)


def test_killed_download_goes_on_with_the_missing_bytes_only(hub: FakeHub, cache: Cache) -> None:
    files = shards(1, 96 * MIB)
    hub.commit("acme/big", files)
    artifact = source(hub).resolve(SPEC, None)
    process = pulling(hub, cache)
    partial = cache.root / "partial" / artifact.files[0].sha256
    while not partial.exists() or partial.stat().st_size < 16 * MIB:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    ended(process)
    have_bytes = partial.stat().st_size
    assert 16 * MIB <= have_bytes < 96 * MIB
    assert Cache(cache.root).missing_bytes(artifact) == 96 * MIB - have_bytes
    hub.log.clear()

    assert ended(pulling(hub, cache)) == 0

    assert [each.headers.get("range") for each in hub.asked(BLOB)] == [f"bytes={have_bytes}-"]
    assert_right(cache, artifact, files)


@pytest.mark.parametrize("content", [b"\0" * 5 * MIB, b"\0" * 100 * MIB], ids=["zeros", "longer"])
def test_damaged_partial_file_costs_one_more_download_and_nothing_else(
    hub: FakeHub, cache: Cache, content: bytes
) -> None:
    files = shards(1, 8 * MIB)
    hub.commit("acme/big", files)
    artifact = source(hub).resolve(SPEC, None)
    (cache.root / "partial").mkdir(parents=True)
    (cache.root / "partial" / artifact.files[0].sha256).write_bytes(content)

    cache.add(artifact, source(hub), silent, WHERE)

    assert hub.asked(BLOB)[-1].headers.get("range") is None
    assert_right(cache, artifact, files)


def test_waiting_process_takes_over_from_one_that_is_killed(hub: FakeHub, cache: Cache) -> None:
    files = shards(1, 96 * MIB)
    hub.commit("acme/big", files)
    artifact = source(hub).resolve(SPEC, None)
    first = pulling(hub, cache)
    partial = cache.root / "partial" / artifact.files[0].sha256
    while not partial.exists() or partial.stat().st_size < 16 * MIB:
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)  # it holds the lock and does nothing
    second = pulling(hub, cache)
    assert second.stdout is not None
    second.stdout.readline()
    time.sleep(0.3)
    assert len(hub.asked(BLOB)) == 1

    first.send_signal(signal.SIGKILL)

    assert ended(second) == 0
    ended(first)
    assert "range" in hub.asked(BLOB)[-1].headers
    assert_right(cache, artifact, files)


def test_interrupt_ends_who_waits_and_who_downloads_and_keeps_the_bytes(hub: FakeHub, cache: Cache) -> None:
    files = shards(6, 2 * MIB)
    hub.commit("acme/big", files)
    artifact = source(hub).resolve(SPEC, None)
    hub.faults.append(Fault(BLOB, times=6, stall_s=3.0))
    first, second = pulling(hub, cache), pulling(hub, cache)
    for process in (first, second):
        assert process.stdout is not None
        process.stdout.readline()
    time.sleep(0.5)

    begun = time.monotonic()
    for process in (first, second):
        process.send_signal(signal.SIGINT)

    assert ended(first) != 0
    assert ended(second) != 0
    assert time.monotonic() - begun < 6
    assert ended(pulling(hub, cache)) == 0
    assert_right(cache, artifact, files)


def test_blob_that_another_process_verified_is_not_hashed_again(hub: FakeHub, cache: Cache) -> None:
    files = shards(1, 8 * MIB)
    hub.commit("acme/big", files)
    hub.commit("acme/other", files)
    assert ended(pulling(hub, cache)) == 0
    other = source(hub).resolve(SourceSpec("hf://acme/other", "main"), None)
    blob = cache.blob(other.files[0].sha256)
    before = blob.stat()
    os.utime(blob, ns=(0, before.st_mtime_ns))  # a read would move the time of access on

    Cache(cache.root).add(other, source(hub), silent, WHERE)

    assert blob.stat().st_atime_ns == 0
    assert len(hub.asked(BLOB)) == 1
    assert Cache(cache.root).complete(other)


def test_same_file_in_three_models_occupies_the_disk_once(hub: FakeHub, cache: Cache) -> None:
    files = shards(1, 8 * MIB)
    for name in ("one", "two", "three"):
        hub.commit(f"acme/{name}", {**files, "config.json": f'{{"is": "{name}"}}'.encode()})
        artifact = source(hub).resolve(SourceSpec(f"hf://acme/{name}", "main"), None)
        cache.add(artifact, source(hub), silent, WHERE)

    assert len(hub.asked(BLOB)) == 1
    used = subprocess.run(["du", "-s", "-B1", str(cache.root)], capture_output=True, text=True, check=True)
    assert int(used.stdout.split()[0]) < 9 * MIB


def test_copies_on_a_file_system_with_reflinks_share_their_blocks(hub: FakeHub, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    made = subprocess.run(
        ["sh", "-c", f"mkfs.xfs -q -m reflink=1 {image} && mount -o loop {image} {disk}"], capture_output=True
    )
    if made.returncode:
        pytest.skip("this machine cannot make and mount an XFS file system")
    try:
        content = os.urandom(64 << 20)
        entry = FileEntry("model.safetensors", len(content), hashlib.sha256(content).hexdigest())
        wanted = Artifact("hf://acme/big", "main", "a" * 40, (entry,))
        (disk / "copy").write_bytes(content)
        os.sync()
        before = os.statvfs(disk).f_bfree
        cache = Cache(disk / "cache")

        cache.add(wanted, source(hub), silent, WHERE, {"model.safetensors": disk / "copy"})

        os.sync()
        assert (before - os.statvfs(disk).f_bfree) * os.statvfs(disk).f_frsize < 8 << 20
        (disk / "copy").write_bytes(b"edited")
        assert cache.view(wanted.files).is_dir()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
