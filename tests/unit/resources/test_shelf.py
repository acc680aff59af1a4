"""What is in the cache is told, damage is found once, and what goes frees exactly what was announced."""

import contextlib
import fcntl
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Address
from pipeline.resources.cache.shelf import Damage, Shelf
from pipeline.resources.cache.store import Cache

WHERE = Address("tiny/artifact")
SOURCE = "hf://acme/tiny"
OLD, NEW = "a" * 40, "b" * 40
SHARED = random.Random(1).randbytes(200_000)
FIRST = {"config.json": b"{}", "model.safetensors": SHARED, "sub/tokenizer.json": b"[1]" * 3000}
SECOND = {"config.json": b"{ }", "model.safetensors": SHARED, "extra.safetensors": b"e" * 50_000}
LATER = 2 * 3600.0  # after the hour in which an entry may be in use


class Memory:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        raise AssertionError("what is added is pinned already")

    @contextlib.contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        yield io.BytesIO(self._files[entry.path][start:])


def silent(event: Event) -> None:
    pass


def nothing(count: int) -> None:
    pass


def add(
    root: Path, files: Mapping[str, bytes], pin: str = OLD, version: str = "main", source: str = SOURCE
) -> Artifact:
    entries = (FileEntry(p, len(c), hashlib.sha256(c).hexdigest()) for p, c in files.items())
    artifact = Artifact(source, version, pin, tuple(sorted(entries)))
    Cache(root).add(artifact, Memory(files), silent, WHERE)
    return artifact


def flip(path: Path) -> None:
    """One bit, and the time as before: a failing disk."""
    look = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))


def used_bytes(root: Path) -> int:
    """What the files of a folder take on the disk, each inode once."""
    os.sync()  # blocks are given out when content is written back
    looks = [path.lstat() for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
    return sum({look.st_ino: look.st_blocks * 512 for look in looks}.values())


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())


def later(root: Path) -> Shelf:
    return Shelf(root, now=lambda: time.time() + LATER)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_cache_that_is_not_there_is_empty(root: Path) -> None:
    assert Shelf(root).list() == ()
    assert Shelf(root).unwanted(()).freed_bytes == 0
    assert not root.exists()


def test_entry_tells_source_versions_pin_size_and_files(root: Path) -> None:
    artifact = add(root, FIRST)
    add(root, FIRST, version="release/1.0")

    (entry,) = Shelf(root).list()

    assert (entry.source, entry.versions, entry.pin) == (SOURCE, ("main", "release/1.0"), OLD)
    assert (entry.size_bytes, entry.files) == (artifact.size_bytes, artifact.files)
    assert (entry.complete, entry.kind) == (True, "model")
    assert entry.path == root / "models/huggingface.co/acme/tiny" / OLD
    assert entry.fetched_at is not None and entry.used_at <= time.time()


def test_a_tag_that_moved_belongs_to_the_new_pin_only(root: Path) -> None:
    add(root, FIRST, OLD, "v1")
    add(root, FIRST, OLD, "main")
    add(root, SECOND, NEW, "main")

    versions = {entry.pin: entry.versions for entry in Shelf(root).list()}

    assert versions == {OLD: ("v1",), NEW: ("main",)}


def test_equal_files_of_one_entry_count_once(root: Path) -> None:
    add(root, {"a.safetensors": SHARED, "b.safetensors": SHARED})
    assert Shelf(root).list()[0].size_bytes == len(SHARED)


def test_adapter_is_known_by_its_configuration(root: Path) -> None:
    add(root, {"adapter_config.json": b"{}", "adapter_model.safetensors": b"1"})
    add(root, {"sub/adapter_config.json": b"{}", "model.safetensors": b"2"}, NEW)

    assert {entry.pin: entry.kind for entry in Shelf(root).list()} == {OLD: "adapter", NEW: "model"}


