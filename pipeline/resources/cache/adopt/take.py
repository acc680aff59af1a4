"""Taking a model over from another cache: hash, add to mp's, and with `move` clear the other one. Used through resources/adopt."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from pipeline.core.digest import fingerprint
from pipeline.core.errors import Corrupt
from pipeline.core.model import Artifact, FileEntry, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import Address
from pipeline.resources.cache.adopt import huggingface, instructlab
from pipeline.resources.cache.adopt.found import Found, inside, is_dotted, reading
from pipeline.resources.cache.cached import Cached, below, read
from pipeline.resources.cache.reading import CHUNK_BYTES, opening_of
from pipeline.resources.cache.store import Cache

TAKEN = ".mp-taken"  # a folder of the other cache whose files are all in mp's, on its way out


def take(found: Found, cache: Cache, emit: Emit, *, move: bool = False) -> Cached:
    """Have the model in mp's cache, every file hashed. With `move` the other cache gives it up, once it is all here.

    Raises Refused for links that lead out of the other cache, Corrupt when a file is not what its name there says, and
    what Cache.add raises; then the other cache keeps every file. May be repeated, after a kill too.
    """
    real = {path: inside(found, path) for path in sorted(found.files)}
    with reading(found.root):
        files = _hashed(found, real, emit, every=move)
        if move:
            _share(found, real, files, cache)
    content = [[entry.path, entry.sha256, entry.size_bytes] for entry in files]
    pin = found.pin or f"sha256-{fingerprint(content)}"
    only = Filter(include=tuple(real))  # nobody knows here whether this is all that another choice would take
    for version in found.versions or ("",):
        artifact = Artifact(found.source, version, pin, files, filter=only)
        try:
            cache.add(artifact, _Files(artifact, real), emit, Address(found.source), real)
        except Corrupt as problem:
            raise Corrupt(f"cache {found.root}", problem.message, _hint(found)) from problem
    if move:
        with reading(found.root):
            _clear(found)
    folder = cache.folder(artifact)
    return next(entry for entry in read(cache.root) if entry.path == folder)


class _Files:
    """The files of a found model as a source."""

    def __init__(self, artifact: Artifact, real: Mapping[str, Path]) -> None:
        self._artifact = artifact
        self._real = real

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        return self._artifact

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        return opening_of(self._real[entry.path])(start)


def _hint(found: Found) -> str:
    return f"the file is damaged there: delete {found.folder}, and pull the model instead"


def _hashed(found: Found, real: Mapping[str, Path], emit: Emit, *, every: bool) -> tuple[FileEntry, ...]:
    """Size and sha256 of each file. What names tell is hashed when it is added, with `every` here already."""
    sizes = {path: file.stat().st_size for path, file in real.items()}
    unknown = [path for path in real if every or path not in found.sha256s]
    total_bytes, done_bytes = sum(sizes[path] for path in unknown), 0

    def on_bytes(count: int) -> None:
        nonlocal done_bytes
        done_bytes += count
        emit(Progress(Address(found.source), "hash", done_bytes, total_bytes))

    sha256s = dict(found.sha256s) | {path: _sha256(found, path, real[path], on_bytes) for path in unknown}
    return tuple(FileEntry(path, sizes[path], sha256s[path]) for path in sorted(real))


def _sha256(found: Found, path: str, file: Path, on_bytes: Callable[[int], None]) -> str:
    """Hash a file, and compare with what its name there says: its sha256, or its id in git."""
    header = b"blob %d\0" % file.stat().st_size
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(header, usedforsecurity=False)
    with file.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sha256.update(chunk)
            if path in found.git_sha1s:
                sha1.update(chunk)
            on_bytes(len(chunk))
    hashed = sha256.hexdigest()
    if (
        found.sha256s.get(path, hashed) != hashed
        or found.git_sha1s.get(path, sha1.hexdigest()) != sha1.hexdigest()
    ):
        raise Corrupt(f"cache {found.root}", f'"{path}" is not what its name there says', _hint(found))
    return hashed


def _share(found: Found, real: Mapping[str, Path], files: Sequence[FileEntry], cache: Cache) -> None:
    """Give verified files a second name as blobs, where one file system holds both caches: no byte is copied.

    The names there go only after the entry is written, so a kill loses nothing. A file that others keep using there is
    left to be copied: who writes to it must not write here.
    """
    names = {*found.files.values()}
    kept = {_target(link) for link in below(found.root) if link.is_symlink() and link not in names}
    for entry in files:
        file, blob = real[entry.path], cache.blob(entry.sha256)
        if file.stat().st_nlink > 1 or not kept.isdisjoint(_steps(found.files[entry.path])):
            continue
        with contextlib.suppress(OSError):  # another file system or owner: it is copied; or the blob is there
            blob.parent.mkdir(parents=True, exist_ok=True)
            file.chmod(0o444)
            os.link(file, blob)


def _clear(found: Found) -> None:
    """Remove a model's names, then the files that nothing else there leads to: a kill leaves no link that leads nowhere."""
    for leftover in list(found.root.rglob(f"{TAKEN}-*")):  # of a run that was killed here
        shutil.rmtree(leftover, ignore_errors=True)
    names = list(found.files.values())
    if whole := _is_whole(found):
        names = list(below(found.folder))
    targets = {_target(name) for name in names if name.is_symlink()}
    if whole:  # in one step: half a model looks like another one
        leaving = found.folder.with_name(f"{TAKEN}-{found.folder.name}")
        found.folder.rename(leaving)
        shutil.rmtree(leaving)
    else:
        for name in names:
            name.unlink(missing_ok=True)
    _remove_targets(found.root, targets)
    _remove_empty(found)
    if found.origin == "huggingface":
        huggingface.clear(found)


def _is_whole(found: Found) -> bool:
    """Nothing but bookkeeping would stay in the folder. Single GGUF files lie side by side in one that is never whole."""
    taken = {*found.files.values()}
    return found.folder != found.root / "models" and all(
        name in taken or _is_bookkeeping(found, name) for name in below(found.folder)
    )


def _is_bookkeeping(found: Found, name: Path) -> bool:
    path = name.relative_to(found.folder).as_posix()
    return is_dotted(path) or (found.origin == "instructlab" and instructlab.is_note(name))


def _target(link: Path) -> Path:
    """Where a link points, without following what is there."""
    return Path(os.path.normpath(link.parent / link.readlink()))


def _steps(name: Path) -> Iterator[Path]:
    """Where a name leads, link after link."""
    while name.is_symlink():
        name = _target(name)
        yield name


def _remove_targets(root: Path, targets: set[Path]) -> None:
    """Remove what links led to, unless another link still does, or it lies elsewhere."""
    still = {_target(name) for name in below(root) if name.is_symlink()} if targets else set()
    for target in targets - still:
        if target.parent.resolve().is_relative_to(root.resolve()):
            target.unlink(missing_ok=True)


def _remove_empty(found: Found) -> None:
    """Folders of the model that are empty now, and those above it."""
    below_it = [Path(here) for here, _, _ in os.walk(found.folder, topdown=False)]
    for folder in (*below_it, *found.folder.parents):
        if folder in (found.root, found.root / "models"):
            return
        with contextlib.suppress(OSError):
            folder.rmdir()
