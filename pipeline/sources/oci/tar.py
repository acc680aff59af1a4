"""Layers as streams: tar members read header by header, ceilings on what is unpacked, connections that go on. Used by sources/oci."""

import contextlib
import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pipeline.core.errors import Corrupt, Refused, Unreachable
from pipeline.core.frozen import frozen

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FILE, FOLDER = "a file", "a folder"
TRIES = 5  # connections in a row that bring no new byte
NEAR_BYTES = 2**20  # a gap that is read through: another request costs more
HEADER_BYTES = 2**20  # names and times of one member: more is an attack
CEILING_BYTES = 256 * 2**20  # a layer may always grow so far when it is unpacked
CEILING_RATIO = 20  # beyond that, so many times its own size; weights do not shrink, and texts less than this
SLACK_BYTES = 2**20  # of headers and padding around a file whose size is told

_BLOCK = tarfile.BLOCKSIZE
_CHUNK_BYTES = 2**20
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: FOLDER,
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@frozen
class Member:
    """One member of a tar."""

    name: str  # as it is written there
    kind: str  # FILE, FOLDER, or what else it is
    size_bytes: int
    offset: int  # of its content
    end: int  # where the next header is


class Blob:
    """A blob read in order from anywhere. A connection that breaks is opened again where it broke.

    Raises Corrupt when it ends before `size_bytes`, and what `opening` raises.
    """

    def __init__(
        self,
        system: str,
        opening: Callable[[int], AbstractContextManager[BinaryIO]],
        size_bytes: int,
        pause: Callable[[float], None],
        update: Callable[[bytes], object] = lambda block: None,
    ) -> None:
        self._system = system
        self._opening = opening
        self._size_bytes = size_bytes
        self._pause = pause
        self._update = update
        self._stack = contextlib.ExitStack()
        self._stream: BinaryIO | None = None
        self.position = 0

    def read(self, size: int = -1, /) -> bytes:
        wanted = min(_CHUNK_BYTES if size < 0 else size, self._size_bytes - self.position)
        if wanted <= 0:
            return b""
        for attempt in range(1, TRIES + 1):
            try:
                block = self._open().read(wanted)
                break
            except Unreachable:
                self.close()
                if attempt == TRIES:
                    raise
                self._pause(0.5 * (attempt - 1))
        if not block:
            left = self._size_bytes - self.position
            raise Corrupt(self._system, f"a layer ends {left:,} bytes early", "publish it again")
        self.position += len(block)
        self._update(block)
        return block

    def leap(self, position: int) -> None:
        """Go on from there; what lies between is not read unless that is cheaper."""
        if position > self._size_bytes:
            raise Corrupt(self._system, "a layer's archive is cut off", "publish it again")
        while self._stream is not None and 0 < position - self.position <= NEAR_BYTES:
            self.read(position - self.position)
        if position != self.position:
            self.close()
            self.position = position

    def close(self) -> None:
        self._stream = None
        self._stack.close()

    def _open(self) -> BinaryIO:
        if self._stream is None:
            self._stream = self._stack.enter_context(self._opening(self.position))
        return self._stream


class Content:
    """What a layer holds, decompressed, read in order. Raises Corrupt when it is damaged, Refused when it swells."""

    def __init__(self, system: str, blob: Blob, compression: str, ceiling_bytes: int, *, leaps: bool) -> None:
        self._system = system
        self._blob = blob
        self._source: Readable = gzip.GzipFile(fileobj=blob) if compression else blob  # type: ignore[call-overload]
        self._ceiling_bytes = ceiling_bytes
        self._leaps = leaps and not compression
        self.position = 0

    def read(self, size: int, /) -> bytes:
        try:
            block = self._source.read(min(size, _CHUNK_BYTES))
        except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
            raise Corrupt(self._system, "a layer cannot be decompressed", "publish it again") from problem
        self.position += len(block)
        if self.position > self._ceiling_bytes:
            hint = "publish it without compression"
            raise Refused(f"{self._system}: a layer grows beyond {self._ceiling_bytes:,} bytes", hint)
        return block

    def exactly(self, size: int) -> bytes:
        parts = []
        while size:
            block = self.read(size)
            if not block:
                raise Corrupt(self._system, "a layer's archive is cut off", "publish it again")
            parts.append(block)
            size -= len(block)
        return b"".join(parts)

    def skip_to(self, position: int) -> None:
        if self._leaps:
            self._blob.leap(position)
            self.position = position
        while self.position < position:
            if not self.read(position - self.position):
                raise Corrupt(self._system, "a layer's archive is cut off", "publish it again")

    def drain(self) -> None:
        """Read what is left, so that every byte of the layer has been seen."""
        while self.read(_CHUNK_BYTES):
            pass
        while self._blob.read():
            pass

    def close(self) -> None:
        self._blob.close()


