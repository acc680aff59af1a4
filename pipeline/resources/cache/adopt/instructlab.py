"""InstructLab's cache: `models/<org>/<repo>/`, or by host and release as its proposal wanted. Used through resources/adopt.

`ilab model download` (instructlab 0.26.1, model/download.py) writes `models/<org>/<repo>/`, GGUF files straight into `models/`,
and for a registry `models/<last segment>/` with links into `oci/<last segment>/blobs/sha256/`. Pull request 1895 added
`models/<host>/<path>/<release>/metadata.json` with version, SHA and size. Only what such a file says is taken as a version.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.reference import HUB, parse
from pipeline.resources.cache.adopt.found import SHA1, SHA256, Found, cache_home, dangling, named, reading
from pipeline.resources.cache.entries import METADATA

NOTES = (METADATA, "metadata.json")  # the proposal's name, and pull request 1895's
TELLING = re.compile(r"config\.json|.+\.(safetensors|gguf|bin)")  # a folder with one of these is a model's

_SHA = re.compile(r"(?:sha256[:-])?([0-9a-f]{64})")


def default_folder(environ: Mapping[str, str]) -> Path:
    """$XDG_CACHE_HOME/instructlab, else ~/.cache/instructlab."""
    return cache_home(environ) / "instructlab"


def find(root: Path) -> tuple[Found, ...]:
    """Every model in `root`, sorted by its place."""
    root = root.absolute()
    models = root / "models"
    with reading(root):
        return tuple(_below(root, models)) if models.is_dir() else ()


def is_note(name: Path) -> bool:
    return name.name in NOTES and _noted(name) is not None


def _below(root: Path, folder: Path) -> Iterator[Found]:
    names = sorted(name for name in folder.iterdir() if not name.name.startswith("."))
    files = [name for name in names if not name.is_dir()]
    if folder == root / "models":
        for file in files:
            if file.suffix == ".gguf" and file.exists():
                yield _found(root, f"file://{file}", folder, {file.name: file}, {})
    elif any(TELLING.fullmatch(file.name) for file in files):
        source, released = _source(root, folder)
        note = _note(folder) if released else {}
        kept = {path: name for path, name in named(folder).items() if path not in NOTES or not is_note(name)}
        yield _found(root, source, folder, kept, note)
        return
    for name in names:
        if name.is_dir() and not name.is_symlink():
            yield from _below(root, name)


def _found(
    root: Path, source: str, folder: Path, files: Mapping[str, Path], note: Mapping[str, str]
) -> Found:
    pin = _pin(source, note.get("SHA", ""))
    return Found(
        source=source,
        versions=(note["version"],) if pin and note.get("version") else (),
        pin=pin,
        files=files,
        origin="instructlab",
        root=root,
        folder=folder,
        sha256s={path: tag for path, name in files.items() if (tag := _tag(name))},
        absent=dangling(folder) if folder != root / "models" else (),
    )


def _source(root: Path, folder: Path) -> tuple[str, bool]:
    """The reference its place tells, and whether its last part is a release."""
    first, *rest = folder.relative_to(root / "models").parts
    released = "." in first or ":" in first or first == "localhost"
    if first == HUB and len(rest) >= 2:
        text = f"hf://{rest[0]}/{rest[1]}"
    elif released and len(rest) >= 2:
        text = f"oci://{first}/{'/'.join(rest[:-1])}"
    elif not released and len(rest) == 1:
        text = f"hf://{first}/{rest[0]}"
    else:
        text = f"file://{folder}"
    try:
        return parse(text, root).source, released
    except UserError:
        return f"file://{folder}", released


def _note(folder: Path) -> dict[str, str]:
    notes = (_noted(folder / name) for name in NOTES)
    return next((note for note in notes if note is not None), {})


def _noted(file: Path) -> dict[str, str] | None:
    """What the file says, when it is one of these: a model may have a metadata.json of its own."""
    try:
        document = json.loads(file.read_bytes())
        return {"version": str(document["version"]), "SHA": str(document["SHA"])}
    except (FileNotFoundError, IsADirectoryError, ValueError, KeyError, TypeError):
        return None


def _pin(source: str, sha: str) -> str:
    """The commit of the Hub, or the digest of the registry's manifest; "" is not known."""
    if source.startswith("hf://"):
        return sha if SHA1.fullmatch(sha) else ""
    digest = _SHA.fullmatch(sha) if source.startswith("oci://") else None
    return f"sha256-{digest[1]}" if digest else ""


def _tag(name: Path) -> str:
    """The sha256 that a link into an OCI layout tells."""
    target = name.readlink() if name.is_symlink() else Path()
    layout = target.parts[-3:-1] == ("blobs", "sha256")
    return target.name if layout and SHA256.fullmatch(target.name) else ""
