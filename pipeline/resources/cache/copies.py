"""Copies of cached files in a folder of the user's: theirs to edit, so never another name of a blob. Used by cli for `mp pull`."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from pipeline.core.errors import BackendError, Corrupt, Denied, Exhausted, Refused
from pipeline.core.model import FileEntry
from pipeline.resources.cache.blobs import sha256_of
from pipeline.resources.cache.cached import below
from pipeline.resources.cache.entries import require_inside
from pipeline.resources.cache.reading import CHUNK_BYTES
from pipeline.resources.cache.store import Cache
from pipeline.resources.cache.supply import OnBytes, clone, hash_to, write_all

WORKERS = 4  # files at a time
SHOWN = 3  # names in an error
PARTIAL = ".mp-partial-"  # a copy that is not finished; what a kill left is written again


def require_room(folder: Path, files: Mapping[str, FileEntry]) -> None:
    """Raises Refused when the folder holds anything but files of this model: nothing of the user's is written over."""
    with _writing(folder):
        if folder.exists() and not folder.is_dir():
            raise Refused(f"{folder} is no folder", "name another one")
        others = [
            name
            for path in below(folder)
            if not path.name.startswith(PARTIAL) and not _may_be(path, files.get(name := _name(folder, path)))
        ]
    if others:
        named = ", ".join(f'"{name}"' for name in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        raise Refused(
            f"{folder} holds {named}{more}: no file of the model, or another content",
            "name an empty or a new folder",
        )


def copy_out(cache: Cache, files: Mapping[str, FileEntry], folder: Path, on_bytes: OnBytes) -> None:
    """Have exactly these files in the folder, each hashed; blocks are shared with the cache where the file system can.

    What is there already is hashed and kept. Raises Refused when it is another's, Corrupt after dropping a bad blob.
    """
    require_room(folder, files)
    for path in files:
        require_inside(path)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in [path for path in below(folder) if path.name.startswith(PARTIAL)]:
            leftover.unlink(missing_ok=True)
        with ThreadPoolExecutor(WORKERS, "copy") as pool:
            list(pool.map(lambda pair: _copy(cache, folder / pair[0], pair[1], on_bytes), files.items()))


def _copy(cache: Cache, target: Path, entry: FileEntry, on_bytes: OnBytes) -> None:
    if target.exists():
        if sha256_of(str(target)) != entry.sha256:
            raise Refused(f"{target} is there with other content", "name an empty or a new folder")
        on_bytes(entry.size_bytes)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f"{PARTIAL}{hashlib.sha256(target.name.encode()).hexdigest()[:12]}"
    try:
        with partial.open("xb+", buffering=0) as file:
            found = _filled(cache.blob(entry.sha256), file, on_bytes)
        if found != entry.sha256:
            cache.discard(entry.sha256)
            raise Corrupt(
                "cache", f'"{entry.path}" changed on this disk and was dropped', "run it again: it is fetched"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _filled(blob: Path, file: FileIO, on_bytes: OnBytes) -> str:
    """The sha256 of what is in the file now."""
    digest = hashlib.sha256()
    if clone(blob, file):
        reached = 0

        def on_chunk(position: int) -> None:
            nonlocal reached
            on_bytes(position - reached)
            reached = position

        return hash_to(file, os.fstat(file.fileno()).st_size, on_chunk).hexdigest()
    with blob.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            write_all(file, chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _may_be(path: Path, entry: FileEntry | None) -> bool:
    """By its look; the content is hashed when it is its turn."""
    return entry is not None and not path.is_symlink() and path.stat().st_size == entry.size_bytes


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except OSError as problem:
        where = problem.filename or folder
        match problem.errno:
            case errno.ENOSPC | errno.EDQUOT:
                raise Exhausted(
                    "disk", f"that of {folder} is full", "free some space there, or name another folder"
                ) from problem
            case errno.EACCES | errno.EPERM | errno.EROFS:
                raise Denied(
                    "disk", f"cannot write {where}", "name a folder that you may write to"
                ) from problem
            case _:
                raise BackendError("disk", f"{where}: {problem.strerror}") from problem
