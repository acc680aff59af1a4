"""The story of a run: read, resolve, compose, observe, diff, execute. START READING HERE.

    models.yaml ─read→ Document ─resolve→ Pins, Models ─compose→ Resources ─observe→ Answers ─diff→ Plan ─execute→ Report

Read, resolve and observe only read; compose and diff are pure; execute alone writes. `wiring.open_world` makes the
World that every function here takes; cli shows what they return.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.errors import Refused, Stale, UserError
from pipeline.core.frozen import frozen
from pipeline.core.plan import Plan
from pipeline.core.protocols import Answer
from pipeline.core.report import Emit, Report
from pipeline.core.resource import Address, Mark, Resource, current_of, owner_of, place_of
from pipeline.engine.canary import promotable, promoted, with_canaries
from pipeline.engine.compose import Composition, images_of
from pipeline.engine.crew import Crew
from pipeline.engine.diff import Comparison, diff, guard_deletes
from pipeline.engine.execute import execute
from pipeline.engine.held import go_back, with_held
from pipeline.engine.history import origin_of
from pipeline.engine.identity import checked
from pipeline.engine.judge import judged
from pipeline.engine.leftover import gone_of, kept_of, known_of
from pipeline.engine.observe import observe
from pipeline.engine.remarks import open_bases
from pipeline.engine.resolve import Pins
from pipeline.engine.rollout import rollouts_of
from pipeline.engine.wanted import ALL, Selection, built, names_of, wanted
from pipeline.engine.world import World
from pipeline.manifest.lock import Lock, write_lock
from pipeline.store.history import Past
from pipeline.store.inventory import Inventory

__all__ = ["ALL", "Selection"]


@frozen
class Planned:
    """A plan, with the lock it rests on; `apply` takes it whole."""

    plan: Plan
    lock: Lock
    lock_changed: tuple[str, ...]  # what apply writes into models.lock first, in words
    inventory: Inventory  # as it was read: apply refuses when another run has written since
    command: str = "apply"  # for the history


def plan(world: World, selection: Selection = ALL) -> Planned:
    """What would have to be done for the world to be as declared. Reads only.

    Raises UserError when names are unknown, Stale when the world is `locked` and models.lock is not fresh.
    """
    began = time.monotonic()
    names = names_of(world, selection)
    inventory = world.store.load()
    pins, composition = wanted(world, () if selection.destroy else names, cached=selection.cached)
    if world.locked and pins.stale:
        raise Stale("models.lock is stale: " + "; ".join(pins.stale), "run mp lock and commit models.lock")
    if selection.build_only:
        composition = images_of(composition)
    if not selection.release:
        composition = with_held(composition, inventory, world.drivers)
    if selection.promote:
        composition = promoted(composition, inventory, selection.promote)
    else:
        composition = with_canaries(composition, inventory, world.drivers)
    gone, notes = gone_of(world, names, selection, composition, inventory)
    known = known_of(composition.resources, inventory, world.drivers)
    seen = observe(composition.resources, (*gone, *known), world.drivers)
    answers, strange = checked(seen, inventory)
    mark = Mark(world.manifest.project, world.settings.environment, Address(""))
    why_gone = "to be destroyed" if selection.destroy else "no longer declared"
    compared = diff(composition.resources, gone, answers, inventory, mark, why_gone, selection.adoption)
    compared = replace(compared, refusals=(*strange, *compared.refusals))
    made = _assemble(world, selection, composition, compared, inventory)
    made = judged(world, selection, pins, composition, made, (*notes, *compared.diagnostics))
    made = replace(
        made,
        kept=kept_of(world, names, selection, composition, gone, inventory),
        lock="stale" if pins.stale else "ok",
        models=len(names),
        read_seconds=time.monotonic() - began,
    )
    command = "destroy" if selection.destroy else "promote" if selection.promote else "apply"
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


def promote(world: World, models: Sequence[str], target: str | None = None) -> Planned:
    """How what canaries try becomes the deployments. Raises UserError when a model has no canary."""
    chosen = promotable(world.store.load(), models, target)
    return plan(world, Selection(tuple(models), promote=chosen))


def rollback(world: World, models: Sequence[str], target: str | None = None) -> Planned:
    """How deployments go back to their last other good version, and stay there: from the inventory alone, no source is asked.

    Raises UserError when there is none to go back to.
    """
    began = time.monotonic()
    inventory = world.store.load()
    back = go_back(inventory, models, target, world.drivers, time.time())
    known = known_of(back.resources, inventory, world.drivers)
    answers, strange = checked(observe(back.resources, known, world.drivers), inventory)
    mark = Mark(world.manifest.project, world.settings.environment, Address(""))
    compared = diff(back.resources, (), answers, inventory, mark)
    made = Plan(
        mark.project,
        mark.environment,
        compared.changes,
        {},
        compared.unreadable,
        diagnostics=(*back.diagnostics, *compared.diagnostics),
        refusals=(*strange, *compared.refusals),
        models=len({owner_of(address) for address in back.resources}),
        read_seconds=time.monotonic() - began,
    )
    return Planned(made, world.lock, (), inventory, "rollback")


@frozen
class Locked:
    """What `mp lock` did or would do."""

    lock: Lock
    changed: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]
    refusals: tuple[Diagnostic, ...]  # sources that may not be used: nothing is written


def lock(world: World, names: Sequence[str] = (), upgrade: frozenset[str] = frozenset()) -> Locked:
    """Resolve what models.lock does not hold, or (for the models in `upgrade`) everything anew. Writes nothing."""
    chosen = names_of(world, Selection(tuple(names)))
    pins, composition = wanted(world, chosen, upgrade)
    diagnostics = (*pins.diagnostics, *composition.diagnostics, *open_bases(pins, built(composition)))
    made = _locked(world, pins)
    changed = pins.stale
    if not changed and made != world.lock:
        changed = ("entries that nothing wants are dropped",)
    return Locked(made, changed, diagnostics, pins.refusals)


@frozen
class Desired:
    """What a kind of target wants, and what is known of the images it is made from."""

    resources: tuple[Resource[Any], ...]  # in manifest order
    answers: Mapping[Address, Answer]  # of the images they need
    diagnostics: tuple[Diagnostic, ...]


def desired(world: World, kinds: Collection[str], selection: Selection = ALL) -> Desired:
    """Deployments of some kinds as they would be applied. Asks registries for digests, and no target; writes nothing.

    Raises UserError when names are unknown, Stale when the world is `locked` and models.lock is not fresh.
    """
    pins, composition = wanted(world, names_of(world, selection))
    if world.locked and pins.stale:
        raise Stale("models.lock is stale: " + "; ".join(pins.stale), "run mp lock and commit models.lock")
    resources = tuple(r for r in composition.resources.values() if r.kind in kinds)
    needed = {need: composition.resources[need] for resource in resources for need in resource.needs}
    answers = observe(needed, (), world.drivers)
    return Desired(resources, answers, (*pins.diagnostics, *composition.diagnostics, *pins.refusals))


def forget(world: World, wanted: Sequence[str]) -> tuple[Address, ...]:
    """Drop entries from the inventory by address or by target's or registry's name; the world is not touched."""
    inventory = world.store.load()
    found = [a for a in sorted(inventory.entries) if not _names(a).isdisjoint(wanted)]
    unknown = [w for w in wanted if not any(w in _names(a) for a in found)]
    if unknown:
        raise UserError(
            [error(f'"{w}" is not in the inventory', hint="mp list shows what is") for w in unknown]
        )
    run = world.store.run(inventory)
    for address in found:
        run.end(address, None)
    run.close(None)
    return tuple(found)


def _names(where: Address) -> set[str]:
    """What an entry may be called by: its address, and its target or registry, also one that it is to leave."""
    return {where, current_of(where), *filter(None, [place_of(current_of(where))])}


def owned(world: World) -> Inventory:
    """What the inventory knows: for list and show."""
    return world.store.load()


def past(world: World) -> tuple[Past, ...]:
    """What was done, the newest first: for history."""
    return tuple(reversed(tuple(world.store.history())))


def _assemble(
    world: World, selection: Selection, composition: Composition, compared: Comparison, inventory: Inventory
) -> Plan:
    addresses = {change.address for change in compared.changes} | set(compared.unreadable)
    needs = {
        address: tuple(need for need in resource.needs if need in addresses)
        for address, resource in composition.resources.items()
        if resource.needs
    }
    needs |= _instead(composition, compared, inventory)
    optional = {
        a for a in compared.unreadable if a in composition.resources and composition.resources[a].optional
    }
    made = Plan(
        world.manifest.project,
        world.settings.environment,
        compared.changes,
        needs,
        compared.unreadable,
        frozenset(optional),
    )
    refusals = compared.refusals
    if not selection.destroy:
        refusals += guard_deletes(made.active, len(inventory.entries), selection.max_deletes)
    return replace(made, refusals=refusals, rollouts=rollouts_of(made.active, world.manifest.targets))


def _instead(
    composition: Composition, compared: Comparison, inventory: Inventory
) -> dict[Address, tuple[Address, ...]]:
    """What goes from a place, with the model's new places that could not be read: it stays as long as they are not there."""
    new = [
        address
        for address in compared.unreadable
        if (wanted := composition.resources.get(address))
        and wanted.tracked
        and not wanted.keep
        and address not in inventory.entries
    ]
    going = (c.address for c in compared.changes if c.resource is None and c.entry and not c.entry.keep)
    found = {address: tuple(each for each in new if owner_of(each) == owner_of(address)) for address in going}
    return {address: places for address, places in found.items() if places}


def _locked(world: World, pins: Pins) -> Lock:
    """The lock as it would be written: entries of models that are not declared any more are dropped."""
    return world.lock.updated(pins.models, pins.engines, keep=frozenset(world.manifest.models))
