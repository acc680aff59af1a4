"""Rollbacks: which version a deployment goes back to, and that it stays there until something else is wanted.

A held deployment is composed as the version that was brought back, so its drift is seen and healed like any other's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.core.diagnostic import Diagnostic, Severity, error, warning
from pipeline.core.digest import fingerprint
from pipeline.core.errors import MpError, UserError
from pipeline.core.frozen import frozen
from pipeline.core.protocols import Driver
from pipeline.core.resource import (
    Address,
    Entry,
    Held,
    Resource,
    Version,
    current_of,
    fields_of,
    owner_of,
    place_of,
)
from pipeline.core.restoring import Restores
from pipeline.engine.compose import Composition
from pipeline.engine.diff import remembered
from pipeline.store.inventory import Inventory

Drivers = Mapping[str, Driver[Any]]


@frozen
class Restored:
    """Earlier versions as they are to be brought back."""

    resources: Mapping[Address, Resource[Any]]
    diagnostics: tuple[Diagnostic, ...]


def with_held(composition: Composition, inventory: Inventory, drivers: Drivers) -> Composition:
    """What a rollback holds, in place of what the manifest wants; a remark for each."""
    entries = remembered(composition.resources, inventory)
    found = dict(composition.resources)
    remarks: list[Diagnostic] = []
    for address, entry in entries.items():
        wanted = composition.resources[address]
        if entry.held is None or entry.held.wanted != fingerprint(fields_of(wanted.desired)):
            continue
        try:
            found[address] = replace(
                _restore(entry, _version_at(entry, entry.held.version_at), entry.held, drivers),
                optional=wanted.optional,
                lifecycle=wanted.lifecycle,
                where=wanted.where,
            )
        except MpError as problem:
            hint = f"mp apply --release {owner_of(address)} applies what models.yaml wants"
            text = f"{address}: is held by mp rollback, and cannot be kept: {problem.message}"
            remarks.append(error(text, wanted.where, hint, owner_of(address)))
            continue
        remarks.append(_remark(wanted, entry.held))
    return replace(composition, resources=found, diagnostics=(*composition.diagnostics, *remarks))


def go_back(
    inventory: Inventory, models: Sequence[str], target: str | None, drivers: Drivers, now: float
) -> Restored:
    """The last good version of each deployment that is not the one applied last. Raises UserError when there is none."""
    entries = tuple(_chosen(inventory, models, target))
    found: dict[Address, Resource[Any]] = {}
    remarks: list[Diagnostic] = []
    for entry in entries:
        version = next((one for one in entry.versions if one.state != entry.applied), None)
        try:
            if version is None:
                raise MpError(
                    f"{entry.address}: no other good version of it is known", "mp history shows what was"
                )
            held = Held(entry.wanted, version.at, now)
            if entry.held and entry.held.wanted:  # left once more: what is wanted is still the same
                held = replace(held, wanted=entry.held.wanted)
            found[entry.address] = _restore(entry, version, held, drivers)
            remarks.append(_announcement(entry, version))
        except MpError as problem:
            remarks.append(warning(problem.message, None, problem.hint, owner_of(entry.address)))
    if not found:
        raise UserError([replace(one, severity=Severity.ERROR) for one in remarks] or [_nothing(target)])
    return Restored(found, tuple(remarks))


def day_of(seconds: float) -> str:
    """ "2026-11-20", in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _chosen(inventory: Inventory, models: Sequence[str], target: str | None) -> Iterable[Entry]:
    """Deployments: images are not rolled back, they are kept. What stands at a place that was left is on its way out."""
    for address, entry in sorted(inventory.entries.items()):
        mine = not models or owner_of(address) in models
        stays = not entry.keep and current_of(address) == address
        if stays and mine and target in (None, place_of(address)):
            yield entry


def _restore(entry: Entry, version: Version, held: Held, drivers: Drivers) -> Resource[Any]:
    driver = drivers.get(entry.kind)
    if not isinstance(driver, Restores):
        raise MpError(f"{entry.address}: {entry.kind} has no way back", "apply the version you want")
    resource = driver.restore(entry, version)
    return replace(resource, contents=version.contents, held=held)


def _version_at(entry: Entry, at: float) -> Version:
    found = next((one for one in entry.versions if one.at == at), None)
    if found is None:
        raise MpError("the inventory has lost that version")
    return found


def _remark(wanted: Resource[Any], held: Held) -> Diagnostic:
    owner = owner_of(wanted.address)
    return warning(
        f"{wanted.address}: held at the version of {day_of(held.version_at)} since {day_of(held.since)} by mp rollback; "
        f"models.yaml still wants {wanted.contents.model or 'another one'}",
        wanted.where,
        f"change its entry, or run mp apply --release {owner}",
        owner,
    )


def _announcement(entry: Entry, version: Version) -> Diagnostic:
    was = ", ".join(filter(None, (version.contents.model, version.contents.engine)))
    text = f"{entry.address}: goes back to the version of {day_of(version.at)}{f': {was}' if was else ''}"
    hint = f"it stays there until models.yaml wants something else, or until mp apply --release {owner_of(entry.address)}"
    return Diagnostic(Severity.NOTE, text, None, hint, model=owner_of(entry.address))


def _nothing(target: str | None) -> Diagnostic:
    return error(f'nothing is deployed at "{target}"' if target else "nothing of that is deployed")
