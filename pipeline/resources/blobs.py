"""Blobs: verified files named by their sha256, how they come to this disk and how they are checked. Used by resources/cache."""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from pipeline.core.errors import BackendError, Corrupt, Denied, Exhausted
from pipeline.core.model import FileEntry
from pipeline.resources.reading import Opening, verified

Signature: TypeAlias = tuple[int, int, int]  # size in bytes, mtime in ns, inode
OnBytes: TypeAlias = Callable[[int], None]

_HEX = re.compile(r"[0-9a-f]{64}")


def signature(path: str) -> Signature | None:
    """How a file looked without reading it; None when it is not there."""
    try:
        seen = os.stat(path)  # noqa: PTH116 - a no-op plan comes here for every file
    except (FileNotFoundError, NotADirectoryError):
        return None
    return seen.st_size, seen.st_mtime_ns, seen.st_ino


def sha256_of(path: str) -> str | None:
    """The sha256 of a file's content, 64 hex; None when it is not there."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def disk(root: str, needed_bytes: int = 0) -> Iterator[None]:
    """Turn the operating system's errors while writing below `root` into ours."""
    try:
        yield
    except OSError as problem:
        match problem.errno:
            case errno.ENOSPC | errno.EDQUOT:
                raise full(root, needed_bytes) from problem
            case errno.EACCES | errno.EPERM | errno.EROFS:
                hint = "make the folder writable, or set MP_CACHE to another one"
                raise Denied("cache", f"cannot write {problem.filename or root}", hint) from problem
            case _:
                raise BackendError("cache", f"{problem.filename or root}: {problem.strerror}") from problem


def full(root: str, needed_bytes: int) -> Exhausted:
    free_bytes = shutil.disk_usage(root).free
    wants = f"{needed_bytes:,} bytes are needed and " if needed_bytes else ""
    return Exhausted(
        "cache",
        f"the disk of {root} is full: {wants}{free_bytes:,} are free",
        "free some space, or set MP_CACHE to a folder on a larger disk",
    )


class Blobs:
    """`<root>/blobs/<aa>/<sha256>`, mode 0444: either absent or complete. Downloads grow in `<root>/partial`."""

    def __init__(self, root: Path, pause: Callable[[float], None] = time.sleep) -> None:
        self._root = str(root)
        self._pause = pause
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._verified: dict[str, Signature] = {}  # by this process
        self._reserved_bytes = 0
        self._numbers = itertools.count()
        self._swept = False

    def path(self, sha256: str) -> str:
        if not _HEX.fullmatch(sha256):
            raise Corrupt("models.lock", f'"{sha256[:80]}" is not a sha256', "run mp lock")
        return f"{self._root}/blobs/{sha256[:2]}/{sha256}"

    def holds(self, entry: FileEntry, trusted: Signature | None) -> bool:
        """The blob is there and good: looks as it did when it was verified, else it is hashed."""
        seen = signature(self.path(entry.sha256))
        if seen is None or seen[0] != entry.size_bytes:
            return False
        if seen in (trusted, self._verified.get(entry.sha256)):
            return True
        with disk(self._root):
            if sha256_of(self.path(entry.sha256)) != entry.sha256:
                return False
        self._verified[entry.sha256] = seen
        return True

    def ensure(
        self, entry: FileEntry, trusted: Signature | None, opening: Opening, on_bytes: OnBytes
    ) -> Signature:
        """Have a good blob: keep the one that is there, or fetch it. A bad one is dropped."""
        with self._alone(entry.sha256):
            if not self.holds(entry, trusted):
                if sha256_of(self.path(entry.sha256)) not in (None, entry.sha256):
                    self.discard(entry.sha256)  # bad, and not put there by another process just now
                self._fetch(entry, opening, on_bytes)
            seen = signature(self.path(entry.sha256))
            if seen is None:
                raise Corrupt(
                    "cache", f"{self.path(entry.sha256)} vanished while it was used", "run it again"
                )
            self._verified[entry.sha256] = seen
            return seen

    def discard(self, sha256: str) -> None:
        """Remove a bad blob; nothing happens when it is not there."""
        self._verified.pop(sha256, None)
        with disk(self._root):
            Path(self.path(sha256)).unlink(missing_ok=True)

    @contextlib.contextmanager
    def reserved(self, needed_bytes: int) -> Iterator[OnBytes]:
        """Room for a download, or Exhausted before it starts; what other threads are about to write counts.

        Yields what is to be told of bytes that were written: from then on the disk itself counts them.
        """
        left_bytes = needed_bytes

        def landed(count: int) -> None:
            nonlocal left_bytes
            with self._guard:
                count = min(count, left_bytes)
                left_bytes -= count
                self._reserved_bytes -= count

        self._prepare()
        with self._guard:
            free_bytes = shutil.disk_usage(self._root).free - self._reserved_bytes
            if needed_bytes > free_bytes:
                raise full(self._root, needed_bytes)
            self._reserved_bytes += needed_bytes
        try:
            yield landed
        finally:
            landed(left_bytes)

    def _prepare(self) -> None:
        with disk(self._root), self._guard:
            if self._swept:
                return
            for folder in ("blobs", "partial"):
                Path(self._root, folder).mkdir(parents=True, exist_ok=True)
            for leftover in sorted(Path(self._root, "partial").iterdir()):
                _remove_if_dead(leftover)
            self._swept = True

    @contextlib.contextmanager
    def _alone(self, sha256: str) -> Iterator[None]:
        with self._guard:
            lock = self._locks.setdefault(sha256, threading.Lock())
        with lock:
            yield

    def _fetch(self, entry: FileEntry, opening: Opening, on_bytes: OnBytes) -> None:
        with self._partial(entry.sha256) as (name, file):
            self._receive(entry, opening, on_bytes, file)
            with disk(self._root, entry.size_bytes):
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
                self._publish(name, self.path(entry.sha256))

    def _receive(self, entry: FileEntry, opening: Opening, on_bytes: OnBytes, file: FileIO) -> None:
        for chunk in verified(entry, opening, self._pause):
            self._write(file, chunk, entry)
            on_bytes(len(chunk))

    def _write(self, file: FileIO, chunk: bytes, entry: FileEntry) -> None:
        rest = memoryview(chunk)
        with disk(self._root, entry.size_bytes):
            while rest:  # unbuffered: a full disk shows here, and not again when the file is closed
                rest = rest[file.write(rest) :]

    @contextlib.contextmanager
    def _partial(self, sha256: str) -> Iterator[tuple[Path, FileIO]]:
        """A file of our own that is locked while it is written, so that the next run knows what is dead."""
        self._prepare()
        with contextlib.ExitStack() as stack:
            while True:
                number = next(self._numbers)
                name = Path(self._root, "partial", f"{sha256}.{os.getpid()}.{number}")
                with disk(self._root):
                    file = stack.enter_context(name.open("xb", buffering=0))
                stack.callback(name.unlink, missing_ok=True)
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_nlink:  # not swept by another process in between
                    break
            yield name, file

    def _publish(self, partial: Path, blob: str) -> None:
        """Give the verified bytes their name. Never over another's: an inode that is in use stays."""
        Path(blob).parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(partial, blob)


def _remove_if_dead(leftover: Path) -> None:
    """Downloads are locked while they grow; the links and texts beside them live for an instant."""
    with contextlib.suppress(
        FileNotFoundError, BlockingIOError
    ):  # gone, or in use: another process works here
        if not _HEX.match(leftover.name) and leftover.stat().st_ctime > time.time() - 3600:
            return
        with leftover.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink(missing_ok=True)
