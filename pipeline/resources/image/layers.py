"""Layout version 1: which files make which layer, and the one byte sequence of each. Pure; used by resources/image.

Artifacts have another form: every file is a layer as it is, and its digest is the file's.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import TypeAlias

from pipeline.core.digest import Digest, canonical, fingerprint
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.core.model import FileEntry, Overlay

LAYOUT_VERSION = 1
ROOT = "models"
OWN_LAYER_BYTES = 64 * 2**20  # a file of this size or more is a layer of its own
MOST_OWN_LAYERS = 90  # engines allow 127 layers; the rest is for the engine image and overlays
_UNIT = 512  # tar's block
_WRONG = "is not what its sha256 says"
_USTAR_MOST = 8**11 - 1  # the largest size an octal field of ustar holds


@frozen
class Feed:
    """The bytes of one file from an offset, and the error to raise when the file is not what its sha256 says."""

    chunks: Iterator[bytes]
    wrong: Callable[[str], BackendError]  # "ends 5 bytes early" → the error, which names file and place


Read: TypeAlias = Callable[[FileEntry, int], Feed]  # a file from an offset


@frozen
class Held:
    """A layer as a repository has it."""

    digest: Digest
    size_bytes: int
    diff_id: Digest  # of the bytes before they were compressed


@frozen
class Layer:
    """Files that travel together: one uncompressed tar, known by the paths and hashes inside; or one file as it is."""

    files: tuple[FileEntry, ...]
    overlay: Overlay | None = field(default=None, compare=False)  # set: the bytes are the user's own file
    raw: bool = False  # no tar: the one file itself
    compression: str = ""  # "" or "gzip": of the tar, on its way into a registry

    @cached_property
    def key(self) -> str:
        """What determines the layer's digest; the name under which caches and annotations remember it."""
        return self.digest or layer_key(((e.path, e.sha256) for e in self.files), self.compression)

    @property
    def digest(self) -> Digest | None:
        """What is known before a byte is read: the digest of a file that is sent as it is."""
        return Digest(f"sha256:{self.files[0].sha256}") if self.raw else None

    @cached_property
    def size_bytes(self) -> int:
        """The exact length of the tar, or of the file, before it is compressed."""
        if self.raw:
            return self.files[0].size_bytes
        folders = sum(len(_header(name, 0, folder=True)) for name in _folders(self.files))
        files = sum(_member_bytes(entry) for entry in self.files)
        return folders + files + 2 * _UNIT

    @property
    def most_bytes(self) -> int:
        """What it takes at most in a registry: noise grows a little when it is compressed."""
        return self.size_bytes + (self.size_bytes >> 12) + 2**10 if self.compression else self.size_bytes

    @property
    def plain(self) -> "Layer":
        """The same layer, not compressed."""
        return replace(self, compression="")

    @property
    def listing(self) -> str:
        """The annotation that tells other machines what is inside: {"path": "sha256"}."""
        return canonical({entry.path: entry.sha256 for entry in self.files}).decode()

    @property
    def title(self) -> str:
        if self.overlay is not None:
            return f"overlay {self.overlay.path}"
        first = self.files[0].path
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more"


def layer_key(pairs: "Iterator[tuple[str, str]] | Sequence[tuple[str, str]]", compression: str = "") -> str:
    found = [LAYOUT_VERSION, sorted([path, sha256] for path, sha256 in pairs)]
    return fingerprint([*found, compression] if compression else found)


def layers(
    files: Sequence[FileEntry], overlays: Sequence[Overlay] = (), compression: str = ""
) -> tuple[Layer, ...]:
    """Small files first, then one layer a large file, then one layer an overlay."""
    ordered = sorted(files)
    small = tuple(entry for entry in ordered if entry.size_bytes < OWN_LAYER_BYTES)
    large = [entry for entry in ordered if entry.size_bytes >= OWN_LAYER_BYTES]
    result = [Layer(small)] if small else []
    result += [Layer(group) for group in _groups(large)]
    result += [
        Layer((_entry(overlay),), overlay) for overlay in sorted(overlays, key=lambda overlay: overlay.path)
    ]
    return tuple(replace(layer, compression=compression) for layer in result)


def raw_layers(files: Sequence[FileEntry], overlays: Sequence[Overlay] = ()) -> tuple[Layer, ...]:
    """One layer a file, by path; an overlay takes the place of the file below it."""
    found = {entry.path: Layer((entry,), raw=True) for entry in files}
    found |= {overlay.path: Layer((_entry(overlay),), overlay, raw=True) for overlay in overlays}
    return tuple(found[path] for path in sorted(found))


def _entry(overlay: Overlay) -> FileEntry:
    return FileEntry(overlay.path, overlay.size_bytes, overlay.sha256)


