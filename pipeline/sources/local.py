"""Models in a folder or a single file on this machine: `file:///path`, pinned by their content."""

import contextlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import BinaryIO

from pipeline.core.digest import canonical, fingerprint
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Refused
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.sources.choice import Choice, choose, matches
from pipeline.sources.facts import TELLING_BYTES, facts, telling
from pipeline.sources.safety import require_safe

SETTLED_NS = 2_000_000_000  # younger files may still change without a new time stamp
# A checkpoint may lie beside its manifest: what mp writes there is no file of the model, or it would never be as locked.
OF_THE_PROJECT = frozenset({"models.yaml", "models.lock", "models.schema.json"})
LAYOUT = "oci-layout"  # a folder with such a file holds images: what mp publishes, when the registry is in the source

Seen = tuple[int, int, int]  # size in bytes, mtime in ns, inode


class LocalSource:
    """`memo` is a folder that remembers the hashes of files by how they looked, so nothing is hashed twice."""

    def __init__(self, memo: Path, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._memo = memo
        self._now_ns = now_ns

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """Hash what is chosen; the pin is the hash of all paths, hashes and sizes."""
        root = _root(spec.reference)
        with _reading(spec.reference):
            listed = [path for path in _listed(root) if path not in OF_THE_PROJECT]
            _require_utf8(spec, listed)
            folder = _folder(root)
            choice = choose(spec, {path: _size_bytes(folder, path) for path in listed})
            if known is None:  # before hours of hashing
                require_safe(spec, choice, _content(root, choice))
            entries = tuple(self._hashed(root, choice.paths))
            if known is not None and (known.source, known.version, known.filter, known.files) == (
                spec.reference,
                spec.version,
                spec.filter,
                entries,
            ):
                return known  # equal content has equal facts
            content = _content(root, choice)
        require_safe(spec, choice, content, {entry.path: entry.sha256 for entry in entries})
        pin = "sha256-" + fingerprint([[entry.path, entry.sha256, entry.size_bytes] for entry in entries])
        said, left_out_bytes = facts(content), choice.left_out_bytes
        return Artifact(spec.reference, spec.version, pin, entries, said, spec.filter, left_out_bytes)

    @contextlib.contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        with contextlib.ExitStack() as stack:
            with _reading(artifact.source):
                file = stack.enter_context(_inside(_root(artifact.source), entry.path).open("rb"))
                file.seek(start)
            yield file

    def _hashed(self, root: Path, paths: tuple[str, ...]) -> Iterator[FileEntry]:
        memo = self._memo / f"{fingerprint(str(root))[:16]}.json"
        remembered = _remembered(memo)
        fresh: dict[str, tuple[Seen, str]] = {}
        folder = _folder(root)
        for path in paths:
            file = f"{folder}/{path}"
            if os.path.islink(file):  # noqa: PTH114
                _inside(root, path)
            before = _seen(file)
            seen, sha256 = remembered.get(path, (None, ""))
            if seen != before:
                sha256 = _sha256(file)
                if _seen(file) != before:
                    raise Corrupt(
                        f"file://{root}", f'"{path}" changes while it is read', "wait until it is written"
                    )
            if before[1] < self._now_ns() - SETTLED_NS:
                fresh[path] = (before, sha256)
            yield FileEntry(path, before[0], sha256)
        if fresh.items() - remembered.items():
            _remember(memo, remembered | fresh)


def _root(reference: str) -> Path:
    return Path(reference.removeprefix("file://"))


def _folder(root: Path) -> str:
    """Where the files lie, also of a model that is one file. A text: there are many files, and no Path for each."""
    return str(root.parent if root.is_file() else root)


@contextlib.contextmanager
def _reading(reference: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise Missing(reference, f"{problem.filename} is not there", "check the path in source") from problem
    except PermissionError as problem:
        raise Denied(
            reference, f"may not read {problem.filename}", "check the file's permissions"
        ) from problem
    except OSError as problem:
        raise BackendError(reference, f"cannot be read: {problem.strerror}") from problem


def _listed(root: Path) -> list[str]:
    """Every file below a folder, or the file itself, by its relative path; image layouts are left out."""
    if root.is_file():
        return [root.name]
    if not root.is_dir():
        raise FileNotFoundError(None, None, str(root))
    found = []
    for folder, folders, files in os.walk(root):
        if LAYOUT in files:
            folders.clear()
            continue
        below = folder[len(str(root)) :].lstrip("/")
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]  # noqa: PTH114
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = (name for name in (*files, *links) if not name.startswith("."))
        found += [f"{below}/{name}" if below else name for name in names]
    return found


def _require_utf8(spec: SourceSpec, paths: Iterable[str]) -> None:
    """Locks, images and logs are UTF-8: a file whose name is not cannot be told in them."""
    for path in paths:
        if not path.isascii() and matches(spec, path):
            try:
                path.encode()
            except UnicodeEncodeError as problem:
                shown = os.fsencode(path).decode("utf-8", "backslashreplace")
                hint = "rename it, or exclude it: files.exclude"
                raise Refused(f'{spec.reference}: the name "{shown}" is not UTF-8', hint) from problem


def _inside(root: Path, path: str) -> Path:
    """A file of the model, wherever links lead; what leads out of the folder is refused."""
    folder = root.parent if root.is_file() else root
    file = folder / path
    if not file.resolve().is_relative_to(folder.resolve()):
        hint = "copy the file itself there: cp --dereference"
        raise Refused(f'file://{root}: "{path}" is a link that leads out of its folder', hint)
    return file


def _seen(file: str) -> Seen:
    found = os.stat(file)  # noqa: PTH116
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{file} is no regular file", "exclude it: files.exclude")
    return found.st_size, found.st_mtime_ns, found.st_ino


def _sha256(file: str) -> str:
    with Path(file).open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _size_bytes(folder: str, path: str) -> int:
    """0 of what is no file: only choosing it says what is wrong with it."""
    try:
        return os.stat(f"{folder}/{path}").st_size  # noqa: PTH116
    except OSError:
        return 0


def _content(root: Path, choice: Choice) -> dict[str, bytes]:
    return {path: _read(root, path) for path in telling(choice.paths)}


def _read(root: Path, path: str) -> bytes:
    with _inside(root, path).open("rb") as file:
        return file.read(TELLING_BYTES)


def _remembered(memo: Path) -> dict[str, tuple[Seen, str]]:
    try:
        document: dict[str, list[int | str]] = json.loads(memo.read_bytes())
        return {
            path: ((int(size), int(mtime_ns), int(inode)), str(sha256))
            for path, (size, mtime_ns, inode, sha256) in document.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(memo: Path, hashes: Mapping[str, tuple[Seen, str]]) -> None:
    """Keep the hashes; a memory that cannot be written costs time, nothing else."""
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary = memo.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(canonical({path: [*seen, sha256] for path, (seen, sha256) in hashes.items()}))
        temporary.replace(memo)
