"""How the bytes of one file may be had, and how far they have come. Used by blobs; made by cache for each file it wants."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import field
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from pipeline.core.frozen import frozen
from pipeline.resources.cache.reading import CHUNK_BYTES, Opening

FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int): share the blocks of another file; ioctl_ficlone(2)

OnBytes: TypeAlias = Callable[[int], None]


class Reach:
    """Turns positions in a file into bytes that are new: a download that begins again is not counted twice."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._most_bytes = 0

    def to(self, position_bytes: int) -> None:
        new_bytes = max(0, position_bytes - self._most_bytes)
        self._most_bytes += new_bytes
        self._on_bytes(new_bytes)


@frozen
class Supply:
    """Where one file comes from: a copy on this machine first, when there is one, else its source."""

    opening: Opening
    reach: Reach = field(default_factory=lambda: Reach(lambda count: None))
    found: Path | None = None
    move: bool = False  # the copy shall not stay where it is
    report: Callable[[str], None] = lambda text: None  # a copy that is of no use


def clone(source: Path, file: FileIO) -> bool:
    """Fill `file` with the blocks of another, shared until one of them is written; False where that cannot be."""
    with source.open("rb") as other:
        try:
            fcntl.ioctl(file, FICLONE, other.fileno())
        except OSError:  # not this file system, or not the same one
            return False
    return True


def movable(source: Path, root: str) -> bool:
    """A file that can become a blob by changing its name: no link, no second name, the same file system."""
    seen = source.lstat()
    return stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1 and seen.st_dev == os.stat(root).st_dev  # noqa: PTH116


def write_all(file: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # unbuffered: a full disk shows here, and not again when the file is closed
        rest = rest[file.write(rest) :]


def hash_to(file: FileIO, end_bytes: int, on_chunk: OnBytes) -> "hashlib._Hash":
    """The running sha256 of a file's first bytes; the file stands at their end then."""
    digest, position = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK_BYTES))
    file.seek(0)
    while position < end_bytes and (count := file.readinto(buffer[: end_bytes - position])):
        digest.update(buffer[:count])
        position += count
        on_chunk(position)
    return digest
