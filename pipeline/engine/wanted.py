"""Which part of the project a run is about, and what is wanted of it: pins, then resources. Used by the story in __init__."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Variant
from pipeline.core.resource import Address
from pipeline.engine.compose import Composition, compose
from pipeline.engine.diff import Adoption
from pipeline.engine.place import Pinned, engines_of, place_models, registries_of
from pipeline.engine.resolve import (
    Pins,
    choose_variants,
    locked_engines,
    merge,
    pin_artifacts,
    pin_engines,
    wanted_engines,
)
from pipeline.engine.standing import made_here, with_standing
from pipeline.engine.world import World

NEEDS_ENGINE = ("@engine/", "@environment/")


@frozen
class Selection:
    """Which part of the project a run is about."""

    models: tuple[str, ...] = ()  # names in the manifest; empty is all
    destroy: bool = False  # nothing is desired any more
    max_deletes: int | None = None
    cached: bool = True  # False: no weights are kept on this disk, whatever the entries say
    adoption: Adoption = Adoption.NONE  # of what has a wanted name and nobody's mark
    build_only: bool = (
        False  # engines and images, and what they are made of: deployments are left as they are
    )
    release: bool = False  # what rollbacks hold is brought to what is declared
    promote: tuple[Address, ...] = ()  # these alone: what a canary tries takes the place of what is beside it


ALL = Selection()


def names_of(world: World, selection: Selection) -> tuple[str, ...]:
    declared = world.manifest.models
    unknown = [name for name in selection.models if name not in declared and not selection.destroy]
    if unknown:
        raise UserError([error(f'"{name}" is not a model of {world.document.name}') for name in unknown])
    return tuple(n for n in declared if not selection.models or n in selection.models)


def wanted(
    world: World, names: Iterable[str], upgrade: frozenset[str] = frozenset(), *, cached: bool = True
) -> tuple[Pins, Composition]:
    """Pins and resources. Engines are pinned only when a resource builds on them: publishing weights needs none.

    Raises UserError when an entry cannot be made, whichever is asked for.
    """
    chosen = tuple(names)
    if chosen and world.document.impossible:
        raise UserError(world.document.diagnostics)
    names = made_here(world.manifest, chosen)
    pins = pin_artifacts(world, names, upgrade, cached=cached)
    pinned = [name for name in names if name in pins.models]  # in manifest order
    variants, problems = choose_variants(world, pinned, anew=bool(upgrade))
    pins = replace(pins, diagnostics=(*pins.diagnostics, *problems))
    keyed = wanted_engines(world, variants.values())
    composition = _compose(world, pins, variants, locked_engines(world, keyed), cached=cached)
    used = {key: one for key, one in keyed.items() if _is_used(one.variant.key, composition)}
    engines = pin_engines(world, used, anew=bool(upgrade))
    pins = merge(pins, engines)
    if engines.stale:  # composed with engines that were not pinned yet
        composition = _compose(world, pins, variants, pins.engines, cached=cached)
    return pins, with_standing(world, chosen, composition)


def _compose(
    world: World, pins: Pins, variants: Mapping[str, Variant], engines: Mapping[str, Engine], *, cached: bool
) -> Composition:
    models = {n: Pinned(pins.models[n], engines_of(world, v, engines)) for n, v in variants.items()}
    placed = place_models(world, models, cached=cached)
    return compose(placed, world.templates, world.targets, registries_of(world), world.manifest.project)


def _is_used(variant_key: str, composition: Composition) -> bool:
    starts = tuple(prefix + variant_key for prefix in NEEDS_ENGINE)
    return any(address.startswith(starts) for address in composition.resources)


def built(composition: Composition) -> frozenset[str]:
    """Keys of the engines whose images are among the resources."""
    images = (a for a in composition.resources if a.startswith("@engine/"))
    return frozenset(a.removeprefix("@engine/").partition(":")[0] for a in images)
