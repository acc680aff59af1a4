"""Everything a run works with, put together once by wiring. The engine's functions take a World and nothing else."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.clients.oci.repository import Repository
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Registry, Variant
from pipeline.core.protocols import Driver, Source, Target, Template
from pipeline.core.settings import Settings
from pipeline.manifest.lock import Lock
from pipeline.manifest.read import Document
from pipeline.manifest.spec import Manifest
from pipeline.store.inventory import Store

PinEngine = Callable[
    [Variant, str, str | None], Engine
]  # variant, platform, base from `engines:` → pinned engine


@frozen
class World:
    """One project at one environment: what is declared, what is locked, and the doors to the outside."""

    settings: Settings
    document: Document
    manifest: Manifest
    lock: Lock
    locked: bool  # refuse to pin anything new
    platform: str  # "linux/amd64"
    sources: Mapping[str, Source]  # by scheme
    templates: Mapping[str, Template]
    targets: Mapping[str, Target]  # by kind
    drivers: Mapping[str, Driver[Any]]  # by kind of resource
    store: Store
    pin_engine: PinEngine
    repositories: Callable[[Registry, str], Repository]  # opens one: for what no driver does (prune)
    environments: Callable[[], Mapping[str, Store]]  # every one that has an inventory here
