"""What models.lock pins of one model, for commands that work on the cache without a plan. Loaded only when a name asks for it."""

from fnmatch import fnmatchcase

from pipeline import wiring
from pipeline.cli.project import Project
from pipeline.core.errors import Stale
from pipeline.core.model import Part
from pipeline.engine.parts import declared, label
from pipeline.engine.resolve import source_specs


def names(project: Project, word: str) -> list[str]:
    """The models of the manifest that a word names."""
    return [name for name in project.manifest.models if name == word or fnmatchcase(name, word)]


def pinned(project: Project, name: str) -> tuple[Part, ...]:
    """Every source of a model exactly as it is locked, the weights first. Raises Stale when the lock is not for it."""
    world = wiring.open_world(project.settings, project.document)
    stale = [
        f"{label((name, role))}: {reason}"
        for role, spec in source_specs(world, name).items()
        if (reason := world.lock.stale(name, role, spec))
    ]
    if stale:
        raise Stale(f"models.lock is stale: {'; '.join(stale)}", f"run mp lock {name}")
    return tuple(
        Part(role, artifact, one.folder)
        for role, one in declared(project.manifest.models[name]).items()
        if (artifact := world.lock.artifact(name, role))
    )