@pytest.mark.parametrize("damage", ["gone", "half", "other folder", "leads out"])
def test_entry_without_good_metadata_is_incomplete_and_nothing_is_guessed(root: Path, damage: str) -> None:
    add(root, FIRST)
    metadata = root / "models/huggingface.co/acme/tiny" / OLD / ".metadata"
    text = metadata.read_bytes()
    match damage:
        case "gone":
            metadata.unlink()
        case "half":
            metadata.write_bytes(text[: len(text) // 2])
        case "other folder":
            metadata.write_bytes(text.replace(b"acme/tiny", b"acme/other"))
        case "leads out":
            metadata.write_bytes(text.replace(b"config.json", b"../../../x"))

    (entry,) = Shelf(root).list()

    assert (entry.complete, entry.files, entry.fetched_at) == (False, (), None)
    assert (entry.source, entry.versions, entry.pin) == (SOURCE, ("main",), OLD)  # folder and refs say so
    assert entry.size_bytes == sum(map(len, FIRST.values()))


@pytest.mark.parametrize(
    "source",
    [
        "hf://acme/tiny",
        "file:///srv/models/tiny",
        "oci://quay.io/ai-lab/models/tiny",
        "oci://localhost/tiny",
        "s3://bucket/models/tiny",
        "https://example.org/tiny.gguf",
    ],
)
def test_source_of_an_entry_without_metadata_is_known_by_its_place(root: Path, source: str) -> None:
    artifact = add(root, FIRST, source=source)
    (Cache(root).folder(artifact) / ".metadata").unlink()

    (entry,) = Shelf(root).list()

    assert (entry.source, entry.complete) == (source, False)


def test_readable_name_of_a_version_goes_with_its_entry(root: Path) -> None:
    artifact = add(root, FIRST, OLD, version="v1.1")
    name = Cache(root).folder(artifact).with_name("v1.1")
    assert name.is_symlink() and len(Shelf(root).list()) == 1

    later(root).prune(later(root).unwanted(()))

    assert not name.is_symlink() and not list((root / "models").iterdir())


def test_file_that_looks_different_makes_an_entry_incomplete(root: Path) -> None:
    artifact = add(root, FIRST)
    os.utime(Cache(root).blob(artifact.files[0].sha256), (1, 1))

    assert not Shelf(root).list()[0].complete


def test_sound_cache_has_no_damage_and_shared_bytes_are_read_once(root: Path) -> None:
    add(root, FIRST, OLD)
    add(root, SECOND, NEW)
    counts: list[int] = []

    assert Shelf(root).verify(Shelf(root).list(), counts.append) == ()

    distinct = {*FIRST.values(), *SECOND.values()}
    assert sum(counts) == sum(map(len, distinct))


def test_flipped_bit_is_found_in_every_entry_and_only_its_blob_is_removed(root: Path) -> None:
    artifact = add(root, FIRST, OLD)
    add(root, SECOND, NEW)
    weights = next(file for file in artifact.files if file.path == "model.safetensors")
    flip(Cache(root).blob(weights.sha256))
    before = files_of(root)
    assert all(entry.complete for entry in Shelf(root).list())  # nothing shows before it is read

    damage = Shelf(root).verify(Shelf(root).list(), nothing)

    wrong = [Damage(SOURCE, pin, "model.safetensors", "wrong") for pin in (OLD, NEW)]
    assert list(damage) == wrong
    gone = set(before) - set(files_of(root))
    assert gone == {f"blobs/{weights.sha256[:2]}/{weights.sha256}"}
    add(root, FIRST, OLD)
    add(root, SECOND, NEW)
    assert Shelf(root).verify(Shelf(root).list(), nothing) == ()
    assert all(entry.complete for entry in Shelf(root).list())


def test_missing_extra_and_edited_files_are_named(root: Path) -> None:
    artifact = add(root, FIRST)
    folder = root / "models/huggingface.co/acme/tiny" / OLD
    Cache(root).blob(artifact.files[1].sha256).unlink()
    (folder / "sub/notes.txt").write_text("mine")
    (folder / "config.json").unlink()
    (folder / "config.json").write_text('{"a": 1}')

    damage = Shelf(root).verify(Shelf(root).list(), nothing)

    assert [(each.path, each.problem) for each in damage] == [
        ("config.json", "wrong"),
        ("model.safetensors", "missing"),
        ("sub/notes.txt", "extra"),
    ]
    assert (folder / "sub/notes.txt").read_text() == "mine"


def test_entry_without_metadata_is_damage(root: Path) -> None:
    add(root, FIRST)
    (root / "models/huggingface.co/acme/tiny" / OLD / ".metadata").unlink()

    assert Shelf(root).verify(Shelf(root).list(), nothing) == (Damage(SOURCE, OLD, ".metadata", "missing"),)


def test_wanted_entries_stay_and_a_shared_blob_frees_nothing(root: Path) -> None:
    add(root, FIRST, OLD)
    kept = add(root, SECOND, NEW)
    before = used_bytes(root)
    plan = later(root).unwanted({(SOURCE, NEW)})
    assert [entry.pin for entry in plan.entries] == [OLD]
    assert len(plan.blobs) == 2  # config.json and tokenizer.json: the weights are shared

    freed = later(root).prune(plan)

    assert freed == plan.freed_bytes == before - used_bytes(root) > 0
    assert Cache(root).complete(kept)
    assert [entry.pin for entry in Shelf(root).list()] == [NEW]
    assert later(root).unwanted({(SOURCE, NEW)}).freed_bytes == 0


def test_everything_unwanted_leaves_no_file_and_frees_what_was_announced(root: Path) -> None:
    add(root, FIRST, OLD)
    add(root, FIRST, OLD, version="v1")
    add(root, SECOND, NEW)
    Cache(root).view(add(root, FIRST, OLD, source="hf://acme/twin").files)
    before = used_bytes(root)
    plan = later(root).unwanted(())

    freed = later(root).prune(plan)

    assert [name for name in files_of(root) if "/" in name] == []  # what was remembered of hashes stays
    assert freed == plan.freed_bytes == before - used_bytes(root)
    assert list((root / "models").iterdir()) == []


def test_needed_view_keeps_its_bytes_and_its_overlays(root: Path) -> None:
    view = Cache(root).view(add(root, FIRST, OLD).files)
    before = used_bytes(root)
    plan = later(root).unwanted((), {view.name})

    freed = later(root).prune(plan)

    assert plan.blobs == () and [entry.pin for entry in plan.entries] == [OLD]
    assert freed == plan.freed_bytes == before - used_bytes(root)
    assert (view / "model.safetensors").read_bytes() == SHARED


def test_what_was_used_within_the_hour_stays_unless_forced(root: Path) -> None:
    add(root, FIRST, OLD)
    soon = Shelf(root, now=lambda: time.time() + 60)

    plan = soon.unwanted(())
    forced = soon.unwanted((), forced=True)

    assert (plan.entries, plan.blobs, plan.freed_bytes) == ((), (), 0)
    assert [entry.pin for entry in plan.spared] == [OLD]
    assert [entry.pin for entry in forced.entries] == [OLD] and len(forced.blobs) == 3


def test_serving_an_old_entry_is_a_use(root: Path) -> None:
    artifact = add(root, FIRST, OLD)
    os.utime(root / "models/huggingface.co/acme/tiny" / OLD / ".metadata", (1, 1))
    assert Shelf(root).list()[0].used_at == 1
    began = time.time()

    Cache(root).view(artifact.files)

    assert Shelf(root).list()[0].used_at >= began - 1


def test_entry_that_was_used_after_the_plan_stays(root: Path) -> None:
    artifact = add(root, FIRST, OLD)
    shelf = later(root)
    plan = shelf.unwanted(())
    time.sleep(0.02)
    Cache(root).view(artifact.files)

    assert shelf.prune(plan) == 0
    assert Cache(root).complete(artifact)


def test_blob_that_an_entry_took_up_after_the_plan_stays(root: Path) -> None:
    add(root, FIRST, OLD)
    shelf = later(root)
    plan = shelf.unwanted(())
    kept = add(root, SECOND, NEW)  # shares the weights

    shelf.prune(plan)

    assert Cache(root).complete(kept)
    assert [entry.pin for entry in Shelf(root).list()] == [NEW]


def test_download_under_way_keeps_entries_and_blobs(root: Path) -> None:
    add(root, FIRST, OLD)
    partial = root / "partial" / ("c" * 64)
    partial.write_bytes(b"half")
    os.utime(partial, (1, 1))
    with partial.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        plan = later(root).unwanted(())
        forced = later(root).unwanted((), forced=True)
        later(root).prune(forced)

    assert (plan.entries, plan.blobs, plan.downloads) == ((), (), ())
    assert forced.downloads == () and partial.read_bytes() == b"half"
    assert later(root).unwanted(()).downloads == (partial,)


def test_old_downloads_and_leftovers_of_kills_go(root: Path) -> None:
    kept = add(root, FIRST, OLD)
    partial = root / "partial"
    (partial / ("c" * 64)).write_bytes(b"h" * 10_000)
    (partial / ("d" * 64)).write_bytes(b"h" * 10_000)
    os.utime(partial / ("c" * 64), (1, 1))
    (partial / "entry.1.0").write_bytes(b"text")
    nowhere = root / "models/huggingface.co/acme/tiny/refs/gone"
    nowhere.write_text(NEW)
    stray = root / "blobs/ee" / ("e" * 64)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"s" * 9000)
    before = used_bytes(root)

    plan = later(root).unwanted({(SOURCE, OLD)})
    freed = later(root).prune(plan)

    assert plan.downloads == (partial / ("c" * 64),)  # the other one may be gone on with
    assert set(plan.leftovers) == {partial / "entry.1.0", nowhere}
    assert plan.blobs == (stray,)
    assert freed == plan.freed_bytes == before - used_bytes(root)
    assert Cache(root).complete(kept)
    assert [path.name for path in partial.iterdir()] == ["d" * 64]


def test_unfinished_download_of_what_is_wanted_stays(root: Path) -> None:
    Cache(root).add(add(root, FIRST, OLD), Memory(FIRST), silent, WHERE)
    whole, half, other = ("c" * 64, "d" * 64, "e" * 64)
    for path in (root / "blobs/cc" / whole, root / "partial" / half, root / "partial" / other):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"h" * 10_000)
        os.utime(path, (1, 1))

    plan = later(root).unwanted({(SOURCE, OLD)}, contents={whole, half})

    assert (plan.blobs, plan.downloads) == ((), (root / "partial" / other,))


