"""What other programs' caches hold and whether it is here already: what `mp cache import` lists and takes over."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.cli.cache.storage import Storage
from pipeline.cli.watching import watch
from pipeline.core.errors import MpError
from pipeline.resources.cache.adopt import Found, huggingface, instructlab, take
from pipeline.resources.cache.cached import Cached

Origin: TypeAlias = Literal["huggingface", "instructlab"]


def find(environ: Mapping[str, str], path: Path | None, origin: Origin | None) -> list[Found]:
    """What they hold where these programs would look, or in `path`. Raises MpError for a folder that is neither's."""
    if path is not None and not path.is_dir():
        raise MpError(f"{path} is no folder", "name the other cache's folder")
    hub = path / "hub" if path and (path / "hub").is_dir() else path
    lab = path.parent if path and path.name == "models" else path
    places: Sequence[tuple[Origin, Callable[[Path], tuple[Found, ...]], Path]] = (
        ("huggingface", huggingface.find, hub or huggingface.default_folder(environ)),
        ("instructlab", instructlab.find, lab or instructlab.default_folder(environ)),
    )
    return [one for name, look, place in places if origin in (None, name) for one in look(place)]


def here(storage: Storage, found: Sequence[Found]) -> dict[int, Cached]:
    """By its position in `found`: the entry that holds all of it already."""
    entries = {(entry.source, entry.pin): entry for entry in storage.shelf.list() if entry.complete}
    return {
        index: entry
        for index, one in enumerate(found)
        if (entry := entries.get((one.source, one.pin)))
        and set(one.files) <= {file.path for file in entry.files}
        and set(one.versions) <= set(entry.versions)
    }


def take_over(
    storage: Storage, found: Sequence[Found], indexes: Sequence[int], *, move: bool
) -> tuple[dict[int, Cached], dict[int, MpError]]:
    """The new entries, and what failed, by position; a failure does not keep the others from coming."""
    taken: dict[int, Cached] = {}
    problems: dict[int, MpError] = {}
    with watch(storage.options) as shown:
        for index in indexes:
            try:
                taken[index] = take(found[index], storage.cache, shown.emit, move=move)
            except MpError as problem:
                problems[index] = problem
    return taken, problems
