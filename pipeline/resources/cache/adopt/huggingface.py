"""The cache of huggingface_hub: `models--org--name/{blobs,refs,snapshots/<commit>,trees}`. Used through resources/adopt.

Its layout is https://huggingface.co/docs/hub/local-cache; `trees/` and the shared blobs are from huggingface_hub 2.4.0,
_tree_cache.py and utils/_shared_blobs.py. A blob is named by its ETag: the sha256 of an LFS file, else the id of a git blob.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.reference import parse
from pipeline.resources.cache.adopt.found import (
    SHA1,
    SHA256,
    Found,
    cache_home,
    dangling,
    expanded,
    is_dotted,
    named,
    reading,
)
from pipeline.resources.cache.cached import below

TREE_FORMAT = 1  # of trees/<commit>.json: TREE_CACHE_FORMAT_VERSION of huggingface_hub 2.4.0


def default_folder(environ: Mapping[str, str]) -> Path:
    """HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub (huggingface_hub 2.4.0, constants.py)."""
    if chosen := environ.get("HF_HUB_CACHE", environ.get("HUGGINGFACE_HUB_CACHE")):
        return expanded(chosen, environ)
    home = environ.get("HF_HOME")
    return (expanded(home, environ) if home else cache_home(environ) / "huggingface") / "hub"


def find(root: Path) -> tuple[Found, ...]:
    """Every snapshot of every model, sorted. Repositories without an owner have no reference and are left out."""
    root = root.absolute()
    with reading(root):
        repositories = sorted(root.glob("models--*")) if root.is_dir() else []
        return tuple(each for repository in repositories for each in _snapshots(root, repository))


def clear(found: Found) -> None:
    """After the files of a snapshot are gone: remove what spoke of it, and the repository's folder when it is empty."""
    repository = found.folder.parent.parent
    if found.folder.is_dir():
        return
    for reference in _references(repository):
        if reference.read_text(errors="replace").strip() == found.pin:
            reference.unlink()
    (repository / "trees" / f"{found.pin}.json").unlink(missing_ok=True)
    for mark in below(repository / ".no_exist" / found.pin):  # empty files: names that the Hub does not have
        mark.unlink(missing_ok=True)
    if not any(below(repository / "snapshots")):
        for here, _, _ in os.walk(repository, topdown=False):
            with contextlib.suppress(OSError):  # something is in it: a download that was not ended
                Path(here).rmdir()


def _snapshots(root: Path, repository: Path) -> Iterator[Found]:
    source = _source(repository.name)
    snapshots = repository / "snapshots"
    if source is None or not snapshots.is_dir():
        return
    for folder in sorted(snapshots.iterdir()):
        files = named(folder) if SHA1.fullmatch(folder.name) else {}
        if files:
            yield _found(root, source, folder, files)


def _found(root: Path, source: str, folder: Path, files: Mapping[str, Path]) -> Found:
    repository = folder.parent.parent
    tags = {path: _tag(name) for path, name in files.items()}
    tree = _tree(repository, folder.name)
    wanted = {path for path in tree or () if not is_dotted(path)}
    versions = (
        reference.relative_to(repository / "refs").as_posix()
        for reference in _references(repository)
        if reference.read_text(errors="replace").strip() == folder.name
    )
    return Found(
        source=source,
        versions=tuple(sorted(versions)),
        pin=folder.name,
        files=files,
        origin="huggingface",
        root=root,
        folder=folder,
        sha256s={path: tag for path, tag in tags.items() if SHA256.fullmatch(tag)},
        git_sha1s={path: tag for path, tag in tags.items() if SHA1.fullmatch(tag)},
        listed=tree is not None,
        absent=tuple(sorted((wanted - files.keys()) | set(dangling(folder)))),
    )


def _source(folder: str) -> str | None:
    """ "models--org--name" is "hf://org/name"; neither part can hold "--" on the Hub."""
    name = folder.removeprefix("models--").replace("--", "/")
    try:
        found = parse(f"hf://{name}", Path("/"))
    except UserError:
        return None
    return None if found.version else found.source


def _tag(name: Path) -> str:
    """The ETag a file was stored under; "" where the cache was made without links."""
    return name.readlink().name if name.is_symlink() else ""


def _references(repository: Path) -> list[Path]:
    """Branches and tags; names with slashes are folders."""
    return list(below(repository / "refs"))


def _tree(repository: Path, commit: str) -> frozenset[str] | None:
    """The Hub's list of files, where this version of the client kept it."""
    try:
        document = json.loads((repository / "trees" / f"{commit}.json").read_bytes())
        return frozenset(document["files"]) if document["format_version"] == TREE_FORMAT else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
