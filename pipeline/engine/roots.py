"""What prune may not touch, and what this project remembers of its images: from inventories, models.yaml and models.lock. Used by prune.

Every applied, last good and earlier good State of every environment is a root, and so is what models.yaml and models.lock name now.
Images that this environment keeps of what models.yaml no longer declares are none: they are what prune is for.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.core.digest import Digest, Json, image_tag
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.resource import Address, Entry, owner_of
from pipeline.engine.compose import Composition, compose
from pipeline.engine.parts import declared
from pipeline.engine.place import Pinned, engines_of, place_models, registries_of
from pipeline.engine.resolve import choose_variants, locked_engines, wanted_engines
from pipeline.engine.world import World
from pipeline.resources.image.recipe import registry_of
from pipeline.resources.image.reclaim import Place
from pipeline.store.inventory import Inventory

_TAG = re.compile(r"(?<![0-9a-z-])mp-[0-9a-f]{12}(?![0-9a-z])")
_FULL = re.compile(r"[0-9a-f]{64}")


@frozen
class Known:
    """What one inventory remembers of one model's images in one repository."""

    environment: str
    place: Place
    entry: Entry
    declared: bool  # False: apply here keeps it and nothing asks for it any more

    def applied_at(self, tag: str) -> float | None:
        """When an image was applied last, in seconds since 1970; None for what never was."""
        return next((made.at for made in self.entry.made if made.tag == tag), None)


@dataclass
class Roots:
    """Why an image stays, by its tag (48 bits of a hash name it wherever it is) or its digest."""

    tags: dict[str, str] = field(default_factory=dict)
    digests: dict[Digest, str] = field(default_factory=dict)
    places: dict[Place, Registry] = field(default_factory=dict)  # every repository that is named anywhere
    known: list[Known] = field(default_factory=list)


def gather(world: World, inventories: Mapping[str, Inventory]) -> Roots:
    """Asks nobody: models that models.lock does not have whole are known by what was applied of them."""
    roots = Roots()
    wanted = _wanted(world)
    _add_wanted(wanted, roots)
    for environment, inventory in inventories.items():
        own = environment == world.settings.environment
        kept = _kept(world, inventory, wanted) if own else frozenset[Address]()
        for where, entry in sorted(inventory.entries.items()):
            _add(environment, entry, roots, declared=where not in kept)
    return roots


def place_of(entry: Entry) -> Place:
    """The repository of an image that an inventory knows."""
    return Place(entry.locator["registry"], entry.locator["repository"])


def tags_of(value: Json) -> Iterator[str]:
    """Every image that a state names, by its tag or its fingerprint; other hashes do no harm."""
    match value:
        case str() if _TAG.search(value):  # alone, or in a whole reference
            yield from _TAG.findall(value)
        case str() if _FULL.fullmatch(value):
            yield image_tag(value)
        case dict():
            for inner in value.values():
                yield from tags_of(inner)
        case list():
            for inner in value:
                yield from tags_of(inner)
        case _:
            pass


def _wanted(world: World) -> Composition:
    """What models.yaml and models.lock name together, without asking anybody."""
    names = [
        name
        for name, spec in world.manifest.models.items()
        if name in world.lock.models and declared(spec).keys() <= world.lock.models[name].keys()
    ]
    variants, _ = choose_variants(world, names)
    engines = locked_engines(world, wanted_engines(world, variants.values()))
    pinned = {
        name: Pinned(world.lock.models[name], engines_of(world, variant, engines))
        for name, variant in variants.items()
    }
    registries, project = registries_of(world), world.manifest.project
    return compose(place_models(world, pinned), world.templates, world.targets, registries, project)


def _add_wanted(composed: Composition, roots: Roots) -> None:
    for resource in composed.resources.values():
        if resource.keep and resource.tracked:  # environments are kept too, and are no images
            registry = registry_of(resource.locator)
            place = Place(resource.locator["registry"], resource.locator["repository"])
            roots.places.setdefault(place, registry)
            tag = image_tag(str(resource.desired.fingerprint))
            roots.tags.setdefault(tag, f"models.yaml: {owner_of(resource.address)}")


def _kept(world: World, inventory: Inventory, wanted: Composition) -> frozenset[Address]:
    """Images that apply kept here though nothing declares them; what could not be composed counts as declared."""
    models = world.manifest.models
    unknown = models.keys() - wanted.models
    if not models:
        return frozenset()  # an empty models.yaml deletes nothing

    def is_kept(entry: Entry) -> bool:
        owner = owner_of(entry.address)
        sure = not unknown if owner.startswith("@") else owner not in unknown
        free = entry.keep and not entry.protect and entry.on_remove == "delete"
        return free and sure and entry.address not in wanted.resources

    return frozenset(where for where, entry in inventory.entries.items() if is_kept(entry))


def _add(environment: str, entry: Entry, roots: Roots, *, declared: bool) -> None:
    if entry.keep:
        place = place_of(entry)
        roots.places.setdefault(place, registry_of(entry.locator))
        roots.known.append(Known(environment, place, entry, declared))
    if not declared:
        return
    earlier = (("good before", version.state) for version in entry.versions)
    for word, state in (("applied", entry.applied), ("last good", entry.good), *earlier):
        for tag in tags_of(dict(state)):
            roots.tags.setdefault(tag, f"{word} in {environment}: {entry.address}")
    if entry.digest:
        roots.digests.setdefault(entry.digest, f"applied in {environment}: {entry.address}")
