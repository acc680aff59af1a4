"""Unlinking files, and what that frees on the disk: a file with several names counts once, with its last. Used by layouts and the cache."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own is: stat(2)


def look(path: Path) -> os.stat_result | None:
    """Nothing when it is not there, or another process removed it meanwhile."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def freed_bytes(names: Iterable[Path]) -> int:
    """Bytes on the disk whose last name is among these."""
    counts: dict[tuple[int, int], int] = {}
    freed = 0
    for path in dict.fromkeys(names):
        if found := look(path):
            inode = (found.st_dev, found.st_ino)
            counts[inode] = counts.get(inode, 0) + 1
            if counts[inode] == found.st_nlink:
                freed += found.st_blocks * BLOCK_BYTES
    return freed


def remove(path: Path) -> int:
    """Unlink; the bytes that this frees on the disk."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        path.unlink()
        return found.st_blocks * BLOCK_BYTES if found.st_nlink == 1 else 0
    return 0
