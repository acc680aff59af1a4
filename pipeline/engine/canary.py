"""Canaries: a new version is tried beside the good one, and takes its place when somebody says so (`mp promote`). Pure.

What is desired of such a deployment is the good version with a canary beside it, so drift of both is seen and healed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.diagnostic import Diagnostic, Severity, error
from pipeline.core.digest import fingerprint
from pipeline.core.errors import MpError, UserError
from pipeline.core.protocols import Driver
from pipeline.core.resource import Address, Entry, Resource, fields_of, owner_of, place_of
from pipeline.core.restoring import Restores
from pipeline.core.trying import Tries
from pipeline.engine.compose import Composition
from pipeline.engine.diff import remembered
from pipeline.store.inventory import Inventory

Drivers = Mapping[str, Driver[Any]]


def with_canaries(composition: Composition, inventory: Inventory, drivers: Drivers) -> Composition:
    """The good version with a canary, in place of another version that is wanted; a remark for each."""
    found = dict(composition.resources)
    remarks: list[Diagnostic] = []
    for address, entry in remembered(composition.resources, inventory).items():
        wanted = composition.resources[address]
        if not wanted.canary or wanted.held is not None or not entry.versions:
            continue
        try:
            made = _beside(wanted, entry, drivers)
        except MpError as problem:
            remarks.append(error(problem.message, wanted.where, problem.hint, owner_of(address)))
            continue
        if made is not None:
            found[address] = made
            remarks.append(_remark(made, entry))
    return replace(composition, resources=found, diagnostics=(*composition.diagnostics, *remarks))


def promotable(inventory: Inventory, models: Sequence[str], target: str | None) -> tuple[Address, ...]:
    """Deployments with a canary that serves. Raises UserError when there is none of a model that is named."""
    found = tuple(
        address
        for address, entry in sorted(inventory.entries.items())
        if _tries(entry) and owner_of(address) in models and target in (None, place_of(address))
    )
    owners = {owner_of(address) for address in found}
    if problems := [_nothing(name, target) for name in models if name not in owners]:
        raise UserError(problems)
    return found


def promoted(composition: Composition, inventory: Inventory, chosen: Iterable[Address]) -> Composition:
    """These deployments as they are wanted, with what they need, and nothing else; an error for what is not the tried version."""
    addresses = tuple(chosen)
    problems = tuple(_untried(composition, inventory, addresses))
    wanted = {address: None for each in addresses for address in _closure(composition, each)}
    found = {address: one for address, one in composition.resources.items() if address in wanted}
    return replace(composition, resources=found, diagnostics=(*composition.diagnostics, *problems))


def _beside(wanted: Resource[Any], entry: Entry, drivers: Drivers) -> Resource[Any] | None:
    driver = drivers.get(entry.kind)
    if not isinstance(driver, Tries) or not isinstance(driver, Restores):
        raise MpError(f"{entry.address}: {entry.kind} has no canaries", "leave strategy out")
    return driver.beside(wanted, driver.restore(entry, entry.versions[0]))


def _tries(entry: Entry) -> bool:
    """Its canary was brought, and proven: a step that fails leaves nothing applied."""
    return entry.trial is not None and bool(entry.applied)


def _untried(
    composition: Composition, inventory: Inventory, addresses: Sequence[Address]
) -> Iterator[Diagnostic]:
    for address in addresses:
        entry, wanted = inventory.entries[address], composition.resources.get(address)
        tried = entry.trial.wanted if entry.trial else None
        if wanted is None or fingerprint(fields_of(wanted.desired)) != tried:
            yield error(
                f"{address}: models.yaml wants another version than the one that was tried",
                wanted.where if wanted else None,
                "mp apply tries that one",
                owner_of(address),
            )


def _closure(composition: Composition, address: Address) -> Iterator[Address]:
    if address in composition.resources:
        yield address
        for need in composition.resources[address].needs:
            yield from _closure(composition, need)


def _remark(made: Resource[Any], entry: Entry) -> Diagnostic:
    owner, trial = owner_of(made.address), made.trial
    assert trial is not None, "a canary says what it tries"
    stands = _tries(entry) and entry.trial is not None and entry.trial.wanted == trial.wanted
    hint = f"mp promote {owner}, or mp rollback {owner}"
    return Diagnostic(
        Severity.NOTE,
        f"{made.address}: canary: {trial.words}",
        made.where,
        hint if stands else f"afterwards {hint}",
        model=owner,
    )


def _nothing(model: str, target: str | None) -> Diagnostic:
    at = f' at "{target}"' if target else ""
    return error(f"{model}: no canary of it serves{at}", hint="mp status shows how every deployment is")
