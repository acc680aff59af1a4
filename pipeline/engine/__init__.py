"""The story of a run: read, resolve, compose, observe, diff, execute. START READING HERE.

    models.yaml ─read→ Document ─resolve→ Pins, Models ─compose→ Resources ─observe→ Answers ─diff→ Plan ─execute→ Report

Read, resolve and observe only read; compose and diff are pure; execute alone writes. `wiring.open_world` makes the
World that every function here takes; cli shows what they return.
"""

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.errors import Refused, Stale, UserError
from pipeline.core.image import Engine, Variant
from pipeline.core.plan import Plan
from pipeline.core.protocols import Answer
from pipeline.core.report import Emit, Report
from pipeline.core.resource import Address, Entry, Mark, Resource, current_of, owner_of
from pipeline.engine.compose import Composition, compose, images_of
from pipeline.engine.crew import Crew
from pipeline.engine.diff import Adoption, Comparison, diff, guard_deletes, orphans
from pipeline.engine.execute import execute
from pipeline.engine.held import go_back, with_held
from pipeline.engine.history import origin_of
from pipeline.engine.observe import observe
from pipeline.engine.place import Pinned, engines_of, place_models, registries_of
from pipeline.engine.policy import breaches
from pipeline.engine.preflight import preflight
from pipeline.engine.remarks import misplaced, open_bases, unfetchable
from pipeline.engine.resolve import (
    Pins,
    choose_variants,
    locked_engines,
    merge,
    pin_artifacts,
    pin_engines,
    wanted_engines,
)
from pipeline.engine.rollout import rollouts_of
from pipeline.engine.room import short_of_room
from pipeline.engine.standing import made_here, with_standing
from pipeline.engine.trusted import unsignable, untrusted
from pipeline.engine.world import World
from pipeline.manifest.lock import Lock, write_lock
from pipeline.store.history import Past
from pipeline.store.inventory import Inventory

NEEDS_ENGINE = ("@engine/", "@environment/")


@dataclass(frozen=True)
class Planned:
    """A plan, with the lock it rests on; `apply` takes it whole."""

    plan: Plan
    lock: Lock
    lock_changed: tuple[str, ...]  # what apply writes into models.lock first, in words
    inventory: Inventory  # as it was read: apply refuses when another run has written since
    command: str = "apply"  # for the history


@dataclass(frozen=True)
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


ALL = Selection()


def plan(world: World, selection: Selection = ALL) -> Planned:
    """What would have to be done for the world to be as declared. Reads only.

    Raises UserError when names are unknown, Stale when the world is `locked` and models.lock is not fresh.
    """
    began = time.monotonic()
    names = _names(world, selection)
    inventory = world.store.load()
    pins, composition = _desired(world, () if selection.destroy else names, cached=selection.cached)
    if world.locked and pins.stale:
        raise Stale("models.lock is stale: " + "; ".join(pins.stale), "run mp lock and commit models.lock")
    if selection.build_only:
        composition = images_of(composition)
    if not selection.release:
        composition = with_held(composition, inventory, world.drivers)
    gone, notes = _gone(world, names, selection, composition, inventory)
    answers = observe(composition.resources, (*gone, *_kept(composition, inventory)), world.drivers)
    mark = Mark(world.manifest.project, world.settings.environment, Address(""))
    why_gone = "to be destroyed" if selection.destroy else "no longer declared"
    compared = diff(composition.resources, gone, answers, inventory, mark, why_gone, selection.adoption)
    made = _assemble(world, selection, composition, compared, inventory)
    handled = {entry.address for entry in gone} | composition.resources.keys()
    chosen = set(names) if selection.models else None
    left = () if selection.build_only else sorted(inventory.entries.items())
    kept = tuple(e for _, e in left if _is_kept(e, handled, chosen))
    found = preflight(made.active, world.drivers)
    made = replace(made, refusals=(*made.refusals, *found.refusals), barred=found.barred)
    diagnostics = (*pins.diagnostics, *composition.diagnostics, *notes, *compared.diagnostics)
    diagnostics += (*found.remarks, *found.barred)
    if not selection.destroy:
        diagnostics += open_bases(pins, _built(composition))
        diagnostics += misplaced(composition.resources.values(), world.platform)
        diagnostics += unfetchable(compared.changes) if world.settings.offline else ()
        diagnostics += short_of_room(compared.changes, world.settings.cache)
        refused, unclear = untrusted(world, pins.models)
        diagnostics += (*unclear, *unsignable(world, made.active))
        made = replace(
            made,
            refusals=(
                *made.refusals,
                *pins.refusals,
                *breaches(world.manifest.policy, pins.models, world.document),
                *refused,
            ),
        )
    made = replace(
        made,
        diagnostics=diagnostics,
        kept=kept,
        lock="stale" if pins.stale else "ok",
        models=len(names),
        read_seconds=time.monotonic() - began,
    )
    command = "destroy" if selection.destroy else "apply"
    return Planned(made, _locked(world, pins), pins.stale, inventory, command)


