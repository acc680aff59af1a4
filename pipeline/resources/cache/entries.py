"""Entries of the cache: where an artifact's folder is, which names may be in it, and what `.metadata` says. Used by all of the cache."""

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pipeline.core.digest import Json, canonical, fingerprint
from pipeline.core.errors import Corrupt
from pipeline.core.model import Artifact, FileEntry, Filter, Overlay
from pipeline.resources.cache.blobs import Signature

METADATA = ".metadata"

# Where a scheme's sources are. Registries have hosts of their own; what has not is below a word that is no such host.
_PLACES = {
    "hf": "huggingface.co/",
    "oci": "",
    "file": "localhost",  # the path is absolute
    "s3": "s3/",
    "https": "https/",
    "http": "http/",
}
_READABLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PIN = re.compile(r"[0-9a-f]{40}|sha256-[0-9a-f]{64}")
_RESERVED = frozenset({"huggingface.co", "localhost", "s3", "https", "http", "oci"})

Record: TypeAlias = tuple[str, Signature]  # sha256, and how the file looked when it was verified


def place_of(artifact: Artifact) -> str:
    """`<host>/<path>/<pin>`; a mirror of the Hub changes nothing in it. Two sources never have one place."""
    scheme, _, rest = artifact.source.partition("://")
    if scheme not in _PLACES:
        raise Corrupt("models.lock", f'"{artifact.source}" is no canonical reference', "run mp lock")
    start = _PLACES[scheme]
    if scheme == "oci" and rest.partition("/")[0] in _RESERVED:
        start = "oci/"
    place = f"{start}{rest}/{artifact.pin}"
    require_inside(place)
    return place


def is_readable(version: str) -> bool:
    """A branch or tag that may stand as one name beside the pins: "v1.1"; never a pin, and never a folder of ours."""
    return _READABLE.fullmatch(version) is not None and not is_pin(version) and version != "refs"


def is_pin(name: str) -> bool:
    """A commit of 40 hex, or "sha256-<64 hex>": how entries are named."""
    return _PIN.fullmatch(name) is not None


def contents(files: Sequence[FileEntry], overlays: Sequence[Overlay]) -> dict[str, str]:
    """Path → sha256 of what is served; an overlay lies over the model's file."""
    return {entry.path: entry.sha256 for entry in files} | {
        overlay.path: overlay.sha256 for overlay in overlays
    }


def content_of(files: Sequence[FileEntry], overlays: Sequence[Overlay]) -> str:
    """12 hex of the files that are served: the name of the cache's view, and what deployments compare."""
    return fingerprint([list(pair) for pair in sorted(contents(files, overlays).items())])[:12]


def require_inside(path: str) -> None:
    """A name from a lock, a Hub or an archive never leaves its folder."""
    if not path or "\\" in path or "\0" in path or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise Corrupt("models.lock", f"{path!r} is no path inside a folder", "run mp lock")
    if path == METADATA:
        raise Corrupt(
            "models.lock", f'"{METADATA}" is a name of mp\'s own', "leave the file out: files.exclude"
        )


def records_of(folder: str) -> dict[str, Record] | None:
    """What .metadata says of each file; None when there is none, or none that can be read."""
    try:
        with open(f"{folder}/{METADATA}", "rb") as file:  # noqa: PTH123 - a no-op plan comes here for every model
            document = json.loads(file.read())
        return {
            entry["path"]: (entry["sha256"], (entry["size"], entry["mtime_ns"], entry["inode"]))
            for entry in document["files"]
        }
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def choice_of(chosen: Filter) -> str:
    """12 hex that name a choice of files."""
    return fingerprint([chosen.include, chosen.exclude, chosen.format, chosen.allow])[:12]


def choices_of(folder: str) -> dict[str, list[str]]:
    """Choices of files that were fetched whole, each with its paths: a pull of one of them needs no request."""
    try:
        with open(f"{folder}/{METADATA}", "rb") as file:  # noqa: PTH123
            held = json.loads(file.read())["choices"]
        return {str(name): [str(path) for path in paths] for name, paths in held.items()}
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def since(folder: str, artifact: Artifact, now: float) -> str:
    """When these files came: another name for what is here already is no arrival."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        with open(f"{folder}/{METADATA}", "rb") as file:  # noqa: PTH123
            document = json.loads(file.read())
        held = {entry["path"]: entry["sha256"] for entry in document["files"]}
        if all(held.get(entry.path) == entry.sha256 for entry in artifact.files):
            return str(document["downloaded_at"])
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))


def metadata(
    artifact: Artifact,
    records: Mapping[str, Record],
    choices: Mapping[str, Sequence[str]],
    downloaded_at: str,
) -> bytes:
    """`version`, `SHA` and `size` keep the names of InstructLab's file."""
    files: list[Json] = [
        {"path": path, "sha256": sha256, "size": seen[0], "mtime_ns": seen[1], "inode": seen[2]}
        for path, (sha256, seen) in sorted(records.items())
    ]
    return canonical(
        {
            "schema": 1,
            "source": artifact.source,
            "version": artifact.version,
            "SHA": artifact.pin,
            "size": sum(seen[0] for _, seen in records.values()),
            "files": files,
            "choices": {**choices, choice_of(artifact.filter): [entry.path for entry in artifact.files]},
            "downloaded_at": downloaded_at,
            "tool": "mp",
        }
    )
