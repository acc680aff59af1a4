"""Whether the disks of this machine have room for what a plan brings to them: said before anything moves. Used by plan."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.model import Artifact
from pipeline.resources.image.publish import UPLOADS
from pipeline.resources.image.recipe import Recipe

LAYOUT = "layout:"  # what stands before the folder in the locator of an image in an OCI layout


def short_of_room(changes: Iterable[Change[Any]], cache: Path) -> tuple[Diagnostic, ...]:
    """An error for every disk that is too small for the downloads and the images in folders that are planned on it."""
    found = []
    for folders in _by_disk(_needed_bytes(changes, cache)):
        needed_bytes, free_bytes = sum(folders.values()), shutil.disk_usage(_standing(min(folders))).free
        if needed_bytes > free_bytes:
            names = " and ".join(str(folder) for folder in sorted(folders))
            summary = (
                f"the disk of {names} is full: {needed_bytes:,} bytes are needed and {free_bytes:,} are free"
            )
            found.append(error(summary, hint=_hint(folders, cache)))
    return tuple(found)


def _needed_bytes(changes: Iterable[Change[Any]], cache: Path) -> dict[Path, int]:
    """By folder: what lies there at most while the plan is carried out, and does not now. Weights stay in the cache
    beside the images made of them; what goes straight through this machine takes no room."""
    needed: dict[Path, int] = {}
    fetched_bytes, files, compressed = 0, dict[str, int](), list[int]()
    for change in changes:
        if change.resource is None or change.action is Action.NOOP:
            continue
        artifact = getattr(change.resource.desired, "artifact", None)
        if isinstance(artifact, Artifact):
            fetched_bytes += change.transfer.download_bytes
            files |= {entry.sha256: entry.size_bytes for entry in artifact.files}
        recipe = getattr(change.resource.desired, "recipe", None)
        if isinstance(recipe, Recipe) and change.transfer.push_bytes:
            compressed += [layer.most_bytes for layer in recipe.layers if layer.compression]
        place = change.resource.locator.get("registry", "")
        if place.startswith(LAYOUT):
            folder = Path(place.removeprefix(LAYOUT))
            needed[folder] = needed.get(folder, 0) + change.transfer.push_bytes
    # A compressed layer lies in the cache's folder while it is sent; a file of two artifacts is fetched once.
    needed[cache] = needed.get(cache, 0) + sum(sorted(compressed)[-UPLOADS:])
    needed[cache] += min(fetched_bytes, sum(files.values()))
    return {folder: count for folder, count in needed.items() if count}


def _by_disk(needed: Mapping[Path, int]) -> list[dict[Path, int]]:
    disks: dict[int, dict[Path, int]] = {}
    for folder, count in sorted(needed.items()):
        disks.setdefault(_standing(folder).stat().st_dev, {})[folder] = count
    return list(disks.values())


def _standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _hint(folders: Iterable[Path], cache: Path) -> str:
    if cache in folders:
        return "free some space, or set MP_CACHE to a folder on a larger disk"
    return "free some space, or name a layout: folder on a larger disk"
