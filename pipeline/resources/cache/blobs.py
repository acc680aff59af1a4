"""Blobs: verified files named by their sha256, how they come to this disk and how they are checked. Used by resources/cache."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from pipeline.core.errors import BackendError, Corrupt, Denied, Exhausted, Missing
from pipeline.core.model import FileEntry
from pipeline.resources.cache.memory import Memory
from pipeline.resources.cache.partial import growing, size_bytes, sweep
from pipeline.resources.cache.reading import Opening, opening_of, received, require_hash
from pipeline.resources.cache.supply import OnBytes, Supply, clone, hash_to, movable, write_all

POLL_S = 0.1  # how often one looks whether another process has finished

Signature: TypeAlias = tuple[int, int, int]  # size in bytes, mtime in ns, inode

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
    """`<root>/blobs/<aa>/<sha256>`, mode 0444: either absent or complete. Downloads grow in `<root>/partial/<sha256>`.

    A blob gets its name after its bytes are on the disk (fsync), and `<root>/verified` remembers how it looked after
    that: neither a kill nor a power cut leaves a name, or a line, that tells more than was verified.
    """

    def __init__(self, root: Path, pause: Callable[[float], None] = time.sleep) -> None:
        self._root = str(root)
        self._pause = pause
        self._guard = threading.Lock()
        self._verified: dict[str, Signature] = {}  # by this process
        self._refuted: dict[str, Signature] = {}  # by this process
        self._remembered = Memory(root / "verified", _signature_of)
        self._reserved_bytes = 0
        self._prepared = False

    def path(self, sha256: str) -> str:
        if not _HEX.fullmatch(sha256):
            raise Corrupt("models.lock", f'"{sha256[:80]}" is not a sha256', "run mp lock")
        return f"{self._root}/blobs/{sha256[:2]}/{sha256}"

    def holds(self, entry: FileEntry, trusted: Signature | None) -> bool:
        """The blob is there and good: looks as it did when it was verified, else it is hashed."""
        seen = signature(self.path(entry.sha256))
        return seen is not None and seen[0] == entry.size_bytes and self._is_good(entry.sha256, seen, trusted)

    def age_s(self, sha256: str, now: float) -> float | None:
        """Seconds since a blob was written, which is when it was hashed; None where it does not look as it did then."""
        seen = signature(self.path(sha256))
        if seen is None or seen not in (self._verified.get(sha256), self._remembered.get(sha256)):
            return None
        return now - seen[1] / 1e9

    def arrived_bytes(self, sha256: str) -> int:
        """How much of a blob that is not there has come already, from this run or another."""
        return size_bytes(self._partial(sha256))

    def ensure(self, entry: FileEntry, trusted: Signature | None, supply: Supply) -> Signature:
        """Have a good blob: keep the one that is there, or fetch it, or wait for who does. A bad one is dropped."""
        while (seen := self.attempt(entry, trusted, supply)) is None:
            self._pause(POLL_S)
        return seen

    def attempt(self, entry: FileEntry, trusted: Signature | None, supply: Supply) -> Signature | None:
        """As `ensure`; None when another thread or process is on it: there is other work to do meanwhile."""
        if not self.holds(entry, trusted):
            self._prepare()
            with disk(self._root, entry.size_bytes), growing(self._partial(entry.sha256)) as file:
                if file is None:
                    supply.reach.to(min(self.arrived_bytes(entry.sha256), entry.size_bytes))
                    return None
                if not self.holds(entry, trusted):
                    self._drop_bad(entry.sha256)
                    self._fill(entry, supply, file)
        seen = self._verified.get(entry.sha256)
        if seen is None or seen != signature(self.path(entry.sha256)):
            message = f"{self.path(entry.sha256)} vanished or changed while it was used"
            raise Corrupt("cache", message, "run it again")
        supply.reach.to(entry.size_bytes)
        return seen

    def absorb(
        self,
        key: str,
        path: str,
        expected_bytes: int | None,
        opening: Opening,
        remember: Callable[[tuple[str, int]], None],
    ) -> tuple[str, int] | None:
        """Make a blob of bytes whose sha256 nobody knows yet: it and the size, or None when another process is at it.

        `remember` is told before the next one may begin with the same bytes.

        `key` is 64 hex that stand for the bytes meanwhile, `path` their name in messages. Begins at zero after a kill:
        there is no hash that would tell whether what a dead run left is right.
        """
        self._prepare()
        with disk(self._root, expected_bytes or 0), growing(self._partial(key)) as file:
            if file is None:
                return None
            file.truncate(0)
            digest, count = hashlib.sha256(), 0
            try:
                for chunk in received(path, expected_bytes, opening, self._pause):
                    digest.update(chunk)
                    write_all(file, chunk)
                    count += len(chunk)
            except BaseException:
                file.truncate(0)  # of no use to the next run
                raise
            self._finish(digest.hexdigest(), key, file)
            answer = digest.hexdigest(), count
            remember(answer)
        return answer

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

    def _partial(self, sha256: str) -> str:
        return f"{self._root}/partial/{sha256}"

    def _prepare(self) -> None:
        with disk(self._root), self._guard:
            if not self._prepared:
                for folder in ("blobs", "partial"):
                    Path(self._root, folder).mkdir(parents=True, exist_ok=True)
                sweep(Path(self._root, "partial"))
                self._prepared = True

    def _is_good(self, sha256: str, seen: Signature, trusted: Signature | None) -> bool:
        if seen == self._refuted.get(sha256):
            return False
        if seen not in (trusted, self._verified.get(sha256)) and seen != self._remembered.get(sha256):
            with disk(self._root):
                if sha256_of(self.path(sha256)) != sha256:
                    self._refuted[sha256] = seen
                    return False
            with contextlib.suppress(OSError):  # a cache that is only read
                self._remember(sha256, seen)
        self._verified[sha256] = seen
        return True

    def _remember(self, sha256: str, seen: Signature) -> None:
        self._remembered.put(sha256, [str(number) for number in seen])

    def _drop_bad(self, sha256: str) -> None:
        """Not when its content is right and only the size of the lock is wrong: another entry may have it."""
        seen = signature(self.path(sha256))
        if seen is not None and not self._is_good(sha256, seen, None):
            self.discard(sha256)

    def _fill(self, entry: FileEntry, supply: Supply, file: FileIO) -> None:
        if supply.found is not None and self._take(entry, supply, supply.found, file):
            return
        have_bytes = os.fstat(file.fileno()).st_size
        if have_bytes > entry.size_bytes:
            have_bytes = 0
        while True:
            try:
                self._receive(entry, supply, supply.opening, file, have_bytes)
                break
            except Corrupt:
                file.truncate(0)
                if not have_bytes:
                    raise
                have_bytes = (
                    0  # what another run left may be damaged: only a whole download shows a wrong source
                )
        self._finish(entry.sha256, entry.sha256, file)

    def _receive(
        self, entry: FileEntry, supply: Supply, opening: Opening, file: FileIO, have_bytes: int
    ) -> None:
        """Write a file from its source, the first bytes of which are here; all of it is hashed."""
        file.truncate(have_bytes)
        digest = hash_to(file, have_bytes, supply.reach.to)
        if have_bytes < entry.size_bytes or not have_bytes:
            for chunk in received(entry.path, entry.size_bytes, opening, self._pause, have_bytes):
                digest.update(chunk)
                write_all(file, chunk)
                have_bytes += len(chunk)
                supply.reach.to(have_bytes)
        require_hash(entry, digest.hexdigest())

    def _take(self, entry: FileEntry, supply: Supply, found: Path, file: FileIO) -> bool:
        """Make the blob of a copy on this machine; what is wrong with it is said, and an error when it shall move."""
        try:
            if supply.move and movable(found, self._root):
                self._adopt(entry, found)
                return True
            file.truncate(0)
            cloned = clone(found, file)
            size = os.fstat(file.fileno()).st_size
            self._receive(entry, supply, opening_of(found), file, size if cloned else 0)
        except (Corrupt, Missing, OSError) as problem:
            file.truncate(0)
            said = problem.strerror if isinstance(problem, OSError) else "its bytes are not those of the lock"
            text = f'{found} is not used for "{entry.path}": {said}'
            if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if supply.move:
                raise Corrupt("import", text, "leave it out, or import without moving") from problem
            supply.report(text)
            return False
        self._finish(entry.sha256, entry.sha256, file)
        return True

    def _adopt(self, entry: FileEntry, found: Path) -> None:
        """Give a file of the same disk a blob's name, after it was hashed; the old name goes when all files are here."""
        with found.open("rb", buffering=0) as file:
            before = signature(str(found))
            require_hash(
                entry, hash_to(file, os.fstat(file.fileno()).st_size + 1, lambda _: None).hexdigest()
            )
            if before is None or signature(str(found)) != before:
                raise Missing("import", f"{found} changed while it was read")
            self._publish(entry.sha256, str(found), file)

    def _finish(self, sha256: str, partial: str, file: FileIO) -> None:
        """Make a partial file the blob; its own name goes when the lock does, see `growing`."""
        self._publish(sha256, self._partial(partial), file)
        if os.fstat(file.fileno()).st_nlink == 1:  # the blob was there already
            file.truncate(0)

    def _publish(self, sha256: str, name: str, file: FileIO) -> None:
        """Give verified bytes their name, once they are on the disk. Never over another's: an inode in use stays."""
        blob, inode = self.path(sha256), os.fstat(file.fileno()).st_ino
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
        Path(blob).parent.mkdir(exist_ok=True)
        try:
            os.link(name, blob)
        except FileExistsError:
            return
        if (seen := signature(blob)) is None or seen[2] != inode:
            Path(blob).unlink(missing_ok=True)
            raise Missing("cache", f"{name} was replaced while it was read", "run it again")
        self._verified[sha256] = seen
        self._remember(sha256, seen)


def _signature_of(words: Sequence[str]) -> Signature:
    size, mtime_ns, inode = (int(word) for word in words)
    return size, mtime_ns, inode
