"""What is in the cache: one record an entry, read from `.metadata` and `refs/`; nothing is guessed. Used by shelf, reclaim, adopt and cli."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from pipeline.core.errors import Corrupt
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact, FileEntry
from pipeline.resources.cache.blobs import Signature, disk, signature
from pipeline.resources.cache.entries import METADATA, choices_of, is_pin, place_of, require_inside

Kind = Literal["model", "adapter"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
# What PEFT calls an adapter's configuration (CONFIG_NAME of peft/utils/constants.py); engines look for it too
_ADAPTER = "adapter_config.json"


@frozen
class Cached:
    """One entry. What a damaged or missing `.metadata` does not tell is empty; views show it as n/a."""

    source: str  # canonical reference: "hf://org/name"; "" is not known
    versions: tuple[str, ...]  # branches and tags that lead to this pin, sorted; () is not known
    pin: str  # 40-hex commit, or "sha256-<64 hex>" of the content
    size_bytes: int  # of distinct files
    files: tuple[FileEntry, ...]  # sorted by path; () is not known
    path: Path  # the entry's folder
    complete: bool  # every file looks as it did when it was verified; no content was read
    kind: Kind
    fetched_at: str | None  # "2026-01-31T12:00:00Z"
    used_at: float  # seconds since 1970: written, or served from a view; a read of its files is not seen
    tool: str | None = None  # what brought it here: "mp"
    # entries.choice_of → its paths: choices of files that were fetched whole
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@frozen
class _Metadata:
    source: str
    version: str
    files: Mapping[str, tuple[str, Signature]]
    downloaded_at: str | None
    tool: str | None


def read(root: Path, source: str = "") -> tuple[Cached, ...]:
    """Every entry (or those of one source), sorted by source, then versions. Reads `.metadata` and looks at files; raises Denied."""
    with disk(str(root)):
        served = _served(root / "views")
        entries = []
        place = (_place(source, "0" * 40) or "").rpartition("/")[0]
        for folder in _folders(root / "models" / place):
            with contextlib.suppress(FileNotFoundError):  # another process prunes it
                entries.append(_entry(root, folder, served))
    return tuple(sorted(entries, key=lambda each: (each.source, each.versions, each.pin, each.path)))


def distinct_bytes(entries: Iterable[Cached]) -> int:
    """What entries take together: a file that several of them hold counts once."""
    entries = list(entries)
    blobs = {file.sha256: file.size_bytes for entry in entries for file in entry.files}
    return sum(blobs.values()) + sum(entry.size_bytes for entry in entries if not entry.files)


def references(entry: Path) -> Iterator[tuple[Path, str]]:
    """The files in `refs/` that lead to an entry, each with the branch or tag it stands for."""
    for file in listed(entry.parent / "refs"):
        if file.is_file() and file.read_bytes().strip() == entry.name.encode():
            yield file, unquote(file.name)


def below(folder: Path) -> Iterator[Path]:
    """Every file and link in a folder and its folders, sorted; links are not followed."""
    for path in listed(folder):
        if path.is_dir() and not path.is_symlink():
            yield from below(path)
        else:
            yield path


def listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing when it is not there."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(models: Path) -> Iterator[Path]:
    """Folders that are named as pins are; one without `.metadata` counts when no entry lies in it."""
    for here, folders, files in os.walk(models):
        folder = Path(here)
        if not is_pin(folder.name) or folder == models:
            continue
        if METADATA in files or not any(METADATA in inner for _, _, inner in os.walk(folder)):
            folders.clear()
            yield folder


def _entry(root: Path, folder: Path, served: Mapping[int, float]) -> Cached:
    known = _metadata(root, folder)
    seen = {path.relative_to(folder).as_posix(): path.lstat() for path in below(folder)}
    own = seen.pop(METADATA, None) or folder.stat()
    used_at = max([own.st_mtime, *(served.get(each.st_ino, 0.0) for each in seen.values())])
    names = {name for _, name in references(folder)}
    if known and not _moved(folder, known.version):
        names.add(known.version)
    source = known.source if known else _source_of(root, folder)
    return Cached(
        source=source,
        versions=tuple(sorted(names - {"", folder.name})),
        pin=folder.name,
        size_bytes=(
            sum({sha256: look[0] for sha256, look in known.files.values()}.values())
            if known
            else sum({each.st_ino: each.st_size for each in seen.values()}.values())
        ),
        files=_files(known) if known else (),
        path=folder,
        complete=known is not None and _stands(root, folder, known),
        kind="adapter" if _ADAPTER in (known.files if known else seen) else "model",
        fetched_at=known.downloaded_at if known else None,
        used_at=used_at,
        tool=known.tool if known else None,
        choices={name: tuple(paths) for name, paths in choices_of(str(folder)).items()} if known else {},
    )


def _moved(folder: Path, version: str) -> bool:
    """The branch or tag that was asked for leads to another entry by now, if anywhere."""
    return version not in ("", folder.name) and (folder.parent / "refs" / quote(version, safe="")).is_file()


def _files(known: _Metadata) -> tuple[FileEntry, ...]:
    return tuple(sorted(FileEntry(path, look[0], sha256) for path, (sha256, look) in known.files.items()))


def _stands(root: Path, folder: Path, known: _Metadata) -> bool:
    return all(
        signature(f"{folder}/{path}") == look == signature(f"{root}/blobs/{sha256[:2]}/{sha256}")
        for path, (sha256, look) in known.files.items()
    )


def _metadata(root: Path, folder: Path) -> _Metadata | None:
    """What `.metadata` says; None when it is missing, damaged, or speaks of another folder."""
    try:
        document = json.loads((folder / METADATA).read_bytes())
        source, version = str(document["source"]), str(document["version"])
        files = {
            str(each["path"]): (
                str(each["sha256"]),
                (int(each["size"]), int(each["mtime_ns"]), int(each["inode"])),
            )
            for each in document["files"]
        }
        for path, (sha256, _) in files.items():
            require_inside(path)
            if not _SHA256.fullmatch(sha256):
                return None
        if _place(source, folder.name) != folder.relative_to(root / "models").as_posix():
            return None
        return _Metadata(source, version, files, _said(document, "downloaded_at"), _said(document, "tool"))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, Corrupt):
        return None


def _said(document: Mapping[str, object], key: str) -> str | None:
    return str(document[key]) if document.get(key) else None


def _source_of(root: Path, folder: Path) -> str:
    """Two sources never have one place, so the place tells its source; "" for a place that none has."""
    place = folder.relative_to(root / "models").as_posix()
    path = place.removesuffix(f"/{folder.name}")
    rest = path.partition("/")[2]
    sources = (f"hf://{rest}", f"file:///{rest}", *(f"{s}://{rest}" for s in ("s3", "https", "http", "oci")))
    fitting = (source for source in (*sources, f"oci://{path}") if _place(source, folder.name) == place)
    return next(fitting, "")


def _place(source: str, pin: str) -> str | None:
    try:
        return place_of(Artifact(source, "", pin, ()))
    except Corrupt:
        return None


def _served(views: Path) -> dict[int, float]:
    """When each file was last served, by its inode: making a view touches its folder."""
    served: dict[int, float] = {}
    for view in listed(views):
        with contextlib.suppress(FileNotFoundError):  # another process makes it or prunes it
            at = min(view.stat().st_ctime, time.time())
            for path in below(view):
                inode = path.lstat().st_ino
                served[inode] = max(at, served.get(inode, 0.0))
    return served
