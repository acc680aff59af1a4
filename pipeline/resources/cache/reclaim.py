"""What may leave the cache and how many bytes that frees, and carrying it out so that a kill does no harm. Used by shelf."""

import contextlib
import fcntl
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.clients.oci import unlinking
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact
from pipeline.resources.cache.blobs import disk
from pipeline.resources.cache.cached import Cached, below, listed, read, references
from pipeline.resources.cache.entries import METADATA, is_pin, place_of

RECENT_S = 3600.0  # what was used so lately may be in use
OLD_DOWNLOAD_S = 86400.0  # a partial download that nobody went on with for a day

_SHA256 = re.compile(r"[0-9a-f]{64}")


@frozen
class Reclaim:
    """What would be removed. `freed_bytes` is what the disk gets back when all of it goes."""

    entries: tuple[Cached, ...]
    views: tuple[Path, ...]  # folders that were served from
    downloads: tuple[Path, ...]  # partial files that nobody works on
    leftovers: tuple[Path, ...]  # links and texts of runs that were killed, names that lead nowhere
    blobs: tuple[Path, ...]  # named by no entry and no view that stays
    spared: tuple[Cached, ...]  # not wanted, but perhaps in use: they stay
    freed_bytes: int  # a file system that shares blocks between files (reflinks) may free less
    made_at: float  # seconds since 1970
    forced: bool


def unwanted(
    root: Path,
    wanted: Collection[tuple[str, str]],
    views: Collection[str],
    contents: Collection[str],
    now: float,
    *,
    forced: bool,
) -> Reclaim:
    """A plan; nothing is changed. `wanted` are pairs of source and pin, `views` names of views that are needed.

    `contents` are sha256s that will be wanted: what came of them, whole or in part, stays without an entry too. Not `forced`, entries and views of the last hour stay, and while a download is under way every entry and blob does:
    it may be about to use them.
    """
    with disk(str(root)):
        places = {root / "models" / place_of(Artifact(source, "", pin, ())) for source, pin in wanted}
        since = float("inf") if forced else now - RECENT_S
        busy = not forced and _busy(root)
        entries = read(root)
        idle = [entry for entry in entries if entry.path not in places]
        dropped = tuple(entry for entry in idle if not busy and entry.used_at <= since)
        spared = tuple(entry for entry in idle if busy or entry.used_at > since)
        served = listed(root / "views")
        old = tuple(view for view in served if view.name not in views and _changed_at(view) <= since)
        going = {*(entry.path for entry in dropped), *old}
        stays = _Stays.of(
            contents,
            [entry for entry in entries if entry.path not in going],
            [view for view in served if view not in going],
        )
        blobs = () if busy else tuple(_unnamed(root, stays, dropped, since))
        old_before = float("inf") if forced else now - OLD_DOWNLOAD_S
        downloads = tuple(path for path in _downloads(root, old_before) if path.name not in contents)
        leftovers = tuple(_leftovers(root, now))
        files = [file for folder in going for file in below(folder)]
        files += [file for entry in dropped for file, _ in references(entry.path)]
        freed_bytes = unlinking.freed_bytes([*files, *downloads, *leftovers, *blobs])
        return Reclaim(dropped, old, downloads, leftovers, blobs, spared, freed_bytes, now, forced)


def prune(root: Path, plan: Reclaim) -> int:
    """Carry a plan out; the bytes that became free. What was used since the plan was made stays.

    Metadata goes first and blobs go last: whatever a kill leaves is incomplete, and the next plan has it.
    """
    freed_bytes = 0
    with disk(str(root)):
        used = {entry.path: entry.used_at for entry in read(root)}
        for entry in plan.entries:
            if used.get(entry.path) == entry.used_at:
                freed_bytes += _drop(root, entry)
        for view in plan.views:
            if _changed_at(view) <= plan.made_at:
                freed_bytes += _drop_folder(view, below(view))
        freed_bytes += sum(_remove_if_idle(path) for path in plan.downloads)
        freed_bytes += sum(unlinking.remove(path) for path in plan.leftovers)
        if plan.blobs and (plan.forced or not _busy(root)):
            stays = _Stays.of((), read(root), listed(root / "views"))
            freed_bytes += sum(unlinking.remove(path) for path in plan.blobs if not stays.has(path))
    return freed_bytes


