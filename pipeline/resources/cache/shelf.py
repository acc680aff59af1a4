"""The cache as a user sees it: what is in it, whether it is sound, and what may go. Made on top of Cache; used by cli."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pipeline.core.errors import Denied, Missing
from pipeline.core.model import Artifact, FileEntry, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Address
from pipeline.resources.cache import reclaim
from pipeline.resources.cache.blobs import disk, signature
from pipeline.resources.cache.cached import Cached, below, read
from pipeline.resources.cache.entries import METADATA
from pipeline.resources.cache.reading import CHUNK_BYTES
from pipeline.resources.cache.reclaim import Reclaim
from pipeline.resources.cache.store import Cache
from pipeline.resources.cache.supply import OnBytes

WORKERS = 4  # files that are hashed at a time: one alone keeps neither a disk nor the cores busy

Problem = Literal["missing", "wrong", "extra"]


@dataclass(frozen=True, order=True)
class Damage:
    """One file of one entry that is not as it was verified; of an entry without metadata, that file."""

    source: str
    pin: str
    path: str  # relative to the entry's folder
    problem: Problem  # "extra": nobody listed it


class Shelf:
    """`root` is the cache's folder; it need not exist. All methods raise Denied when it cannot be read or written."""

    def __init__(self, root: Path, now: Callable[[], float] = time.time) -> None:
        self._root = root
        self._cache = Cache(root)
        self._now = now

    def list(self, source: str = "") -> tuple[Cached, ...]:
        """Every entry, or those of one source, sorted by source, then versions. Reads metadata, no content."""
        return read(self._root, source)

    def use(self, entry: Cached) -> None:
        """Remember that an entry was used now: what was not used for long may go. A cache that cannot be written forgets it."""
        with contextlib.suppress(OSError):
            os.utime(entry.path / METADATA)

    def verify(self, entries: Iterable[Cached], on_bytes: OnBytes) -> tuple[Damage, ...]:
        """Hash every file of these entries, shared ones once, and remove bad blobs: the next apply fetches them again.

        What is sound and looked different, as all of a cache that was copied from another disk, is remembered as it looks now. Nothing else is changed. `on_bytes` is told of bytes that were read, from several threads, one at a time.
        """
        entries = tuple(entries)
        blobs = {file.sha256: file for entry in entries for file in entry.files}
        guard = threading.Lock()

        def counted(count: int) -> None:
            with guard:
                on_bytes(count)

        with disk(str(self._root)), ThreadPoolExecutor(WORKERS, "verify") as pool:
            found = dict(
                zip(blobs, pool.map(lambda file: self._look(file, counted), blobs.values()), strict=True)
            )
            damage = {entry.path: tuple(self._damage(entry, found, counted)) for entry in entries}
        for entry in entries:
            if not entry.complete and not damage[entry.path]:
                self._renew(entry)
        return tuple(sorted(each for several in damage.values() for each in several))

    def unwanted(
        self,
        wanted: Collection[tuple[str, str]],
        views: Collection[str] = (),
        contents: Collection[str] = (),
        *,
        forced: bool = False,
    ) -> Reclaim:
        """What may go when only these pairs of source and pin, and these views by name, are needed. Changes nothing.

        `contents` are the sha256s of what will be wanted: an unfinished download of it is kept to be gone on with.
        Without `forced`, what another process may be using stays: see Reclaim.spared.
        """
        return reclaim.unwanted(self._root, wanted, views, contents, self._now(), forced=forced)

    def prune(self, plan: Reclaim) -> int:
        """Carry the plan out; the bytes that became free on the disk. A kill at any moment leaves no wrong entry."""
        return reclaim.prune(self._root, plan)

    def _renew(self, entry: Cached) -> None:
        """Write how the files of a sound entry look now; a cache that cannot be written is looked at again."""
        paths = Filter(include=tuple(file.path for file in entry.files))
        version = entry.versions[0] if entry.versions else ""
        artifact = Artifact(entry.source, version, entry.pin, entry.files, filter=paths)
        with contextlib.suppress(Denied):
            self._cache.add(artifact, _Nothing(), lambda event: None, Address("cache"))

    def _look(self, file: FileEntry, on_bytes: OnBytes) -> Problem | None:
        """Hash one blob; a bad one is removed at once."""
        blob = self._cache.blob(file.sha256)
        if not blob.is_file():
            return "missing"
        if _sha256(blob, on_bytes) == file.sha256 and blob.stat().st_size == file.size_bytes:
            return None
        self._cache.discard(file.sha256)
        return "wrong"

    def _damage(self, entry: Cached, found: dict[str, Problem | None], on_bytes: OnBytes) -> Iterator[Damage]:
        if not entry.files and not entry.complete:
            there = (entry.path / METADATA).is_file()
            yield Damage(entry.source, entry.pin, METADATA, "wrong" if there else "missing")
            return
        for file in entry.files:
            if problem := found[file.sha256] or self._problem_of_name(entry, file, on_bytes):
                yield Damage(entry.source, entry.pin, file.path, problem)
        listed = {METADATA, *(file.path for file in entry.files)}
        for path in below(entry.path):
            if (name := path.relative_to(entry.path).as_posix()) not in listed:
                yield Damage(entry.source, entry.pin, name, "extra")

    def _problem_of_name(self, entry: Cached, file: FileEntry, on_bytes: OnBytes) -> Problem | None:
        """The blob is good; its name in the entry should lead to it, and is another file when somebody edited it."""
        name = entry.path / file.path
        look = signature(str(name))
        if look is None or not name.is_file():
            return "missing"
        if look == signature(str(self._cache.blob(file.sha256))):
            return None
        return None if _sha256(name, on_bytes) == file.sha256 else "wrong"


class _Nothing:
    """The source of an entry whose files are all here."""

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        raise Missing("cache", f"{spec.reference} is not asked")

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        raise Missing("cache", f'"{entry.path}" went while it was looked at', "run it again")


def _sha256(path: Path, on_bytes: OnBytes) -> str | None:
    """The sha256 of a file; None when the disk cannot read it, which is as bad as wrong bytes."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with path.open("rb", buffering=0) as file:
        try:
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                on_bytes(count)
        except OSError:
            return None
    return digest.hexdigest()
