"""Partial files: one a content, locked while it grows, and kept for the next run when its writer dies. Used by blobs."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

KEPT_S = 7 * 86400.0  # a download that nobody went on with for so long is given up
INSTANT_S = 3600.0  # links and texts live for an instant: older ones are of a run that was killed

_SHA256 = re.compile(r"[0-9a-f]{64}")


def size_bytes(path: str) -> int:
    """How much of a file is there."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - waiting processes look often
    except (FileNotFoundError, NotADirectoryError):
        return 0


@contextlib.contextmanager
def growing(path: str) -> Iterator[FileIO | None]:
    """A partial file for us alone, to read and write; None while somebody else, here or elsewhere, has it.

    What was written is kept whatever happens, unless the file is empty or has got its name as a blob.
    """
    file = _locked(path)
    if file is None:
        yield None
        return
    with file:
        try:
            yield file
        finally:
            seen = os.fstat(file.fileno())
            if seen.st_nlink > 1 or (seen.st_nlink and not seen.st_size):
                Path(path).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what nobody will go on with: old downloads, those that became blobs, and what a kill left of an instant."""
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(
            FileNotFoundError, BlockingIOError, PermissionError
        ):  # gone, in use, another user's
            seen = path.lstat()
            if not _SHA256.fullmatch(path.name):
                if seen.st_ctime < time.time() - INSTANT_S:
                    path.unlink()
            elif seen.st_nlink > 1 or seen.st_mtime < time.time() - KEPT_S:
                _remove_if_idle(path)


def _locked(path: str) -> FileIO | None:
    while True:
        try:
            file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b")
        except PermissionError:
            # Killed between becoming read-only and becoming a blob, or another user's: begun anew where that is allowed.
            if not Path(path).exists():
                raise
            try:
                _remove_if_idle(Path(path))
            except BlockingIOError:
                return None
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if os.fstat(file.fileno()).st_nlink <= 1 and _is(file, path):
            return file
        # Another process finished or dropped it in between. A second name is a blob's: it must not be written to.
        if _is(file, path):
            Path(path).unlink(missing_ok=True)
        file.close()


def _is(file: FileIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False


def _remove_if_idle(path: Path) -> None:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            path.unlink()