def apply(world: World, planned: Planned, emit: Emit, stop: threading.Event) -> Report:
    """Carry out a plan; models.lock is written first. Raises UserError, Refused, LockHeld, Stale before anything moves."""
    made = planned.plan
    if made.errors:
        raise UserError(made.errors)
    if stops := (*made.refusals, *made.barred):
        raise Refused("; ".join(refusal.summary for refusal in stops), stops[0].hint)
    if planned.lock_changed:
        write_lock(world.settings.root / "models.lock", planned.lock)
    inventory = planned.inventory
    run, settings = world.store.run(inventory), world.settings
    crew = Crew(world.drivers, run, emit, settings.commit, inventory.entries)
    crew = replace(crew, command=planned.command, origin=origin_of(settings.environ))
    return execute(made, crew, stop)


def rollback(world: World, models: Sequence[str], target: str | None = None) -> Planned:
    """How deployments go back to their last other good version, and stay there: from the inventory alone, no source is asked.

    Raises UserError when there is none to go back to.
    """
    began = time.monotonic()
    inventory = world.store.load()
    back = go_back(inventory, models, target, world.drivers, time.time())
    answers = observe(back.resources, (), world.drivers)
    mark = Mark(world.manifest.project, world.settings.environment, Address(""))
    compared = diff(back.resources, (), answers, inventory, mark)
    made = Plan(
        mark.project,
        mark.environment,
        compared.changes,
        {},
        compared.unreadable,
        diagnostics=(*back.diagnostics, *compared.diagnostics),
        refusals=compared.refusals,
        models=len({owner_of(address) for address in back.resources}),
        read_seconds=time.monotonic() - began,
    )
    return Planned(made, world.lock, (), inventory, "rollback")


@dataclass(frozen=True)
class Locked:
    """What `mp lock` did or would do."""

    lock: Lock
    changed: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]
    refusals: tuple[Diagnostic, ...]  # sources that may not be used: nothing is written


def lock(world: World, names: Sequence[str] = (), upgrade: frozenset[str] = frozenset()) -> Locked:
    """Resolve what models.lock does not hold, or (for the models in `upgrade`) everything anew. Writes nothing."""
    chosen = _names(world, Selection(tuple(names)))
    pins, composition = _desired(world, chosen, upgrade)
    diagnostics = (*pins.diagnostics, *composition.diagnostics, *open_bases(pins, _built(composition)))
    made = _locked(world, pins)
    changed = pins.stale
    if not changed and made != world.lock:
        changed = ("entries that nothing wants are dropped",)
    return Locked(made, changed, diagnostics, pins.refusals)


@dataclass(frozen=True)
class Desired:
    """What a kind of target wants, and what is known of the images it is made from."""

    resources: tuple[Resource[Any], ...]  # in manifest order
    answers: Mapping[Address, Answer]  # of the images they need
    diagnostics: tuple[Diagnostic, ...]


def desired(world: World, kinds: Collection[str], selection: Selection = ALL) -> Desired:
    """Deployments of some kinds as they would be applied. Asks registries for digests, and no target; writes nothing.

    Raises UserError when names are unknown, Stale when the world is `locked` and models.lock is not fresh.
    """
    pins, composition = _desired(world, _names(world, selection))
    if world.locked and pins.stale:
        raise Stale("models.lock is stale: " + "; ".join(pins.stale), "run mp lock and commit models.lock")
    resources = tuple(r for r in composition.resources.values() if r.kind in kinds)
    needed = {need: composition.resources[need] for resource in resources for need in resource.needs}
    answers = observe(needed, (), world.drivers)
    return Desired(resources, answers, (*pins.diagnostics, *composition.diagnostics, *pins.refusals))


