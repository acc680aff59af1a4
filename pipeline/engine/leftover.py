"""What the inventory knows and nobody wants: what is to be removed, and what stays where it is. Used by the story in __init__."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.diagnostic import Diagnostic, warning
from pipeline.core.protocols import Driver, LooksBack
from pipeline.core.resource import Address, Entry, Resource, current_of, owner_of
from pipeline.engine.compose import Composition
from pipeline.engine.diff import orphans
from pipeline.engine.wanted import Selection
from pipeline.engine.world import World
from pipeline.store.inventory import Inventory


def gone_of(
    world: World,
    names: Sequence[str],
    selection: Selection,
    composition: Composition,
    inventory: Inventory,
) -> tuple[tuple[Entry, ...], tuple[Diagnostic, ...]]:
    """Entries to remove. A model that is declared and could not be composed keeps everything it has."""
    if selection.build_only or selection.promote:
        return (), ()
    if not world.manifest.models and not selection.destroy:
        note = "models.yaml declares no model: nothing is deleted because of that (mp destroy --all does)"
        return (), (warning(note),) if inventory.entries else ()
    gone = orphans(composition.resources, inventory)
    if selection.destroy:
        return tuple(e for e in gone if not selection.models or owner_of(e.address) in selection.models), ()
    broken = _broken(world, composition)
    chosen = set(names) if selection.models else None
    return tuple(
        e
        for e in gone
        if owner_of(e.address) not in broken and (chosen is None or owner_of(e.address) in chosen)
    ), ()


def known_of(
    wanted: Mapping[Address, Resource[Any]], inventory: Inventory, drivers: Mapping[str, Driver[Any]]
) -> tuple[Entry, ...]:
    """What is known of wanted things whose drivers ask for it: of images, whose tags change with their content, and of
    what changes its form, so that only the entry says which was applied."""
    pairs = ((inventory.entries.get(r.address), r) for r in wanted.values())
    return tuple(
        e
        for e, r in pairs
        if e
        and e.applied
        and dict(e.locator) == dict(r.locator)
        and (e.keep or isinstance(drivers.get(r.kind), LooksBack))
    )


def kept_of(
    world: World,
    names: Sequence[str],
    selection: Selection,
    composition: Composition,
    gone: Sequence[Entry],
    inventory: Inventory,
) -> tuple[Entry, ...]:
    """Owned, and nothing of this plan: images of what is not declared any more."""
    if selection.build_only or selection.promote:
        return ()
    handled = {entry.address for entry in gone} | composition.resources.keys()
    broken = set() if selection.destroy else _broken(world, composition)
    chosen = set(names) if selection.models else None
    return tuple(
        entry
        for _, entry in sorted(inventory.entries.items())
        if owner_of(entry.address) not in broken
        and (chosen is None or owner_of(entry.address) in chosen)
        and not {entry.address, current_of(entry.address)} & handled
    )


def _broken(world: World, composition: Composition) -> set[str]:
    """Models that are declared and could not be composed: what they have is neither gone nor undeclared."""
    return {name for name in world.manifest.models if name not in composition.models}