def test_second_name_of_a_blob_that_a_kill_left_goes(root: Path) -> None:
    artifact = add(root, FIRST, OLD)
    blob = Cache(root).blob(artifact.files[1].sha256)
    (root / "partial").mkdir(exist_ok=True)
    os.link(blob, root / "partial" / blob.name)

    plan = later(root).unwanted({(SOURCE, OLD)})

    assert plan.downloads == (root / "partial" / blob.name,) and plan.freed_bytes == 0
    assert later(root).prune(plan) == 0 and Cache(root).complete(artifact)


def test_killed_add_leaves_what_the_next_plan_finds(root: Path) -> None:
    add(root, FIRST, OLD)
    (root / "models/huggingface.co/acme/tiny" / OLD / ".metadata").unlink()  # it is written last

    plan = later(root).unwanted(())

    assert [entry.pin for entry in plan.entries] == [OLD] and len(plan.blobs) == 3
    assert later(root).unwanted({(SOURCE, OLD)}).entries == ()


PRUNE = """
import sys, time, pathlib, os, signal
from pipeline.resources.cache import reclaim
from pipeline.resources.cache.shelf import Shelf
root, steps = pathlib.Path(sys.argv[1]), int(sys.argv[2])
shelf = Shelf(root, now=lambda: time.time() + 7200)
plan = shelf.unwanted({("hf://acme/tiny", "b" * 40)})
real, done = pathlib.Path.unlink, 0
def unlink(self, missing_ok=False):
    global done
    if done == steps:
        os.kill(os.getpid(), signal.SIGKILL)
    done += 1
    real(self, missing_ok)
pathlib.Path.unlink = unlink
shelf.prune(plan)
"""


def test_kill_at_any_moment_of_prune_leaves_no_wrong_entry_and_the_next_one_ends_it(root: Path) -> None:
    kept = add(root, SECOND, NEW)
    for steps in range(9):
        add(root, FIRST, OLD)
        ended = subprocess.run([sys.executable, "-c", PRUNE, str(root), str(steps)], check=False, timeout=60)
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        for entry in Shelf(root).list():
            assert not entry.complete or Shelf(root).verify([entry], nothing) == ()
        later(root).prune(later(root).unwanted({(SOURCE, NEW)}))
        assert [entry.pin for entry in Shelf(root).list()] == [NEW]
        assert Cache(root).complete(kept)
        assert len([blob for blob in (root / "blobs").rglob("*") if blob.is_file()]) == len(SECOND)
    else:
        pytest.fail("prune never came to its end: the test does not reach every step")