def forget(world: World, wanted: Sequence[str]) -> tuple[Address, ...]:
    """Drop entries from the inventory by address or by target's or registry's name; the world is not touched."""
    inventory = world.store.load()
    found = [a for a in sorted(inventory.entries) if a in wanted or a.partition(":")[2] in wanted]
    unknown = [w for w in wanted if not any(a == w or a.partition(":")[2] == w for a in found)]
    if unknown:
        raise UserError(
            [error(f'"{w}" is not in the inventory', hint="mp list shows what is") for w in unknown]
        )
    run = world.store.run(inventory)
    for address in found:
        run.end(address, None)
    run.close(None)
    return tuple(found)


def owned(world: World) -> Inventory:
    """What the inventory knows: for list and show."""
    return world.store.load()


def past(world: World) -> tuple[Past, ...]:
    """What was done, the newest first: for history."""
    return tuple(reversed(tuple(world.store.history())))


def _names(world: World, selection: Selection) -> tuple[str, ...]:
    declared = world.manifest.models
    unknown = [name for name in selection.models if name not in declared and not selection.destroy]
    if unknown:
        raise UserError([error(f'"{name}" is not a model of {world.document.name}') for name in unknown])
    return tuple(n for n in declared if not selection.models or n in selection.models)


def _desired(
    world: World, names: Iterable[str], upgrade: frozenset[str] = frozenset(), *, cached: bool = True
) -> tuple[Pins, Composition]:
    """Pins and resources. Engines are pinned only when a resource builds on them: publishing weights needs none."""
    chosen = tuple(names)
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


def _built(composition: Composition) -> frozenset[str]:
    """Keys of the engines whose images are among the resources."""
    images = (a for a in composition.resources if a.startswith("@engine/"))
    return frozenset(a.removeprefix("@engine/").partition(":")[0] for a in images)


def _gone(
    world: World,
    names: Sequence[str],
    selection: Selection,
    composition: Composition,
    inventory: Inventory,
) -> tuple[tuple[Entry, ...], tuple[Diagnostic, ...]]:
    """Entries to remove. A model that is declared and could not be composed keeps everything it has."""
    if selection.build_only:
        return (), ()
    if not world.manifest.models and not selection.destroy:
        note = "models.yaml declares no model: nothing is deleted because of that (mp destroy --all does)"
        return (), (warning(note),) if inventory.entries else ()
    gone = orphans(composition.resources, inventory)
    if selection.destroy:
        return tuple(e for e in gone if not selection.models or owner_of(e.address) in selection.models), ()
    broken = {name for name in world.manifest.models if name not in composition.models}
    chosen = set(names) if selection.models else None
    return tuple(
        e
        for e in gone
        if owner_of(e.address) not in broken and (chosen is None or owner_of(e.address) in chosen)
    ), ()


def _kept(composition: Composition, inventory: Inventory) -> tuple[Entry, ...]:
    """What is known of wanted images: their tags change with their content, so only the entry says which was applied."""
    pairs = ((inventory.entries.get(r.address), r) for r in composition.resources.values())
    return tuple(e for e, r in pairs if e and e.keep and e.applied and dict(e.locator) == dict(r.locator))


def _is_kept(entry: Entry, handled: set[Address], chosen: set[str] | None) -> bool:
    """Owned, and nothing of this plan."""
    mine = chosen is None or owner_of(entry.address) in chosen
    return mine and entry.address not in handled and current_of(entry.address) not in handled


def _assemble(
    world: World, selection: Selection, composition: Composition, compared: Comparison, inventory: Inventory
) -> Plan:
    addresses = {change.address for change in compared.changes} | set(compared.unreadable)
    needs = {
        address: tuple(need for need in resource.needs if need in addresses)
        for address, resource in composition.resources.items()
        if resource.needs
    }
    optional = {
        a for a in compared.unreadable if a in composition.resources and composition.resources[a].optional
    }
    refusals = compared.refusals
    if not selection.destroy:
        refusals += guard_deletes(compared.changes, len(inventory.entries), selection.max_deletes)
    return Plan(
        world.manifest.project,
        world.settings.environment,
        compared.changes,
        needs,
        compared.unreadable,
        frozenset(optional),
        refusals=refusals,
        rollouts=rollouts_of(compared.changes, world.manifest.targets),
    )


def _locked(world: World, pins: Pins) -> Lock:
    """The lock as it would be written: entries of models that are not declared any more are dropped."""
    return world.lock.updated(pins.models, pins.engines, keep=frozenset(world.manifest.models))
