"""Entries at targets where others made what runs: they need no source and no engine, and become one resource each. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.diagnostic import Diagnostic
from pipeline.core.errors import UserError
from pipeline.core.model import Standing
from pipeline.core.protocols import Stands
from pipeline.core.resource import Address, Resource
from pipeline.engine.compose import Composition, collisions
from pipeline.engine.place import places_of
from pipeline.engine.world import World
from pipeline.manifest.spec import Manifest
from pipeline.manifest.stated import hardware_of, lifecycle_of, secret_of, stands, stands_everywhere


def made_here(manifest: Manifest, names: Iterable[str]) -> tuple[str, ...]:
    """The models of which mp makes something; of the others it would ask the source in vain."""
    return tuple(name for name in names if not stands_everywhere(manifest.models[name]))


def with_standing(world: World, names: Iterable[str], composition: Composition) -> Composition:
    """The composition with what others made. A model of which nothing could be composed is none of its models."""
    found: dict[Address, Resource[Any]] = {}
    problems: list[Diagnostic] = []
    broken: set[str] = set()
    here = tuple(names)
    for name in here:
        try:
            found |= {one.address: one for one in _standing(world, name)}
        except UserError as problem:
            problems += problem.diagnostics
            broken.add(name)
    if not found and not problems:
        return composition
    alone = {name for name in here if stands_everywhere(world.manifest.models[name])}
    everything = _in_order(world, {**composition.resources, **found})
    problems += collisions(everything.values()) if found else ()
    return replace(
        composition,
        resources=everything,
        models=(composition.models | alone) - broken,
        diagnostics=tuple(dict.fromkeys((*composition.diagnostics, *problems))),
    )


def _standing(world: World, name: str) -> Iterable[Resource[Any]]:
    spec = world.manifest.models[name]
    entry = Standing(
        name,
        tuple(
            (key, value if isinstance(value, str) else secret_of(world.manifest, value.secret))
            for key, value in spec.env.items()
        ),
        hardware_of(world.manifest, name) if spec.hardware else None,
        lifecycle_of(spec),
    )
    for place in places_of(world, name):
        target = world.targets[place.spec.kind]
        if stands(place.options) and isinstance(target, Stands):
            yield target.stand(place, entry)


def _in_order(world: World, resources: Mapping[Address, Resource[Any]]) -> dict[Address, Resource[Any]]:
    """Shared things first, then models in manifest order."""
    number = {name: index for index, name in enumerate(world.manifest.models)}
    return dict(sorted(resources.items(), key=lambda each: number.get(each[0].partition("/")[0], -1)))
