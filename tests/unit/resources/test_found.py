"""Copies that lie on this machine already, and bytes whose sha256 nobody knows yet."""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.core.errors import BackendError, Corrupt, Unreachable
from pipeline.core.report import Event, Line
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from tests.unit.resources.test_cache import FILES, Memory, artifact, leftovers, silent

WHERE = Address("tiny/artifact")
WANTED = artifact(FILES)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Path]:
    """The model in another cache, as writable files."""
    paths = {name: tmp_path / "other" / name for name in FILES}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
    return paths


def assert_right(cache: Cache) -> None:
    assert Cache(cache.root).complete(WANTED)
    folder = Cache(cache.root).view(WANTED.files)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert leftovers(cache) == []


def test_copies_are_used_instead_of_the_source_and_stay_their_owners(
    cache: Cache, found: dict[str, Path]
) -> None:
    cache.add(WANTED, Memory({}), silent, WHERE, found)

    assert_right(cache)
    found["model.safetensors"].write_bytes(b"mine to edit")
    assert_right(cache)


def test_wrong_copy_is_told_and_the_source_is_used(cache: Cache, found: dict[str, Path]) -> None:
    found["model.safetensors"].write_bytes(b"W" * 5000)
    found["config.json"].write_bytes(b"{}longer")
    found["sub/tokenizer.json"].unlink()
    events: list[Event] = []
    source = Memory(FILES)

    cache.add(WANTED, source, events.append, WHERE, found)

    assert_right(cache)
    assert sorted(source.opened) == [(name, 0) for name in sorted(FILES)]
    said = sorted(event.text for event in events if isinstance(event, Line))
    assert [str(found[name]) in text for name, text in zip(sorted(FILES), said, strict=True)] == [True] * 3


def test_moved_copies_become_the_blobs_without_a_byte_copied(cache: Cache, found: dict[str, Path]) -> None:
    inodes = {path.stat().st_ino for path in found.values()}

    cache.add(WANTED, Memory({}), silent, WHERE, found, move=True)

    assert_right(cache)
    assert {cache.blob(entry.sha256).stat().st_ino for entry in WANTED.files} == inodes
    assert not any(path.exists() for path in found.values())
    assert all(cache.blob(entry.sha256).stat().st_mode & 0o777 == 0o444 for entry in WANTED.files)


def test_file_with_another_name_is_copied_and_never_shared(
    cache: Cache, found: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other name"
    os.link(found["model.safetensors"], other)

    cache.add(WANTED, Memory({}), silent, WHERE, found, move=True)

    other.write_bytes(b"edited")
    assert_right(cache)
    assert not found["model.safetensors"].exists()


def test_wrong_copy_that_shall_move_is_an_error_and_stays(cache: Cache, found: dict[str, Path]) -> None:
    found["model.safetensors"].write_bytes(b"W" * 5000)

    with pytest.raises(Corrupt, match=r'model.safetensors is not used for "model.safetensors"'):
        cache.add(WANTED, Memory(FILES), silent, WHERE, found, move=True)

    assert found["model.safetensors"].read_bytes() == b"W" * 5000
    assert all(path.exists() for path in found.values())
    assert not cache.complete(WANTED)


def test_copy_of_what_is_cached_already_goes_when_it_shall_move(cache: Cache, found: dict[str, Path]) -> None:
    cache.add(WANTED, Memory(FILES), silent, WHERE)
    found["config.json"].write_bytes(b"not the same")

    cache.add(WANTED, Memory({}), silent, WHERE, found, move=True)

    assert [name for name, path in found.items() if path.exists()] == ["config.json"]


class Opened:
    """Bytes from an offset; counts how often they were asked for."""

    def __init__(self, content: bytes, failing: int = 0) -> None:
        self.content = content
        self.failing = failing
        self.starts: list[int] = []

    @contextlib.contextmanager
    def __call__(self, start: int) -> Iterator[BinaryIO]:
        self.starts.append(start)
        if len(self.starts) <= self.failing:
            raise Unreachable("test", "no answer")
        yield io.BytesIO(self.content[start:])


IDENTITY = 's3://bucket/key etag="abc" size=5000'
CONTENT = FILES["model.safetensors"]
ANSWER = (hashlib.sha256(CONTENT).hexdigest(), 5000)


def test_absorbed_bytes_are_hashed_kept_and_never_asked_for_again(cache: Cache) -> None:
    opened = Opened(CONTENT)

    assert cache.absorb(IDENTITY, 5000, opened) == ANSWER

    assert cache.blob(ANSWER[0]).read_bytes() == CONTENT
    assert leftovers(cache) == []
    source = Memory({name: content for name, content in FILES.items() if name != "model.safetensors"})
    Cache(cache.root).add(WANTED, source, silent, WHERE)
    cache.blob(ANSWER[0]).unlink()
    assert Cache(cache.root).absorb(IDENTITY, 5000, opened) == ANSWER
    assert Cache(cache.root).absorb(IDENTITY, None, opened, keep=False) == ANSWER
    assert opened.starts == [0]


def test_absorbed_without_keeping_leaves_no_blob(cache: Cache) -> None:
    assert cache.absorb(IDENTITY, None, Opened(CONTENT), keep=False) == ANSWER
    assert not cache.blob(ANSWER[0]).exists()
    assert Cache(cache.root).absorb(IDENTITY, None, Opened(b"")) == ANSWER


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size_bytes", [4999, 5001])
def test_wrong_length_is_not_absorbed(cache: Cache, keep: bool, size_bytes: int) -> None:
    with pytest.raises(Corrupt, match="s3://bucket/key"):
        cache.absorb(IDENTITY, size_bytes, Opened(CONTENT), keep=keep)
    assert not cache.blob(ANSWER[0]).exists()
    assert cache.absorb(IDENTITY, 5000, Opened(CONTENT), keep=keep) == ANSWER
    with pytest.raises(Corrupt):
        cache.absorb(IDENTITY, size_bytes, Opened(CONTENT), keep=keep)


def test_what_a_dead_run_left_of_unknown_bytes_is_not_trusted(cache: Cache) -> None:
    partial = cache.root / "partial" / hashlib.sha256(IDENTITY.encode()).hexdigest()
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"zeros of a power cut")
    assert cache.absorb(IDENTITY, 5000, Opened(CONTENT)) == ANSWER


def test_failure_to_read_remembers_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", pause=lambda _: None)
    with pytest.raises(BackendError):
        cache.absorb(IDENTITY, 5000, Opened(CONTENT, failing=99))
    assert leftovers(cache) == []
    assert cache.absorb(IDENTITY, 5000, Opened(CONTENT, failing=2)) == ANSWER


def test_threads_that_absorb_the_same_read_it_once(cache: Cache) -> None:
    from concurrent.futures import ThreadPoolExecutor

    opened = Opened(CONTENT)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: cache.absorb(IDENTITY, 5000, opened), range(4)))
    assert answers == [ANSWER] * 4
    assert opened.starts == [0]


def test_identity_itself_is_not_written_down(cache: Cache) -> None:
    cache.absorb("https://host/x?token=secret", None, Opened(b"x"))
    assert b"secret" not in (cache.root / "absorbed").read_bytes()