class Section(io.RawIOBase):
    """One file inside a layer's content, from where that stands."""

    def __init__(
        self, content: Readable, size_bytes: int, update: Callable[[bytes], object] = lambda block: None
    ) -> None:
        self._content = content
        self._update = update
        self.left_bytes = size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        block = self._content.read(min(len(view), self.left_bytes)) if self.left_bytes else b""
        if self.left_bytes and not block:
            raise Corrupt("layer", f"a file in it ends {self.left_bytes:,} bytes early", "publish it again")
        view[: len(block)] = block
        self.left_bytes -= len(block)
        self._update(block)
        return len(block)


def ceiling(size_bytes: int, told_bytes: int | None) -> int:
    """How far a layer may grow when it is decompressed."""
    if told_bytes is not None:
        return told_bytes + SLACK_BYTES
    return max(CEILING_BYTES, CEILING_RATIO * size_bytes)


def next_member(system: str, content: Content) -> Member | None:
    """The member whose header is next; None at the end of the archive. Content is left to the caller to read or skip.

    POSIX.1-2017, pax; and GNU tar's long names. tarfile's own reader takes a damaged header for the end.
    """
    name, size = "", None
    while (block := content.exactly(_BLOCK)) != bytes(_BLOCK):
        header = _header(system, block)
        match header.type:
            case tarfile.XHDTYPE | tarfile.SOLARIS_XHDTYPE:
                told = _records(system, _extra(system, content, header.size))
                name = told.get("path", name)
                size = int(told["size"]) if told.get("size", "").isdecimal() else size
                if any(key.startswith("GNU.sparse") for key in told):
                    raise Refused(f'{system}: "{name or header.name}" is a sparse file', "publish it again")
            case tarfile.GNUTYPE_LONGNAME:
                name = _extra(system, content, header.size).rstrip(b"\0").decode(errors="surrogateescape")
            case tarfile.GNUTYPE_LONGLINK | tarfile.XGLTYPE:
                _extra(system, content, header.size)
            case _:
                return _member(header, name or header.name, size, content.position)
    return None


def _member(header: tarfile.TarInfo, name: str, size: int | None, offset: int) -> Member:
    size_bytes = header.size if size is None else size
    has_content = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
    kind = FILE if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) else "no regular file"
    padded = -(-size_bytes // _BLOCK) * _BLOCK if has_content else 0
    return Member(name, _KINDS.get(header.type, kind), size_bytes, offset, offset + padded)


def _header(system: str, block: bytes) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as problem:
        raise Corrupt(system, f"a layer's archive is damaged: {problem}", "publish it again") from problem
    if header.size < 0:
        raise Corrupt(system, f'"{header.name}" has a size below zero', "publish it again")
    return header


def _extra(system: str, content: Content, size: int) -> bytes:
    if size > HEADER_BYTES:
        raise Refused(f"{system}: a header of {size:,} bytes in a layer", "do not use this source")
    return content.exactly(-(-size // _BLOCK) * _BLOCK)[:size]


def _records(system: str, text: bytes) -> dict[str, str]:
    """The records of a pax header: "<length> <key>=<value>\\n"."""
    found = {}
    while text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(text):
            raise Corrupt(system, "a layer's archive is damaged: a pax header", "publish it again")
        record, text = text[len(length) + 1 : int(length) - 1], text[int(length) :]
        key, _, value = record.partition(b"=")
        found[key.decode(errors="replace")] = value.decode(errors="surrogateescape")
    return found
