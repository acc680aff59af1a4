"""`mp prune`: which images nobody needs, and taking them out of their repositories. Everything is read before anything goes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.errors import BackendError
from pipeline.core.resource import Address, Entry
from pipeline.engine.place import registries_of
from pipeline.engine.roots import Known, Roots, gather, tags_of
from pipeline.engine.world import World
from pipeline.resources.image import reclaim as reclaim_images
from pipeline.resources.image.reclaim import Held, Place, Removal, Stock
from pipeline.store.inventory import Inventory, Run, Store

KEPT_VERSIONS = 2  # of each model's images in each environment, when nothing else is said
DAY_S = 86400.0


@dataclass(frozen=True)
class Rules:
    """What may go besides being no root."""

    keep: int = KEPT_VERSIONS  # the newest of each model's images stay, in each environment
    older_than_days: int | None = None  # only what was applied so long ago; None: whatever its age
    everything: bool = False  # also images of this project that no inventory here remembers


@dataclass(frozen=True)
class ImageFate:
    """What becomes of one image, and by which rule."""

    image: Held
    goes: bool
    rule: str


@dataclass(frozen=True)
class Memory:
    """An entry of an inventory as it is to be when the images are gone."""

    environment: str
    address: Address
    place: Place
    entry: Entry | None  # None: all that it stood for is gone


@dataclass(frozen=True)
class Pruning:
    """What would be removed, and what is left and why."""

    fates: tuple[ImageFate, ...]  # what goes first
    removals: tuple[Removal, ...]
    memories: tuple[Memory, ...]
    left: Mapping[Place, int]  # tags that are not ours
    unreadable: Mapping[str, BackendError]  # by registry: nothing of it goes
    names: Mapping[str, str]  # location of a registry → its name in models.yaml
    freed_bytes: int  # of this machine's disk
    unreferenced_bytes: Mapping[str, int]  # by registry over HTTP, which frees them itself, later
    inventories: Mapping[str, Inventory]


@dataclass(frozen=True)
class Pruned:
    """What was done."""

    images: int
    freed_bytes: int
    unreferenced_bytes: Mapping[str, int]
    problems: tuple[BackendError, ...]


def pruning(world: World, rules: Rules) -> Pruning:
    """What would go. Changes nothing. Raises BackendError when an inventory cannot be read: nothing is known then."""
    inventories = {name: store.load() for name, store in _stores(world).items()}
    roots = gather(world, inventories)
    stocks, unreadable = _read(world, roots)
    fates = [_fate(world, one, roots, rules, stock) for stock in stocks for one in stock.images]
    going = {fate.image for fate in fates if fate.goes}
    removed = reclaim_images.removals(stocks, going)
    return Pruning(
        tuple(sorted(fates, key=lambda fate: (not fate.goes, fate.image.place, fate.image.tag))),
        removed,
        tuple(_memories(roots, stocks, {(one.place, one.tag) for one in going})),
        {stock.place: stock.left for stock in stocks if stock.left},
        unreadable,
        {registry.location: registry.name for registry in registries_of(world).values()},
        reclaim_images.disk_bytes(removed),
        reclaim_images.unreferenced_bytes(stocks, removed),
        inventories,
    )


def prune(world: World, plan: Pruning) -> Pruned:
    """Carry it out, under the leases of all environments. A kill leaves every image whole or without a name: run it again.

    Raises LockHeld while something is applied, Stale when something was applied since the plan was made.
    """
    if not plan.removals and not plan.memories:
        return Pruned(0, 0, {}, ())
    stores = _stores(world)
    runs = {name: stores[name].run(inventory) for name, inventory in plan.inventories.items()}
    freed_bytes = images = 0
    problems: dict[str, BackendError] = {}  # by registry: one that refuses once is not asked again
    try:
        for run in runs.values():
            run.hold()
        for removal in plan.removals:
            location = removal.stock.place.location
            if location in problems:
                continue
            try:
                freed_bytes += reclaim_images.remove(removal)
                images += len(removal.images)
            except BackendError as problem:
                problems[location] = problem
        _remember(runs, [memory for memory in plan.memories if memory.place.location not in problems])
    finally:
        for run in runs.values():
            run.close(None)
    unreferenced = {where: size for where, size in plan.unreferenced_bytes.items() if where not in problems}
    return Pruned(images, freed_bytes, unreferenced, tuple(problems.values()))


def _remember(runs: Mapping[str, Run], memories: Sequence[Memory]) -> None:
    for memory in memories:
        runs[memory.environment].end(memory.address, memory.entry)


def _stores(world: World) -> Mapping[str, Store]:
    """All environments that have an inventory here, and the one that was asked for."""
    return {world.settings.environment: world.store, **world.environments()}


def _read(world: World, roots: Roots) -> tuple[tuple[Stock, ...], dict[str, BackendError]]:
    """Every repository that is named anywhere. One that cannot be read spares its whole registry."""
    stocks: list[Stock] = []
    unreadable: dict[str, BackendError] = {}
    for place, registry in sorted(roots.places.items(), key=lambda pair: pair[0]):
        if place.location in unreadable:
            continue
        try:
            stocks.append(reclaim_images.read(world.repositories, registry, place))
        except BackendError as problem:
            unreadable[place.location] = problem
    return tuple(stock for stock in stocks if stock.place.location not in unreadable), unreadable


def _fate(world: World, image: Held, roots: Roots, rules: Rules, stock: Stock) -> ImageFate:
    known = [one for one in roots.known if one.place == image.place and one.applied_at(image.tag) is not None]
    reason = (
        roots.tags.get(image.tag)
        or roots.digests.get(image.digest)
        or _somebody(world, image)
        or _recent(known, image, rules, {one.tag for one in stock.images})
    )
    if reason:
        return ImageFate(image, False, reason)
    if not known:
        rule = "no inventory of this folder remembers it"
        return ImageFate(image, rules.everything, f"--all: {rule}" if rules.everything else f"{rule} (--all)")
    used = any(one.declared for one in known)
    return ImageFate(
        image, True, f"nothing uses it, {rules.keep} newer stay" if used else "no longer declared"
    )


def _somebody(world: World, image: Held) -> str | None:
    """Why others may need it."""
    if image.project not in (None, world.manifest.project):
        return f'of project "{image.project}"'
    if image.project is None and not _is_own(world, image.place.location):
        return "an engine: other projects of this registry may use it"
    return f'tag "{image.others[0]}" names it' if image.others else None


def _is_own(world: World, location: str) -> bool:
    """A folder of layouts below .mp is nobody else's."""
    return location.startswith("layout:") and Path(location.removeprefix("layout:")).is_relative_to(
        world.settings.state
    )


