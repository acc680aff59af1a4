"""`mp prune`: which images nobody needs, and taking them out of their repositories. Everything is read before anything goes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.core.resource import Address, Entry
from pipeline.engine.place import registries_of
from pipeline.engine.roots import Known, Roots, gather, place_of, tags_of
from pipeline.engine.world import World
from pipeline.resources.image import reclaim as reclaim_images
from pipeline.resources.image.reclaim import Held, Place, Removal, Stock
from pipeline.store.inventory import Inventory, Run, Store

KEPT_VERSIONS = 2  # of each model's images in each environment, when nothing else is said
DAY_S = 86400.0


@frozen
class Rules:
    """What may go besides being no root."""

    keep: int = KEPT_VERSIONS  # the newest of each model's images stay, in each environment
    older_than_days: int | None = None  # only what was applied so long ago; None: whatever its age
    everything: bool = False  # also images of this project that no inventory here remembers


@frozen
class ImageFate:
    """What becomes of one image, and by which rule."""

    image: Held
    goes: bool
    rule: str
    leaves: bool = False  # it stays for other projects, and this one needs it no more


@frozen
class Memory:
    """An entry of an inventory as it is to be when the images are gone."""

    environment: str
    address: Address
    place: Place
    entry: Entry | None  # None: all that it stood for is gone


@frozen
class Leaving:
    """An image that this project leaves to others that need it."""

    stock: Stock
    image: Held


@frozen
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
    leaving: tuple[Leaving, ...] = ()


@frozen
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
    judged = [(_fate(world, one, roots, rules, stock), stock) for stock in stocks for one in stock.images]
    fates = [fate for fate, _ in judged]
    leaving = tuple(Leaving(stock, fate.image) for fate, stock in judged if fate.leaves)
    going = {fate.image for fate in fates if fate.goes}
    ours_no_more = {(one.place, one.tag) for one in (*going, *(each.image for each in leaving))}
    removed = reclaim_images.removals(stocks, going)
    return Pruning(
        tuple(sorted(fates, key=lambda fate: (not fate.goes, fate.image.place, fate.image.tag))),
        removed,
        tuple(_memories(roots, stocks, ours_no_more)),
        {stock.place: stock.left for stock in stocks if stock.left},
        unreadable,
        {registry.location: registry.name for registry in registries_of(world).values()},
        reclaim_images.disk_bytes(removed),
        reclaim_images.unreferenced_bytes(stocks, removed),
        inventories,
        leaving,
    )


def prune(world: World, plan: Pruning) -> Pruned:
    """Carry it out, under the leases of all environments. A kill leaves every image whole or without a name: run it again.

    Raises LockHeld while something is applied, Stale when something was applied since the plan was made.
    """
    if not plan.removals and not plan.memories and not plan.leaving:
        return Pruned(0, 0, {}, ())
    stores, project = _stores(world), world.manifest.project
    runs = {name: stores[name].run(inventory) for name, inventory in plan.inventories.items()}
    work = _Work(project)
    try:
        for run in runs.values():
            run.hold()
        _forget(runs, plan)
        for leaving in plan.leaving:
            work.leave(leaving)
        for removal in plan.removals:
            work.remove(removal)
        _remember(runs, [memory for memory in plan.memories if memory.place not in work.undone])
    finally:
        for run in runs.values():
            run.close(None)
    unreferenced = {
        where: size for where, size in plan.unreferenced_bytes.items() if where not in work.refused
    }
    return Pruned(work.images, work.freed_bytes, unreferenced, tuple(work.problems))


@dataclass
class _Work:
    """What one run has done. A registry that refuses once is not asked again."""

    project: str
    images: int = 0
    freed_bytes: int = 0
    problems: list[BackendError] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)  # registries
    undone: set[Place] = field(default_factory=set)  # what inventories say of them stays as it is

    def leave(self, leaving: Leaving) -> None:
        with self._trying(leaving.stock.place) as may:
            if may:
                reclaim_images.leave(leaving.stock, leaving.image, self.project)

    def remove(self, removal: Removal) -> None:
        place = removal.stock.place
        with self._trying(place) as may:
            if not may:
                return
            done = reclaim_images.remove(removal, self.project)
            self.images += len(done.images)
            self.freed_bytes += done.freed_bytes
            for image in removal.images:
                if image not in done.images:
                    text = f"{place.repository}:{image.tag} stays: another project has marked it meanwhile"
                    self.undone.add(place)
                    self.problems.append(BackendError(place.location, text, "run mp prune again"))

    @contextmanager
    def _trying(self, place: Place) -> Iterator[bool]:
        may = place.location not in self.refused
        if not may:
            self.undone.add(place)
        try:
            yield may
        except BackendError as problem:
            self.problems.append(problem)
            self.refused.add(place.location)
            self.undone.add(place)


def _forget(runs: Mapping[str, Run], plan: Pruning) -> None:
    """Before an image is left to others no inventory may say that it is applied: the next plan that wants it looks whether
    it has to be marked again, also after a kill."""
    left = {(one.image.place, one.image.tag) for one in plan.leaving}
    for environment, inventory in plan.inventories.items():
        for address, entry in inventory.entries.items():
            if entry.keep and any((place_of(entry), tag) in left for tag in tags_of(dict(entry.applied))):
                runs[environment].end(address, replace(entry, applied={}))


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
    project = world.manifest.project
    reason = (
        roots.tags.get(image.tag)
        or roots.digests.get(image.digest)
        or _somebody(world, image, _given(roots, image.place))
        or _recent(known, image, rules, {one.tag for one in stock.images})
    )
    if reason:
        return ImageFate(image, False, reason)
    if not known and not rules.everything:
        return ImageFate(image, False, "no inventory of this folder remembers it (--all)")
    if others := image.users.besides(project) if image.users else ():
        names = ", ".join(f'"{other}"' for other in others)
        return ImageFate(image, False, f"left to project {names}", leaves=True)
    if not known:
        return ImageFate(image, True, "--all: no inventory of this folder remembers it")
    used = any(one.declared for one in known)
    return ImageFate(
        image, True, f"nothing uses it, {rules.keep} newer stay" if used else "no longer declared"
    )


def _somebody(world: World, image: Held, given: set[str]) -> str | None:
    """Why others may need it, where it is not for this project to say."""
    if image.users is None:
        own = _is_own(world, image.place.location)
        return None if own else "an engine: other projects of this registry may use it"
    others = image.users.besides(world.manifest.project)
    if others and world.manifest.project not in image.users.projects:
        made = f'of project "{image.project}"'
        return made if image.project in others else f'project "{others[0]}" uses it'
    strange = [tag for tag in image.others if tag not in given]
    return f'tag "{strange[0]}" names it' if strange else None


def _given(roots: Roots, place: Place) -> set[str]:
    """Human tags that inventories say mp gave here: an image does not tell those that an older mp gave it."""
    entries = [one.entry for one in roots.known if one.place == place]
    states = [
        state for each in entries for state in (each.applied, each.good, *(v.state for v in each.versions))
    ]
    return {str(state["version_tag"]) for state in states if state.get("version_tag")}


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
