"""The program that fills a claim: the files of a weights image, each verified against its hash in models.lock. Of a Job, or of
a container that runs before a server whose volume is its own.

    python3 -m pipeline.cli.filling DOCUMENT FOLDER

DOCUMENT is JSON that targets write (`targets/kubernetes/filling.py`): where the image is, and path, size and sha256 of every
file. It runs in mp's own image, which has this module and what it imports, and nothing else of mp.

A file gets its name when it is whole, verified and on the disk. What a pod that was killed left is gone on with.
Exit codes: 0 filled, 1 another try may help, 3 it will not. The last line of the output says why.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from pipeline.clients.oci.repositories import Repositories
from pipeline.core.errors import BackendError, Corrupt, Denied, Exhausted, Missing, MpError, Refused
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry
from pipeline.resources.cache.reading import CHUNK_BYTES, received, require_hash
from pipeline.sources.oci.source import OciSource

FILLED, AGAIN, NEVER = 0, 1, 3
LASTING = (Corrupt, Denied, Missing, Exhausted, Refused)  # errors that are the same the next time
WORKERS = 4  # files at a time
REPORT_S = 10.0
PART = ".mp-part-"  # a file that is not whole yet
ENDED = 128 + signal.SIGTERM


class Opens(Protocol):
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]: ...


@frozen
class Wanted:
    """What a claim shall hold."""

    registry: Registry
    repository: str  # "tiny.weights"
    tag: str
    folder: str  # below the claim's root
    files: tuple[FileEntry, ...]
    alone: bool = False  # the volume is one replica's: other versions in it give way

    @staticmethod
    def of(document: Mapping[str, Any]) -> "Wanted":
        registry = Registry(
            "main", url=document["registry"], insecure=document["insecure"], ca=document["ca"]
        )
        files = tuple(FileEntry(path, size, sha256) for path, size, sha256 in document["files"])
        where = (document["repository"], document["tag"], document["folder"])
        return Wanted(registry, *where, files, document.get("alone", False))


def main(words: list[str]) -> int:
    # process 1 of a container is not ended by a signal that it does not handle
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(ENDED))
    document, folder = words
    try:
        wanted = Wanted.of(json.loads(Path(document).read_bytes()))
        if is_filled(wanted, Path(folder)):  # also where the registry is away
            _say(f"{len(wanted.files)} files are there already")
            return FILLED
        repositories = Repositories(os.environ, [wanted.registry])
        artifact = _pinned(wanted, repositories)
        fill(wanted, artifact, OciSource(repositories, _absorbs_nothing), Path(folder))
    except MpError as problem:
        _say(f"error: {problem.message}" + (f" ({problem.hint})" if problem.hint else ""))
        return NEVER if isinstance(problem, LASTING) else AGAIN
    return FILLED


def is_filled(wanted: Wanted, folder: Path) -> bool:
    """Whether every file has its name, which it got when it was verified, and its size."""
    return all(_is_there(folder / wanted.folder / entry.path, entry) for entry in wanted.files)


def fill(wanted: Wanted, artifact: Artifact, source: Opens, folder: Path) -> None:
    """Have every file in the folder. Raises Corrupt for a file that is not what its hash says, Exhausted, Denied, Missing."""
    for entry in wanted.files:
        _require_inside(entry.path)
    meter = _Meter(sum(entry.size_bytes for entry in wanted.files))
    root = folder / wanted.folder
    if wanted.alone:
        try:
            _remove_others(folder, wanted.folder)
        except OSError as problem:
            raise _named(problem, folder, meter) from problem

    def one(entry: FileEntry) -> None:
        try:
            _file(entry, artifact, source, root, meter)
        except OSError as problem:
            raise _named(problem, folder, meter) from problem

    with ThreadPoolExecutor(WORKERS, "fill") as pool:
        futures = [pool.submit(one, entry) for entry in wanted.files]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            meter.stopped = True
            raise
    _say(f"{len(wanted.files)} files, {_size(meter.total_bytes)}: all are there and verified")


def _remove_others(folder: Path, own: str) -> None:
    """Each version has a folder with a hash in its name: "models-1a2b3c4d5e6f". What else is there stays."""
    for one in folder.glob(f"{own.rpartition('-')[0]}-*"):
        if one.name != own and one.is_dir():
            _say(f"{one.name} makes room")
            shutil.rmtree(one)


def _pinned(wanted: Wanted, repositories: Repositories) -> Artifact:
    """The weights image by its digest. Its tag is a hash of its content, and each file has one of its own."""
    repository = repositories(wanted.registry, wanted.repository)
    found = repository.head(wanted.tag)
    if found is None:
        raise Missing(repository.location, f"has no {wanted.tag}", "run mp apply, which publishes it")
    reference = f"oci://{wanted.registry.url}/{wanted.repository}"
    return Artifact(reference, wanted.tag, found[0].replace(":", "-"), wanted.files)


def _file(entry: FileEntry, artifact: Artifact, source: Opens, root: Path, meter: "_Meter") -> None:
    target = root / entry.path
    if _is_there(target, entry):
        meter.count(entry.size_bytes)  # it got its name when it was verified
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f"{PART}{hashlib.sha256(target.name.encode()).hexdigest()[:12]}"
    with part.open("ab") as made:
        made.truncate(min(made.tell(), entry.size_bytes))
    with part.open("r+b") as handle:
        hasher = _hashed(handle, meter)
        try:
            for chunk in received(
                entry.path,
                entry.size_bytes,
                lambda start: source.open(artifact, entry, start),
                start=handle.tell(),
            ):
                handle.write(chunk)
                hasher.update(chunk)
                meter.count(len(chunk))
            require_hash(entry, hasher.hexdigest())
        except Corrupt:
            part.unlink(missing_ok=True)
            raise
        handle.flush()
        os.fsync(handle.fileno())
    part.chmod(0o644)
    part.replace(target)


def _is_there(file: Path, entry: FileEntry) -> bool:
    return file.is_file() and file.stat().st_size == entry.size_bytes


def _hashed(handle: BinaryIO, meter: "_Meter") -> "hashlib._Hash":
    """What is there of a file, from its beginning; the handle is at its end then."""
    hasher = hashlib.sha256()
    while chunk := handle.read(CHUNK_BYTES):
        hasher.update(chunk)
        meter.count(len(chunk))
    return hasher


class _Meter:
    """Says how far it is, every ten seconds."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.stopped = False  # another file failed: there is nothing to go on for
        self._guard = threading.Lock()
        self._done_bytes = 0
        self._next = 0.0

    def count(self, size_bytes: int) -> None:
        if self.stopped:
            raise BackendError("claim", "another file failed")
        with self._guard:
            self._done_bytes += size_bytes
            if (now := time.monotonic()) < self._next:
                return
            self._next = now + REPORT_S
            text = f"{_size(self._done_bytes)} of {_size(self.total_bytes)}"
        _say(text)


def _named(problem: OSError, folder: Path, meter: _Meter) -> BackendError:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"{folder} is full: the model has {_size(meter.total_bytes)}"
        return Exhausted("claim", text, "give the claim a larger size")
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text = f"{problem.filename or folder} cannot be written by user {os.getuid()}"
        return Denied("claim", text, "its storage has to let the pod's group write (fsGroup)")
    return BackendError("claim", f"{problem.filename or folder}: {problem.strerror}")


def _require_inside(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise Refused(f'a file is called "{path}"', "no file may leave its folder")


def _absorbs_nothing(*words: object, **options: object) -> tuple[str, int]:
    raise AssertionError("a pinned image is opened, never resolved")


def _size(size_bytes: int) -> str:
    """ "4.2 GB", as mp writes sizes."""
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if unit != "B" else f"{size_bytes} B"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # threads that wait for a registry do not keep a Job that has failed
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
