"""A whole project in memory: real manifest, lock, templates, targets, compose and diff; drivers and sources are fakes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import targets
from pipeline.clients.oci.repositories import Repositories
from pipeline.core.diagnostic import Mistake
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, Launch, Variant
from pipeline.core.model import Hardware, Model, Stated
from pipeline.core.protocols import Template
from pipeline.core.settings import Settings
from pipeline.engine.resolve import source_specs
from pipeline.engine.world import World
from pipeline.manifest.lock import read_lock
from pipeline.manifest.read import read
from pipeline.store.file import FileStore, stores
from pipeline.templates import TEMPLATES
from tests.fakes.memory import MemoryDriver, MemorySource

KINDS = ("artifact", "environment", "engine", "filler", "image", "local", "docker", "kubernetes")
PLATFORM = "linux/amd64"


@frozen
class FixedFiles:
    """A template as it is, but its images do not follow every edit of runtime/: goldens stay put."""

    template: Template

    def versions(self) -> tuple[str, ...]:
        return self.template.versions()

    def variant(self, version: str | None, hardware: Hardware) -> Variant:
        return self.template.variant(version, hardware)

    def faces(self) -> tuple[str, ...]:
        return self.template.faces()

    def mistakes(self, stated: Stated) -> Iterable[Mistake]:
        return self.template.mistakes(stated)

    def build(self, engine: Engine) -> Build:
        return Build(engine, (("serve.py", "0" * 64),), "/runtime")

    def launch(self, model: Model, variant: Variant) -> Launch:
        return self.template.launch(model, variant)


def pin_engine(variant: Variant, platform: str, base: str | None) -> Engine:
    """An engine whose packages are made up; a base without a digest stays open."""
    name, _, digest = (base or variant.base).partition("@")
    requirements = tuple(
        f"{line.split('==')[0]}==1.0 --hash=sha256:{'0' * 64}" for line in variant.requirements
    )
    return Engine(
        variant.template,
        variant.version,
        variant.name,
        platform,
        variant.python,
        name,
        digest or None,
        "https://pypi.org/simple",
        requirements,
    )


def memory_drivers(project: str) -> dict[str, MemoryDriver]:
    return {kind: MemoryDriver(kind, project) for kind in KINDS}


def open_memory_world(
    folder: Path, drivers: Mapping[str, MemoryDriver] | None = None, *, locked: bool = False
) -> World:
    """The world of a models.yaml; every source it names exists, with two small files made from name and version."""
    document = read(folder / "models.yaml")
    if document.manifest is None:
        raise UserError(document.diagnostics)
    project = document.manifest.project
    settings = Settings(folder, folder / ".cache", folder / ".mp", {})
    world = World(
        settings,
        document,
        document.manifest,
        read_lock(folder / "models.lock"),
        locked,
        PLATFORM,
        {},
        {name: FixedFiles(template) for name, template in TEMPLATES.items()},
        {name: kind.target for name, kind in targets.KINDS.items()},
        drivers if drivers is not None else memory_drivers(project),
        FileStore(settings.state / "inventory", project, "default"),
        pin_engine,
        Repositories({}),
        partial(stores, settings.state / "inventory", project),
    )
    source = MemorySource(_repositories(world))
    return replace(world, sources={"hf": source, "file": source})


def _repositories(world: World) -> dict[str, dict[str, dict[str, bytes]]]:
    repositories: dict[str, dict[str, dict[str, bytes]]] = {}
    for spec in (spec for name in world.manifest.models for spec in source_specs(world, name).values()):
        text = f"{spec.reference.rsplit('/', 1)[-1]} {spec.version}"
        config: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "name": text}
        files = {"config.json": json.dumps(config).encode(), "model.safetensors": text.encode() * 64}
        if spec.filter.format == "text":  # a tokenizer from elsewhere
            files["tokenizer.json"] = text.encode()
        repositories.setdefault(spec.reference, {})[spec.version] = files
    return repositories
