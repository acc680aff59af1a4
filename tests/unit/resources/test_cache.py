"""The cache: verified in, verified out, and never a wrong entry in between."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.core.errors import Corrupt, Exhausted, Missing, Unreachable
from pipeline.core.model import Artifact, FileEntry, Overlay
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event, Progress
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache

WHERE = Address("tiny/artifact")
DAY_S = 24 * 3600
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 5000, "sub/tokenizer.json": b"[1]"}


class Memory:
    """A source whose bytes are in memory; it counts what is asked of it and can break a stream."""

    def __init__(self, files: dict[str, bytes], cut_at: int | None = None) -> None:
        self.files = files
        self.cut_at = cut_at
        self.opened: list[tuple[str, int]] = []

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        return artifact(self.files)

    @contextlib.contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        self.opened.append((entry.path, start))
        content = self.files[entry.path][start:]
        if self.cut_at is not None and start < self.cut_at:
            yield _Cut(content[: self.cut_at - start])
        else:
            yield io.BytesIO(content)


class _Cut(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if not chunk:
            raise Unreachable("test", "connection lost")
        return chunk


def artifact(files: dict[str, bytes], pin: str = "a" * 40) -> Artifact:
    entries = (
        FileEntry(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in files.items()
    )
    return Artifact("hf://acme/tiny", "main", pin, tuple(sorted(entries)))


def silent(event: Event) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def refreshed(cache: Cache) -> Cache:
    """As the next process sees it."""
    return Cache(cache.root)


def flip_byte(path: Path, *, hide: bool) -> None:
    """Damage a file in place; `hide` restores its time, as a failing disk would leave it."""
    before = path.stat()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    path.chmod(0o444)
    if hide:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def leftovers(cache: Cache) -> list[str]:
    return sorted(path.name for path in (cache.root / "partial").iterdir())


def test_added_artifact_is_complete_read_only_and_laid_out_by_url(cache: Cache) -> None:
    wanted = artifact(FILES)

    cache.add(wanted, Memory(FILES), silent, WHERE)

    assert refreshed(cache).complete(wanted)
    entry = cache.root / "models/huggingface.co/acme/tiny" / ("a" * 40)
    assert (entry / "sub/tokenizer.json").read_bytes() == b"[1]"
    assert (entry / "model.safetensors").stat().st_mode & 0o777 == 0o444
    assert (entry / "model.safetensors").samefile(cache.blob(wanted.files[1].sha256))
    assert (entry.parent / "refs/main").read_text() == "a" * 40
    assert leftovers(cache) == []


@pytest.mark.parametrize("version", ["v1.1", "main"])
def test_version_that_is_a_plain_name_leads_to_the_entry(cache: Cache, version: str) -> None:
    for pin in ("a" * 40, "b" * 40):  # a branch moves
        cache.add(replace(artifact(FILES, pin), version=version), Memory(FILES), silent, WHERE)
    models = cache.root / "models/huggingface.co/acme/tiny"
    assert (models / version).readlink() == Path("b" * 40)
    assert (models / version / "config.json").read_bytes() == b"{}"
    assert (models / "refs" / version).read_text() == "b" * 40


@pytest.mark.parametrize("version", ["refs", "feature/x", "..", "a" * 40, "x" * 300, "-v", ""])
def test_version_that_is_no_plain_name_is_only_remembered(cache: Cache, version: str) -> None:
    cache.add(replace(artifact(FILES, "b" * 40), version=version), Memory(FILES), silent, WHERE)
    names = {path.name for path in (cache.root / "models/huggingface.co/acme/tiny").iterdir()}
    assert names <= {"b" * 40, "refs"}


def test_folder_of_another_source_stays_where_a_version_would_lead(cache: Cache) -> None:
    inner = replace(artifact(FILES, "b" * 40), source="hf://acme/tiny/v1")
    cache.add(inner, Memory(FILES), silent, WHERE)
    cache.add(replace(artifact(FILES), version="v1"), Memory(FILES), silent, WHERE)
    assert Cache(cache.root).complete(inner)


def test_missing_bytes_before_and_after(cache: Cache) -> None:
    wanted = artifact(FILES)
    assert (cache.complete(wanted), cache.missing_bytes(wanted)) == (False, 5005)

    cache.add(wanted, Memory(FILES), silent, WHERE)

    assert (cache.complete(wanted), cache.missing_bytes(wanted)) == (True, 0)


def test_complete_artifact_asks_nothing_of_its_source(cache: Cache) -> None:
    cache.add(artifact(FILES), Memory(FILES), silent, WHERE)
    again = Memory(FILES)

    refreshed(cache).add(artifact(FILES), again, silent, WHERE)

    assert again.opened == []


def test_shared_file_is_fetched_once_and_stored_once(cache: Cache) -> None:
    cache.add(artifact(FILES), Memory(FILES), silent, WHERE)
    changed = FILES | {"config.json": b"{1}"}
    source = Memory(changed)

    cache.add(artifact(changed, "b" * 40), source, silent, WHERE)

    assert source.opened == [("config.json", 0)]
    models = cache.root / "models/huggingface.co/acme/tiny"
    assert (models / ("a" * 40) / "model.safetensors").samefile(models / ("b" * 40) / "model.safetensors")
    assert refreshed(cache).complete(artifact(FILES))


def test_two_filters_of_one_pin_are_both_complete(cache: Cache) -> None:
    small = {"config.json": FILES["config.json"]}
    cache.add(artifact(FILES), Memory(FILES), silent, WHERE)
    cache.add(artifact(small), Memory(small), silent, WHERE)
    assert cache.complete(artifact(FILES))
    assert cache.complete(artifact(small))


def test_wrong_bytes_are_refused_and_nothing_is_kept(cache: Cache) -> None:
    wanted = artifact(FILES)
    wrong = Memory(FILES | {"model.safetensors": b"w" * 4999 + b"x"})

    with pytest.raises(Corrupt, match=r'"model.safetensors" has sha256'):
        cache.add(wanted, wrong, silent, WHERE)

    assert not cache.complete(wanted)
    assert not cache.blob(wanted.files[1].sha256).exists()
    assert leftovers(cache) == []


@pytest.mark.parametrize("content", [b"w" * 4999, b"w" * 5001])
def test_wrong_length_is_refused(cache: Cache, content: bytes) -> None:
    with pytest.raises(Corrupt, match="5,000 bytes"):
        cache.add(artifact(FILES), Memory(FILES | {"model.safetensors": content}), silent, WHERE)


def test_cut_connection_goes_on_where_it_broke(cache: Cache) -> None:
    files = {"model.safetensors": b"w" * 5000}
    source = Memory(files, cut_at=3000)

    cache.add(artifact(files), source, silent, WHERE)

    assert source.opened == [("model.safetensors", 0), ("model.safetensors", 3000)]
    assert cache.complete(artifact(files))


def test_visibly_damaged_file_makes_the_entry_incomplete_and_only_it_is_fetched(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    flip_byte(cache.blob(wanted.files[1].sha256), hide=False)
    cache, source = refreshed(cache), Memory(FILES)
    assert (cache.complete(wanted), cache.missing_bytes(wanted)) == (False, 5000)

    cache.add(wanted, source, silent, WHERE)

    assert source.opened == [("model.safetensors", 0)]
    assert cache.complete(wanted)
    assert cache.blob(wanted.files[1].sha256).read_bytes() == FILES["model.safetensors"]


def test_touched_but_right_file_is_verified_and_not_fetched(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    os.utime(cache.blob(wanted.files[1].sha256), ns=(1, 1))
    cache, source = refreshed(cache), Memory(FILES)
    assert (cache.complete(wanted), cache.missing_bytes(wanted)) == (False, 0)

    cache.add(wanted, source, silent, WHERE)

    assert source.opened == []
    assert cache.complete(wanted)


def test_file_replaced_in_the_entry_is_put_right(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    name = cache.folder(wanted) / "config.json"
    name.unlink()
    name.write_bytes(b"[]")
    assert not cache.complete(wanted)

    cache.add(wanted, Memory({}), silent, WHERE)

    assert cache.complete(wanted)
    assert name.read_bytes() == b"{}"


@pytest.mark.parametrize("hide", [False, True])
def test_view_never_gives_wrong_bytes(cache: Cache, hide: bool) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    folder = cache.view(wanted.files)
    flip_byte(cache.blob(wanted.files[1].sha256), hide=hide)
    cache = refreshed(cache)

    with pytest.raises(Corrupt, match=r'"model.safetensors" changed'):
        cache.view(wanted.files)

    assert not (folder / "model.safetensors").exists()
    assert not cache.complete(wanted)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    assert cache.view(wanted.files) == folder
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_view_holds_exactly_the_files_and_overlays(cache: Cache, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages }}")
    overlay = Overlay(
        "chat_template.jinja", hashlib.sha256(template.read_bytes()).hexdigest(), 14, str(template)
    )
    cache.add(artifact(FILES), Memory(FILES), silent, WHERE)
    folder = cache.view(artifact(FILES).files, [overlay])
    (folder / "extra").mkdir()
    (folder / "extra/evil.py").write_text("")

    assert cache.view(artifact(FILES).files, [overlay]) == folder

    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["chat_template.jinja", "config.json", "model.safetensors", "sub/tokenizer.json"]
    assert folder != cache.view(artifact(FILES).files)


def test_overlay_that_changed_since_it_was_read_is_refused(cache: Cache, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("changed")
    overlay = Overlay("chat_template.jinja", "0" * 64, 7, str(template))
    cache.add(artifact(FILES), Memory(FILES), silent, WHERE)

    with pytest.raises(Corrupt, match="changed after it was read"):
        cache.view(artifact(FILES).files, [overlay])


def test_view_of_what_is_not_cached_is_missing(cache: Cache) -> None:
    with pytest.raises(Missing):
        cache.view(artifact(FILES).files)


@pytest.mark.parametrize(
    "path", ["../evil", "/etc/passwd", "a/../../b", "a//b", ".", "", "a\\b", ".metadata"]
)
def test_name_that_leaves_the_folder_is_refused(cache: Cache, path: str) -> None:
    with pytest.raises(Corrupt):
        cache.add(artifact({path: b"x"}), Memory({path: b"x"}), silent, WHERE)


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "A" * 64, ""])
def test_digest_that_is_none_is_refused(cache: Cache, sha256: str) -> None:
    with pytest.raises(Corrupt, match="is not a sha256"):
        cache.blob(sha256)


def test_download_larger_than_the_disk_is_refused_before_it_starts(cache: Cache) -> None:
    huge = Artifact("hf://acme/huge", "main", "a" * 40, (FileEntry("model.safetensors", 1 << 60, "0" * 64),))
    source = Memory({})

    with pytest.raises(Exhausted, match=r"1,152,921,504,606,846,976 bytes are needed and [\d,]+ are free"):
        cache.add(huge, source, silent, WHERE)

    assert source.opened == []


def test_damaged_metadata_is_as_good_as_none(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    (cache.folder(wanted) / ".metadata").write_text('{"files": [{"path": 1')
    cache = refreshed(cache)
    assert not cache.complete(wanted)

    cache.add(wanted, Memory({}), silent, WHERE)

    assert cache.complete(wanted)


def test_threads_that_want_the_same_bytes_fetch_them_once(cache: Cache) -> None:
    from concurrent.futures import ThreadPoolExecutor

    source = Memory(FILES)
    wanted = [artifact(FILES, pin * 40) for pin in "abcdef"]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda each: cache.add(each, source, silent, WHERE), wanted))
    assert sorted(source.opened) == [(path, 0) for path in sorted(FILES)]
    assert all(refreshed(cache).complete(each) for each in wanted)


def test_progress_counts_up_to_the_missing_bytes(cache: Cache) -> None:
    events: list[Event] = []
    cache.add(artifact(FILES), Memory(FILES), events.append, WHERE)
    done = [event.done_bytes for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] == 5005
    assert {event.total_bytes for event in events if isinstance(event, Progress)} == {5005}


def test_layers_are_remembered_across_processes_and_torn_lines_ignored(cache: Cache) -> None:
    from pipeline.core.digest import Digest

    assert cache.recall_layer("k1") is None
    cache.remember_layer("k1", Digest("sha256:aa"), 7)
    with (cache.root / "layers").open("a") as file:
        file.write("k2\tsha256:bb\t1")

    assert refreshed(cache).recall_layer("k1") == ("sha256:aa", 7)
    assert refreshed(cache).recall_layer("k2") is None


def test_open_gives_the_blob_and_missing_when_it_is_not_there(cache: Cache) -> None:
    wanted = artifact(FILES)
    with pytest.raises(Missing):
        cache.open(wanted.files[0])
    cache.add(wanted, Memory(FILES), silent, WHERE)
    with cache.open(wanted.files[0]) as file:
        assert file.read() == b"{}"


def test_file_is_fresh_for_a_day_and_only_as_it_was_written(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    entry, other = wanted.files[:2]
    assert refreshed(cache).is_fresh(entry)

    flip_byte(cache.blob(other.sha256), hide=False)
    assert not refreshed(cache).is_fresh(other)
    cache.discard(other.sha256)
    assert not refreshed(cache).is_fresh(other)
    written_at = cache.blob(entry.sha256).stat().st_mtime
    assert Cache(cache.root, now=lambda: written_at + DAY_S - 1).is_fresh(entry)
    assert not Cache(cache.root, now=lambda: written_at + DAY_S + 1).is_fresh(entry)


def test_memory_of_hashes_is_read_only_when_the_entry_does_not_answer(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    memory = cache.root / "verified"
    os.utime(memory, ns=(0, memory.stat().st_mtime_ns))  # a read would move the time of access on

    assert refreshed(cache).complete(wanted)
    refreshed(cache).add(wanted, Memory({}), silent, WHERE)

    assert memory.stat().st_atime_ns == 0
    (cache.folder(wanted) / ".metadata").unlink()
    assert refreshed(cache).missing_bytes(wanted) == 0
    assert memory.stat().st_atime_ns > 0


def test_damaged_memory_of_hashes_costs_time_only(cache: Cache) -> None:
    wanted = artifact(FILES)
    cache.add(wanted, Memory(FILES), silent, WHERE)
    (cache.root / "verified").write_bytes(b"\x00garbage\n" * 9)
    (cache.folder(wanted) / ".metadata").unlink()

    refreshed(cache).add(wanted, Memory({}), silent, WHERE)

    assert refreshed(cache).complete(wanted)


def test_file_that_another_process_downloads_is_waited_for_and_its_growth_is_shown(tmp_path: Path) -> None:
    import fcntl

    files = {"model.safetensors": bytes(range(250)) * 20}
    wanted, source, events = artifact(files), Memory(files), list[Event]()
    partial = tmp_path / "partial" / wanted.files[0].sha256
    partial.parent.mkdir()
    other = partial.open("wb", buffering=0)
    fcntl.flock(other, fcntl.LOCK_EX)
    other.write(files["model.safetensors"][:1000])
    steps: Iterator[Callable[[], object]] = iter(
        [lambda: other.write(files["model.safetensors"][1000:3000]), other.close]
    )

    def pause(seconds: float) -> None:
        next(steps)()

    Cache(tmp_path, pause=pause).add(wanted, source, events.append, WHERE)

    assert source.opened == [("model.safetensors", 3000)]
    assert [event.done_bytes for event in events if isinstance(event, Progress)] == [1000, 3000, 5000]
    assert refreshed(Cache(tmp_path)).complete(wanted)


def test_interrupt_leaves_what_came_for_the_next_run(cache: Cache) -> None:
    wanted, files = artifact(FILES), FILES

    def interrupting(event: Event) -> None:
        if isinstance(event, Progress) and event.done_bytes > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.add(wanted, Memory(files), interrupting, WHERE)

    assert not refreshed(cache).complete(wanted)
    refreshed(cache).add(wanted, Memory(files), silent, WHERE)
    assert refreshed(cache).complete(wanted)
    assert leftovers(cache) == []