def _recent(known: Sequence[Known], image: Held, rules: Rules, there: set[str]) -> str | None:
    """Why it is too new to go."""
    for one in known:
        newest = [made.tag for made in one.entry.made if made.tag in there][: rules.keep]
        if one.declared and image.tag in newest:
            return f"one of the last {rules.keep} in {one.environment}"
    if not known or rules.older_than_days is None:
        return None
    days = (time.time() - max(one.applied_at(image.tag) or 0.0 for one in known)) / DAY_S
    if days >= rules.older_than_days:
        return None
    return f"applied {days:.0f} days ago: goes after {rules.older_than_days}"


def _memories(roots: Roots, stocks: Sequence[Stock], going: set[tuple[Place, str]]) -> Iterator[Memory]:
    """What inventories remember of images that are not there, or will not be."""
    there = {stock.place: {one.tag for one in stock.images} for stock in stocks}
    for known in roots.known:
        if known.place not in there:
            continue
        entry = known.entry
        stays = {tag for tag in there[known.place] if (known.place, tag) not in going}
        made = tuple(one for one in entry.made if one.tag in stays)
        if not known.declared and stays.isdisjoint(tags_of(dict(entry.applied))):
            yield Memory(known.environment, entry.address, known.place, None)
        elif made != entry.made:
            yield Memory(known.environment, entry.address, known.place, replace(entry, made=made))
