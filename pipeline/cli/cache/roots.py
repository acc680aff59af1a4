"""What a project needs of the cache: what models.lock pins and what deployments of its inventories are served from. Used by prune."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from pipeline.cli.project import Project
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.engine.parts import label
from pipeline.manifest.lock import read_lock
from pipeline.store.file import stores


@frozen
class Roots:
    pins: Mapping[tuple[str, str], Sequence[str]] = field(
        default_factory=dict
    )  # source and pin → who has them
    contents: frozenset[str] = frozenset()  # sha256 of every file that models.lock has
    views: frozenset[str] = frozenset()  # names of folders that deployments are served from


def roots(project: Project) -> Roots:
    """Of every environment. Raises UserError when the lock cannot be read: nothing may be removed then."""
    pins: dict[tuple[str, str], list[str]] = {}
    contents: set[str] = set()
    for name, parts in read_lock(project.settings.root / "models.lock").models.items():
        for role, artifact in parts.items():
            pins.setdefault((artifact.source, artifact.pin), []).append(label((name, role)))
            contents.update(entry.sha256 for entry in artifact.files)
    return Roots(pins, frozenset(contents), frozenset(_views(project)))


def _views(project: Project) -> Iterator[str]:
    """What was applied last and what was good before: a deployment may be rolled back to it."""
    for store in stores(project.settings.state / "inventory", project.manifest.project).values():
        for entry in store.load().entries.values():
            for state in (entry.applied, entry.good, *(version.state for version in entry.versions)):
                yield from _texts(dict(state))


def _texts(value: Json) -> Iterator[str]:
    """Every text in a state; those that name no view do no harm."""
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
        case _:
            pass
