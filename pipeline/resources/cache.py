"""The cache: verified artifacts on this machine, laid out by URL over content-addressed blobs. Serving and images read it."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from pipeline.core.digest import Digest
from pipeline.core.errors import Corrupt, Missing
from pipeline.core.model import Artifact, FileEntry, Overlay
from pipeline.core.protocols import Source
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import Address
from pipeline.resources.blobs import Blobs, Signature, disk, sha256_of, signature
from pipeline.resources.entries import (
    METADATA,
    Record,
    choices_of,
    content_of,
    contents,
    metadata,
    place_of,
    records_of,
    require_inside,
)

WORKERS = 4  # files of one artifact at a time

A = TypeVar("A")
B = TypeVar("B")


class Cache:
    """`<root>/blobs` holds the bytes, `<root>/models/<host>/<path>/<pin>/` hard links and `.metadata`, written last."""

    def __init__(
        self, root: Path, now: Callable[[], float] = time.time, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.root = root
        self._root = str(root)
        self._now = now
        self._blobs = Blobs(root, pause)
        self._guard = threading.Lock()  # of .metadata and of the layers' memory
        self._layers: dict[str, tuple[Digest, int]] | None = None
        self._numbers = itertools.count()

    def blob(self, sha256: str) -> Path:
        """Where the bytes are, or would be."""
        return Path(self._blobs.path(sha256))

    def folder(self, artifact: Artifact) -> Path:
        """Where an artifact's entry is, or would be."""
        return Path(self._folder(artifact))

    def complete(self, artifact: Artifact) -> bool:
        """Every file is there and looks as it did when it was verified. Reads no content."""
        folder = self._folder(artifact)
        records = records_of(folder)
        return records is not None and all(
            self._stands(folder, entry, records.get(entry.path)) for entry in artifact.files
        )

    def missing_bytes(self, artifact: Artifact) -> int:
        """What `add` would have to fetch. A file that looks different is read, so the number is right."""
        return sum(entry.size_bytes for entry in self._missing(artifact, self._trusted(artifact)))

    def add(self, artifact: Artifact, source: Source, emit: Emit, address: Address) -> None:
        """Fetch what is not here and is needed, verify it, and write the entry. May be repeated.

        Raises Corrupt, Exhausted, Denied, Missing, Unreachable; then the entry is as incomplete as it was.
        """
        folder = self._folder(artifact)
        for entry in artifact.files:
            require_inside(entry.path)
        trusted = self._trusted(artifact)
        missing = self._missing(artifact, trusted)
        total_bytes = sum(entry.size_bytes for entry in missing)
        show = _progress(emit, address, total_bytes)

        def bring(entry: FileEntry) -> Signature:
            def opening(start: int) -> contextlib.AbstractContextManager[BinaryIO]:
                return source.open(artifact, entry, start)

            def on_bytes(count: int) -> None:
                landed(count)
                show(count)

            return self._blobs.ensure(entry, trusted.get(entry.sha256), opening, on_bytes)

        with self._blobs.reserved(total_bytes) as landed:
            distinct = list({entry.sha256: entry for entry in artifact.files}.values())
            signatures = _each(bring, distinct, parallel=len(missing) > 1)
        by_sha256 = {entry.sha256: seen for entry, seen in zip(distinct, signatures, strict=True)}
        with disk(self._root):
            for entry in artifact.files:
                self._link(entry.sha256, f"{folder}/{entry.path}")
            self._write_entry(artifact, folder, by_sha256)

    def open(self, entry: FileEntry) -> BinaryIO:
        """The bytes of a blob. The reader hashes them, and calls `discard` when they are wrong."""
        try:
            return self.blob(entry.sha256).open("rb")
        except FileNotFoundError as problem:
            raise Missing("cache", f'"{entry.path}" is not in {self._root}', "run mp apply") from problem

    def discard(self, sha256: str) -> None:
        """Remove a bad blob: every entry that has it becomes incomplete."""
        self._blobs.discard(sha256)

    def view_path(self, files: Sequence[FileEntry], overlays: Sequence[Overlay] = ()) -> Path:
        """Where `view` puts its folder; nothing is read or written."""
        return self.root / "views" / content_of(files, overlays)

    def view(self, files: Sequence[FileEntry], overlays: Sequence[Overlay] = ()) -> Path:
        """A folder to serve from: exactly these files and the overlays, each one hashed now.

        Raises Corrupt after removing what is bad, and Missing; then the folder must not be used.
        """
        folder = self.view_path(files, overlays)
        wanted = contents(files, overlays)
        with disk(self._root):
            for overlay in overlays:
                self._keep(overlay)
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # containers read it as another user
            for path, sha256 in wanted.items():
                require_inside(path)
                self._link(sha256, f"{folder}/{path}")
            _remove_others(folder, wanted)
        self._verify(folder, wanted)
        return folder

    def recall_layer(self, key: str) -> tuple[Digest, int] | None:
        """The digest and size of a layer that was written before from the same files."""
        with self._guard:
            return self._remembered().get(key)

    def remember_layer(self, key: str, digest: Digest, size: int) -> None:
        """Keep a layer's digest and size; one line, appended in one write."""
        if set(key) & set("\t\n"):
            raise ValueError(f"a layer's key is one word: {key!r}")
        with self._guard, disk(self._root):
            if self._remembered().get(key) == (digest, size):
                return
            self._remembered()[key] = (digest, size)
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / "layers").open("ab", buffering=0) as file:
                file.write(f"{key}\t{digest}\t{size}\n".encode())

    def _remembered(self) -> dict[str, tuple[Digest, int]]:
        if self._layers is None:
            self._layers = dict(_layer_lines(self.root / "layers"))
        return self._layers

    def _folder(self, artifact: Artifact) -> str:
        return f"{self._root}/models/{place_of(artifact)}"

    def _stands(self, folder: str, entry: FileEntry, record: Record | None) -> bool:
        """Recorded, and both names still lead to the inode that was verified."""
        return (
            record is not None
            and record[0] == entry.sha256
            and signature(self._blobs.path(entry.sha256)) == record[1]
            and signature(f"{folder}/{entry.path}") == record[1]
        )

    def _trusted(self, artifact: Artifact) -> dict[str, Signature]:
        return dict((records_of(self._folder(artifact)) or {}).values())

    def _missing(self, artifact: Artifact, trusted: Mapping[str, Signature]) -> list[FileEntry]:
        distinct = {entry.sha256: entry for entry in artifact.files}.values()
        return [entry for entry in distinct if not self._blobs.holds(entry, trusted.get(entry.sha256))]

    def _link(self, sha256: str, path: str) -> None:
        """Make `path` a name of the blob; what else is there is replaced in one step."""
        blob, seen = self._blobs.path(sha256), signature(path)
        if seen is not None and seen == signature(blob):
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(f"{self._root}/partial/link.{os.getpid()}.{next(self._numbers)}")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(blob, temporary)
            temporary.replace(path)
        except FileNotFoundError as problem:
            raise Missing("cache", f"blob {sha256[:12]} of {path} is gone", "run mp apply") from problem

    def _write_entry(self, artifact: Artifact, folder: str, signatures: Mapping[str, Signature]) -> None:
        with self._guard:  # entries with other filters share the folder: their files stay listed
            records = records_of(folder) or {}
            records |= {entry.path: (entry.sha256, signatures[entry.sha256]) for entry in artifact.files}
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._replace(
                f"{folder}/{METADATA}",
                metadata(artifact, records, choices_of(folder), self._now()),
                durable=True,
            )
            if 0 < len(artifact.version) < 200 and artifact.version != artifact.pin:
                reference = Path(folder).parent / "refs" / quote(f"{artifact.version}", safe="")
                reference.parent.mkdir(exist_ok=True)
                self._replace(str(reference), artifact.pin.encode(), durable=False)

    def _replace(self, path: str, content: bytes, *, durable: bool) -> None:
        temporary = Path(f"{self._root}/partial/entry.{os.getpid()}.{next(self._numbers)}")
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)

    def _keep(self, overlay: Overlay) -> None:
        entry = FileEntry(overlay.path, overlay.size_bytes, overlay.sha256)

        @contextlib.contextmanager
        def opening(start: int) -> Iterator[BinaryIO]:
            with Path(overlay.file).open("rb") as file:
                file.seek(start)
                yield file

        try:
            self._blobs.ensure(entry, None, opening, lambda _: None)
        except Corrupt as problem:
            raise Corrupt(overlay.file, "changed after it was read", "run the command again") from problem

    def _verify(self, folder: Path, wanted: Mapping[str, str]) -> None:
        paths = sorted(wanted)
        with disk(self._root):
            found = _each(lambda path: sha256_of(f"{folder}/{path}"), paths, parallel=len(paths) > 1)
        bad = [path for path, sha256 in zip(paths, found, strict=True) if sha256 != wanted[path]]
        for path in bad:
            self.discard(wanted[path])
            (folder / path).unlink(missing_ok=True)
        if bad:
            names = ", ".join(f'"{path}"' for path in bad)
            raise Corrupt(
                "cache", f"{names} changed on this disk and was removed", "run mp apply: it is fetched again"
            )


def _remove_others(folder: Path, wanted: Mapping[str, str]) -> None:
    """A file that nobody asked for must not be served: an engine may read it."""
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_dir():
            if name not in wanted:
                path.unlink()
        elif not any(other.startswith(f"{name}/") for other in wanted):
            path.rmdir()


def _layer_lines(path: Path) -> Iterator[tuple[str, tuple[Digest, int]]]:
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
        for line in file:
            words = line.rstrip("\n").split("\t")
            if len(words) == 3 and words[2].isdecimal() and line.endswith("\n"):
                yield words[0], (Digest(words[1]), int(words[2]))


def _progress(emit: Emit, address: Address, total_bytes: int) -> Callable[[int], None]:
    guard = threading.Lock()
    done_bytes = 0

    def on_bytes(count: int) -> None:
        nonlocal done_bytes
        with guard:
            done_bytes += count
            emit(Progress(address, "download", done_bytes, total_bytes))

    return on_bytes


def _each(work: Callable[[A], B], items: Sequence[A], *, parallel: bool) -> list[B]:
    """The results in order. After a failure nothing new is begun; what runs is finished and kept."""
    if not parallel:
        return [work(item) for item in items]
    with ThreadPoolExecutor(WORKERS, "transfer") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