class Stream:
    """A layer's bytes from any offset, as often as an upload needs them; every byte of a file is hashed once.

    Raises what a feed raises, and its error for a wrong file before the end of that file. With `hashing` False only
    lengths are looked at: for a receiver that refuses a layer whose digest is not the one it was told.
    """

    def __init__(self, layer: Layer, read: Read, *, hashing: bool = True) -> None:
        self._layer = layer
        self._read = read
        self._hashing = hashing
        self._seen: dict[str, _Seen] = {}  # by path

    def __call__(self, start: int = 0) -> Iterator[bytes]:
        if self._layer.raw:
            return self._content(self._layer.files[0], start)
        return self._tar(start)

    def _tar(self, start: int) -> Iterator[bytes]:
        skip = start  # bytes still to be left out
        for name in _folders(self._layer.files):
            header = _header(name, 0, folder=True)
            yield from rest_of(header, skip)
            skip -= len(header)
        for entry in self._layer.files:
            header = _header(f"{ROOT}/{entry.path}", entry.size_bytes, folder=False)
            yield from rest_of(header, skip)
            skip -= len(header)
            yield from self._content(entry, min(max(skip, 0), entry.size_bytes))
            skip -= entry.size_bytes
            padding = -entry.size_bytes % _UNIT
            yield from rest_of(bytes(padding), skip)
            skip -= padding
        yield from rest_of(bytes(2 * _UNIT), skip)

    def _content(self, entry: FileEntry, start: int) -> Iterator[bytes]:
        """What was not hashed yet is read even when it need not be sent: the file is verified as a whole."""
        if not self._hashing:
            yield from self._measured(entry, start)
            return
        seen = self._seen.setdefault(entry.path, _Seen())
        if seen.whole and start == entry.size_bytes:
            return
        at = min(start, seen.count)
        feed = self._read(entry, at)
        for chunk in feed.chunks:
            begun, at = at, at + len(chunk)
            seen.take(begun, chunk)
            # The last chunk is only handed on when the whole file was right: a wrong one never completes.
            if at >= entry.size_bytes and (
                at > entry.size_bytes or next(feed.chunks, b"") or not seen.is_right(entry)
            ):
                raise feed.wrong(_WRONG)
            yield from rest_of(chunk, start - begun)
        if at < entry.size_bytes:
            raise feed.wrong(f"ends {entry.size_bytes - at:,} bytes early")
        if not seen.is_right(entry):
            raise feed.wrong(_WRONG)

    def _measured(self, entry: FileEntry, start: int) -> Iterator[bytes]:
        feed, at = self._read(entry, start), start
        for chunk in feed.chunks:
            at += len(chunk)
            if at > entry.size_bytes:
                raise feed.wrong(_WRONG)
            yield chunk
        if at < entry.size_bytes:
            raise feed.wrong(f"ends {entry.size_bytes - at:,} bytes early")


@dataclass
class _Seen:
    """How far a file was hashed, whatever was sent of it."""

    hasher: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    count: int = 0
    whole: bool = False

    def take(self, begun: int, chunk: bytes) -> None:
        fresh = begun + len(chunk) - self.count
        if fresh > 0:
            self.hasher.update(memoryview(chunk)[-fresh:])
            self.count += fresh

    def is_right(self, entry: FileEntry) -> bool:
        self.whole = self.count == entry.size_bytes and self.hasher.hexdigest() == entry.sha256
        return self.whole


def rest_of(block: bytes, skip: int) -> Iterator[bytes]:
    """A block without its first bytes, if anything is left of it."""
    if left := block[max(skip, 0) :]:
        yield left


def _groups(large: Sequence[FileEntry]) -> list[tuple[FileEntry, ...]]:
    """Neighbours in path order, split evenly by size into at most MOST_OWN_LAYERS."""
    if len(large) <= MOST_OWN_LAYERS:
        return [(entry,) for entry in large]
    total = sum(entry.size_bytes for entry in large)
    before = 0
    placed: list[tuple[int, FileEntry]] = []
    for entry in large:
        middle = before + entry.size_bytes // 2
        placed.append((middle * MOST_OWN_LAYERS // total, entry))
        before += entry.size_bytes
    return [tuple(entry for _, entry in group) for _, group in groupby(placed, key=lambda pair: pair[0])]


def _folders(files: Sequence[FileEntry]) -> list[str]:
    """Every folder above the files, parents first."""
    names = {ROOT}
    for entry in files:
        parts = entry.path.split("/")[:-1]
        names.update("/".join((ROOT, *parts[: depth + 1])) for depth in range(len(parts)))
    return sorted(names)


def _member_bytes(entry: FileEntry) -> int:
    header = len(_header(f"{ROOT}/{entry.path}", entry.size_bytes, folder=False))
    return header + entry.size_bytes + -entry.size_bytes % _UNIT


def _header(name: str, size_bytes: int, *, folder: bool) -> bytes:
    """A ustar header, after a pax one where ustar has no room. Written by hand: tarfile's differ between Pythons."""
    if folder:
        name += "/"
    encoded = name.encode()
    records = b""
    if len(encoded) > 100 or not name.isascii():
        records += _record(b"path", encoded)
    if size_bytes > _USTAR_MOST:
        records += _record(b"size", str(size_bytes).encode())
    header = _ustar(
        encoded[:100] if name.isascii() else b"models/unnamed",
        size_bytes if size_bytes <= _USTAR_MOST else 0,
        mode=0o755 if folder else 0o644,
        kind=b"5" if folder else b"0",
    )
    if not records:
        return header
    pax = _ustar(b"././@PaxHeader", len(records), mode=0o644, kind=b"x")
    return pax + records + bytes(-len(records) % _UNIT) + header


def _record(key: bytes, value: bytes) -> bytes:
    """One pax record: its own length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ustar(name: bytes, size_bytes: int, *, mode: int, kind: bytes) -> bytes:
    fields = (
        name.ljust(100, b"\0")
        + b"%07o\0" % mode
        + b"0000000\0" * 2  # uid, gid
        + b"%011o\0" % size_bytes
        + b"00000000000\0"  # mtime
        + b" " * 8  # checksum, filled below
        + kind
        + bytes(100)  # link name
        + b"ustar\x0000"
        + bytes(64)  # user and group name
        + b"0000000\0" * 2  # device numbers
    ).ljust(_UNIT, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]
