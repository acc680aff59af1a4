"""The steady reader: goes on where a connection broke, gives up in the end, and never hands on the end of a wrong file."""

import contextlib
import hashlib
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from pipeline.core.errors import BackendError, Corrupt, Missing, Unreachable
from pipeline.core.model import FileEntry
from pipeline.resources.cache.reading import CHUNK_BYTES, TRIES, received, verified

CONTENT = bytes(range(256)) * (CHUNK_BYTES // 100)
ENTRY = FileEntry("model.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Source:
    """Serves `content`; connection number n breaks after `cuts[n]` bytes of its own."""

    def __init__(self, content: bytes, cuts: tuple[int, ...] = ()) -> None:
        self.content = content
        self.cuts = list(cuts)
        self.starts: list[int] = []

    @contextlib.contextmanager
    def open(self, start: int) -> Iterator[BinaryIO]:
        self.starts.append(start)
        if self.cuts:
            yield _Cut(self.content[start : start + self.cuts.pop(0)])
        else:
            yield io.BytesIO(self.content[start:])


class _Cut(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if not chunk:
            raise Unreachable("test", "connection lost")
        return chunk


class _Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def taken(chunks: Iterator[bytes]) -> tuple[bytes, type[Exception] | None]:
    """What was handed on, and what ended it."""
    got = bytearray()
    try:
        for chunk in chunks:
            got += chunk
    except BackendError as problem:
        return bytes(got), type(problem)
    return bytes(got), None


def test_all_bytes_come_in_order() -> None:
    assert taken(verified(ENTRY, Source(CONTENT).open)) == (CONTENT, None)


def test_cut_connections_go_on_where_they_broke() -> None:
    source = Source(CONTENT, cuts=(5, CHUNK_BYTES + 7, 1))
    assert taken(verified(ENTRY, source.open, lambda _: None)) == (CONTENT, None)
    assert source.starts == [0, 5, CHUNK_BYTES + 12, CHUNK_BYTES + 13]


def test_connection_that_breaks_after_the_last_byte_has_done_its_work() -> None:
    source = Source(CONTENT, cuts=(len(CONTENT),))
    assert taken(verified(ENTRY, source.open)) == (CONTENT, None)
    assert source.starts == [0]


def test_gives_up_after_connections_without_a_new_byte_and_waits_longer_each_time() -> None:
    waits: list[float] = []
    source = Source(CONTENT, cuts=(9, *[0] * TRIES))
    got, problem = taken(verified(ENTRY, source.open, waits.append))
    assert (problem, CONTENT.startswith(got)) == (Unreachable, True)
    assert source.starts == [0, *[9] * (TRIES - 1)]
    assert waits == sorted(waits)
    assert len(waits) == TRIES - 1


def test_begins_at_an_offset() -> None:
    assert taken(received("x", len(CONTENT), Source(CONTENT).open, start=1000)) == (CONTENT[1000:], None)


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", CONTENT + CONTENT])
def test_wrong_length_is_corrupt_before_the_last_chunk(content: bytes) -> None:
    got, problem = taken(received("x", len(CONTENT), Source(content).open))
    assert (problem, len(got) < len(CONTENT)) == (Corrupt, True)


@pytest.mark.parametrize("at", [0, len(CONTENT) - 1])
def test_flipped_byte_is_corrupt_before_the_last_chunk_and_names_the_file(at: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[at] ^= 1
    got, problem = taken(verified(ENTRY, Source(bytes(wrong)).open))
    assert (problem, len(got) < len(CONTENT)) == (Corrupt, True)
    with pytest.raises(Corrupt, match=r'"model.safetensors" has sha256'):
        list(verified(ENTRY, Source(bytes(wrong)).open))


def test_without_a_size_any_length_is_right() -> None:
    assert taken(received("x", None, Source(CONTENT, cuts=(3,)).open)) == (CONTENT, None)
    assert taken(received("x", None, Source(b"").open)) == (b"", None)


def test_empty_file_is_checked_too() -> None:
    empty = FileEntry("empty", 0, hashlib.sha256(b"").hexdigest())
    assert taken(verified(empty, Source(b"").open)) == (b"", None)
    assert taken(verified(FileEntry("empty", 0, "0" * 64), Source(b"").open)) == (b"", Corrupt)
    assert taken(verified(empty, Source(b"x").open)) == (b"", Corrupt)


def refusing(start: int) -> contextlib.AbstractContextManager[BinaryIO]:
    raise Missing("test", "gone")


def failing(start: int) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(_Failing())


@pytest.mark.parametrize(("opening", "problem"), [(refusing, Missing), (failing, BackendError)])
def test_what_no_patience_helps_is_said_at_once(
    opening: Callable[[int], contextlib.AbstractContextManager[BinaryIO]], problem: type[Exception]
) -> None:
    assert taken(verified(ENTRY, opening)) == (b"", problem)
