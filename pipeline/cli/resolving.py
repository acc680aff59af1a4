"""Sources and engines that say so when they take long to resolve. Wrapped around a World, because the engine does not print."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import BinaryIO, TypeAlias

from pipeline.cli.views import units
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Variant
from pipeline.core.lazily import Lazily
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Source, SourceSpec
from pipeline.engine.world import World

Named: TypeAlias = Callable[[str], AbstractContextManager[None]]  # around what may take long


@frozen
class Told:
    """A source; what it resolves is told of when that takes long."""

    source: Source
    root: str
    named: Named

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        version = f"@{spec.version}" if spec.version else ""
        with self.named(f"resolving {units.source(spec.reference, self.root)}{version}"):
            return self.source.resolve(spec, known)

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        return self.source.open(artifact, entry, start)


def telling(world: World, named: Named) -> World:
    """The same world, not silent while it resolves."""
    root = str(world.settings.root)

    def pin_engine(variant: Variant, platform: str, base: str | None) -> Engine:
        with named(f"resolving {variant.key}"):
            return world.pin_engine(variant, platform, base)

    def told(scheme: str) -> Source:
        return Told(world.sources[scheme], root, named)

    sources = Lazily({scheme: partial(told, scheme) for scheme in world.sources})
    return replace(world, sources=sources, pin_engine=pin_engine)
