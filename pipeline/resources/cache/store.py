"""The cache: verified artifacts on this machine, laid out by URL over content-addressed blobs. Serving and images read it."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from pipeline.core.digest import Digest
from pipeline.core.errors import Corrupt, Missing
from pipeline.core.model import Artifact, FileEntry, Overlay
from pipeline.core.protocols import Source
from pipeline.core.report import Emit, Line, Progress
from pipeline.core.resource import Address
from pipeline.resources.cache.absorbing import Absorbing, absorbed_of
from pipeline.resources.cache.blobs import POLL_S, Blobs, Signature, disk, sha256_of, signature
from pipeline.resources.cache.entries import (
    METADATA,
    Record,
    choices_of,
    content_of,
    contents,
    is_readable,
    metadata,
    place_of,
    records_of,
    require_inside,
    since,
)
from pipeline.resources.cache.memory import Memory
from pipeline.resources.cache.reading import Opening, opening_of
from pipeline.resources.cache.sharing import Sharing
from pipeline.resources.cache.supply import OnBytes, Reach, Supply

FRESH_S = 24 * 3600.0  # disks lose bits over months
WORKERS = 4  # files of one artifact at a time: eight were slower on two cores


class Cache:
    """`<root>/blobs` holds the bytes, `<root>/models/<host>/<path>/<pin>/` hard links and `.metadata`, written last."""

    def __init__(
        self, root: Path, now: Callable[[], float] = time.time, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.root = root
        self._root = str(root)
        self._now = now
        self._blobs = Blobs(root, pause)
        self._pause = pause
        self._guard = threading.Lock()  # of .metadata
        self._layers = Memory(root / "layers", _layer_of)
        self._absorbed = Memory(root / "absorbed", absorbed_of)
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
        """What `add` would have to fetch; what an unfinished run left counts as here. A file that looks different is read, so the number is right."""
        missing = self._missing(artifact, self._trusted(artifact))
        return sum(max(0, each.size_bytes - self._blobs.arrived_bytes(each.sha256)) for each in missing)

    def add(
        self,
        artifact: Artifact,
        source: Source,
        emit: Emit,
        address: Address,
        found: Mapping[str, Path] = {},
        *,
        move: bool = False,
    ) -> None:
        """Fetch what is not here and is needed, verify it, and write the entry. May be repeated, by many processes at once.

        `found`: copies on this machine by their path in the artifact, used before the source; with `move` they become
        blobs, or are removed when the artifact is complete, and one that is wrong is an error. Raises Corrupt, Exhausted, Denied, Missing, Unreachable; then the entry is as incomplete as it was.
        """
        for entry in artifact.files:
            require_inside(entry.path)
        trusted = self._trusted(artifact)
        missing = {
            entry: self._blobs.arrived_bytes(entry.sha256) for entry in self._missing(artifact, trusted)
        }
        show = _progress(emit, address, sum(entry.size_bytes for entry in missing))
        sharing = Sharing[FileEntry, Signature](WORKERS, lambda: self._pause(POLL_S))

        def supply(entry: FileEntry, landed: OnBytes) -> Supply:
            def on_bytes(count: int) -> None:
                sharing.check()
                if count and entry in missing:
                    landed(count)
                    show(count)

            return Supply(
                opening=lambda start: source.open(artifact, entry, start),
                reach=Reach(on_bytes),
                found=found.get(entry.path),
                move=move,
                report=lambda text: emit(Line(address, text)),
            )

        with self._blobs.reserved(sum(max(0, e.size_bytes - have) for e, have in missing.items())) as landed:
            supplies = {entry: supply(entry, landed) for entry in _distinct(artifact)}

            def attempt(entry: FileEntry) -> Signature | None:
                return self._blobs.attempt(entry, trusted.get(entry.sha256), supplies[entry])

            sharing.all(attempt, list(missing))
            signatures = {
                entry.sha256: self._blobs.ensure(entry, trusted.get(entry.sha256), supplies[entry])
                for entry in supplies
            }
        folder = self._folder(artifact)
        with disk(self._root):
            for entry in artifact.files:
                self._link(entry.sha256, f"{folder}/{entry.path}")
            self._write_entry(artifact, folder, signatures)
        if move:
            with disk(self._root):
                self._drop_found(artifact, found)

    def absorb(
        self, identity: str, size_bytes: int | None, opening: Opening, *, keep: bool = True
    ) -> tuple[str, int]:
        """sha256 and size of bytes whose source cannot tell it, read once and, with `keep`, kept for `add`.

        `identity` is one line that names immutable bytes ("s3://b/k etag=…"); where it is remembered nothing is read.
        Raises what `opening` raises, Corrupt when the length is not `size_bytes`, Exhausted.
        """
        return Absorbing(
            identity, size_bytes, opening, self._blobs, self._absorbed, self._root, self._pause
        ).run(keep=keep)

    def open(self, entry: FileEntry) -> BinaryIO:
        """The bytes of a blob. The reader hashes them, and calls `discard` when they are wrong."""
        try:
            return self.blob(entry.sha256).open("rb")
        except FileNotFoundError as problem:
            raise Missing("cache", f'"{entry.path}" is not in {self._root}', "run mp apply") from problem

    def is_fresh(self, entry: FileEntry) -> bool:
        """Whether a blob was written and hashed within FRESH_S, and looks as it did then: as good as hashed now."""
        age_s = self._blobs.age_s(entry.sha256, self._now())
        return age_s is not None and 0 <= age_s < FRESH_S

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
        return self._layers.get(key)

    def remember_layer(self, key: str, digest: Digest, size: int) -> None:
        """Keep a layer's digest and size."""
        with disk(self._root):
            self._layers.put(key, [digest, str(size)])

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
        return [
            entry for entry in _distinct(artifact) if not self._blobs.holds(entry, trusted.get(entry.sha256))
        ]

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
                metadata(artifact, records, choices_of(folder), since(folder, artifact, self._now())),
                durable=True,
            )
            if 0 < len(artifact.version) < 200 and artifact.version not in (artifact.pin, ".", ".."):
                self._name(artifact, Path(folder).parent)

    def _name(self, artifact: Artifact, models: Path) -> None:
        """Remember which pin a branch or tag meant; one that is safe as a name leads there for people too."""
        reference = models / "refs" / quote(f"{artifact.version}", safe="")
        reference.parent.mkdir(exist_ok=True)
        self._replace(str(reference), artifact.pin.encode(), durable=False)
        link = models / artifact.version
        if is_readable(artifact.version) and (link.is_symlink() or not link.exists()):
            link.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):  # another process was as quick
                link.symlink_to(artifact.pin)

    def _replace(self, path: str, content: bytes, *, durable: bool) -> None:
        temporary = Path(f"{self._root}/partial/entry.{os.getpid()}.{next(self._numbers)}")
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)

    def _drop_found(self, artifact: Artifact, found: Mapping[str, Path]) -> None:
        """Moved means gone from where it was; only what is surely here as well is removed."""
        for entry in artifact.files:
            path = found.get(entry.path)
            if path is not None and sha256_of(str(path)) == entry.sha256:
                path.unlink()

    def _keep(self, overlay: Overlay) -> None:
        entry = FileEntry(overlay.path, overlay.size_bytes, overlay.sha256)
        try:
            self._blobs.ensure(entry, None, Supply(opening_of(Path(overlay.file))))
        except Corrupt as problem:
            raise Corrupt(overlay.file, "changed after it was read", "run the command again") from problem

    def _verify(self, folder: Path, wanted: Mapping[str, str]) -> None:
        paths = sorted(wanted)
        with disk(self._root), ThreadPoolExecutor(WORKERS, "verify") as pool:
            found = list(pool.map(lambda path: sha256_of(f"{folder}/{path}"), paths))
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


def _layer_of(words: Sequence[str]) -> tuple[Digest, int]:
    digest, size = words
    return Digest(digest), int(size)


def _distinct(artifact: Artifact) -> list[FileEntry]:
    """One file of each content."""
    return list({entry.sha256: entry for entry in artifact.files}.values())


def _progress(emit: Emit, address: Address, total_bytes: int) -> Callable[[int], None]:
    guard = threading.Lock()
    done_bytes = 0

    def on_bytes(count: int) -> None:
        nonlocal done_bytes
        with guard:
            done_bytes += count
            emit(Progress(address, "download", done_bytes, total_bytes))

    return on_bytes
