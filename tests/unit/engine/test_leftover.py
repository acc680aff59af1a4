"""What is in the inventory and no part of a plan: only what is declared no more is called so."""

from types import SimpleNamespace
from typing import cast

from pipeline.core.resource import Address, Entry
from pipeline.engine.compose import Composition
from pipeline.engine.leftover import kept_of
from pipeline.engine.wanted import ALL, Selection
from pipeline.engine.world import World
from pipeline.store.inventory import Inventory

BROKEN, REMOVED = Address("broken/kubernetes:prod"), Address("removed/image:main")
INVENTORY = Inventory(
    {
        address: Entry(address, "kubernetes", {"name": "m"}, None, None, {}, {})
        for address in (BROKEN, REMOVED)
    }
)
WORLD = cast(World, SimpleNamespace(manifest=SimpleNamespace(models={"broken": None})))
NOTHING_COMPOSED = Composition({}, frozenset(), ())


def kept(selection: Selection) -> set[Address]:
    return {entry.address for entry in kept_of(WORLD, ["broken"], selection, NOTHING_COMPOSED, (), INVENTORY)}


def test_a_model_with_a_mistake_is_still_declared() -> None:
    assert kept(ALL) == {REMOVED}


def test_what_destroy_leaves_is_named_whether_it_is_declared_or_not() -> None:
    assert kept(Selection(destroy=True)) == {BROKEN, REMOVED}