@frozen
class _Stays:
    """What entries and views that stay need: names of blobs and, where no metadata tells them, inodes."""

    sha256s: frozenset[str]
    inodes: frozenset[int]

    @classmethod
    def of(cls, contents: Iterable[str], entries: Sequence[Cached], views: Iterable[Path]) -> "_Stays":
        folders = [*(entry.path for entry in entries), *views]
        return cls(
            frozenset(contents) | {file.sha256 for entry in entries for file in entry.files},
            frozenset(
                look.st_ino for folder in folders for path in below(folder) if (look := unlinking.look(path))
            ),
        )

    def has(self, blob: Path) -> bool:
        look = unlinking.look(blob)
        return blob.name in self.sha256s or (look is not None and look.st_ino in self.inodes)


def _changed_at(path: Path) -> float:
    """Seconds since 1970; making a view touches its folder. What is gone is of the future: nobody removes it."""
    look = unlinking.look(path)
    return look.st_ctime if look else float("inf")


def _unnamed(root: Path, stays: _Stays, dropped: Iterable[Cached], since: float) -> Iterator[Path]:
    """Blobs that nothing needs; one of no entry that has just come may be waiting for its entry."""
    named = {file.sha256 for entry in dropped for file in entry.files}
    for folder in listed(root / "blobs"):
        for blob in listed(folder):
            if not _SHA256.fullmatch(blob.name) or stays.has(blob):
                continue
            look = unlinking.look(blob)
            if look and (blob.name in named or look.st_mtime <= since):
                yield blob


def _partials(root: Path) -> Iterator[Path]:
    return (path for path in listed(root / "partial") if _SHA256.match(path.name))


def _downloads(root: Path, before: float) -> Iterator[Path]:
    for path in _partials(root):
        with _alone(path) as file:
            look = os.fstat(file) if file is not None else None
            if look and (
                look.st_mtime < before or look.st_nlink > 1
            ):  # of a second name only the first is needed
                yield path


def _leftovers(root: Path, now: float) -> Iterator[Path]:
    """A kill may leave links and texts of an instant, and names of entries that are gone."""
    for path in listed(root / "partial"):
        if not _SHA256.match(path.name) and _changed_at(path) < now - RECENT_S:
            yield path
    for path in below(root / "models"):
        if path.is_symlink() and not path.exists():
            yield path
        elif path.parent.name == "refs" and not is_pin(path.parent.parent.name):
            with contextlib.suppress(FileNotFoundError):
                pin = path.read_bytes().strip().decode(errors="replace")
                if is_pin(pin) and not (path.parent.parent / pin).is_dir():
                    yield path


def _busy(root: Path) -> bool:
    """A process downloads: it holds the lock of a partial file."""
    for path in _partials(root):
        with _alone(path) as file:
            if file is None and path.exists():
                return True
    return False


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[int | None]:
    """The descriptor of a file whose lock we got; None when another process has it, or the file is gone."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(path.open("rb")).fileno()
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (FileNotFoundError, BlockingIOError):
            yield None
            return
        yield descriptor


def _drop(root: Path, entry: Cached) -> int:
    """Metadata first: from then on the entry is incomplete for everybody."""
    freed_bytes = unlinking.remove(entry.path / METADATA)
    freed_bytes += sum([unlinking.remove(file) for file, _ in references(entry.path)])
    freed_bytes += _drop_folder(entry.path, below(entry.path))
    for sibling in listed(entry.path.parent):  # a readable name that led here
        if sibling.is_symlink() and sibling.readlink() == Path(entry.pin):
            sibling.unlink(missing_ok=True)
    _remove_empty(entry.path.parent / "refs")
    for parent in entry.path.parents:
        if parent == root / "models" or not _remove_empty(parent):
            break
    return freed_bytes


def _drop_folder(folder: Path, files: Iterable[Path]) -> int:
    freed_bytes = sum([unlinking.remove(path) for path in files])
    for here, _, _ in os.walk(folder, topdown=False):
        _remove_empty(Path(here))
    return freed_bytes


def _remove_if_idle(path: Path) -> int:
    with _alone(path) as file:
        return unlinking.remove(path) if file is not None else 0


def _remove_empty(folder: Path) -> bool:
    """False when another process put something there, or it is gone."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
