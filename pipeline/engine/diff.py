"""Compare what is wanted with what was seen and with what was applied last: the plan. Pure."""

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.core.change import Action, Change, FieldDiff, differences
from pipeline.core.diagnostic import Diagnostic, error, note, warning
from pipeline.core.frozen import frozen
from pipeline.core.protocols import Answer
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Locator,
    Mark,
    Observed,
    Resource,
    State,
    Transfer,
    Unreadable,
    current_of,
    fields_of,
    owner_of,
    previous_of,
    said_of,
)
from pipeline.engine.refusals import interrupting, managed, not_ours
from pipeline.store.inventory import Inventory


class Adoption(enum.Enum):
    """What may be done with a thing that has the wanted name and nobody's mark."""

    NONE = enum.auto()  # nothing: the plan is refused
    GENTLE = enum.auto()  # it is taken over if it runs on as it is
    RESTART = enum.auto()  # it is taken over and changed


NEEDLESS = "not here, and nothing has to be made of it"


@frozen
class Comparison:
    """The outcome of comparing everything: changes in order, and what stands in the way."""

    changes: tuple[Change[Any], ...]
    unreadable: Mapping[Address, Unreadable]
    diagnostics: tuple[Diagnostic, ...]
    refusals: tuple[Diagnostic, ...]


@dataclass
class _Findings:
    changes: list[Change[Any]] = field(default_factory=list)
    unreadable: dict[Address, Unreadable] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    refusals: list[Diagnostic] = field(default_factory=list)


def remembered(wanted: Mapping[Address, Resource[Any]], inventory: Inventory) -> dict[Address, Entry]:
    """The entry of each wanted thing: what was applied at the place where it is wanted now."""
    places = {_place(current_of(a), entry.locator): entry for a, entry in sorted(inventory.entries.items())}
    found = {a: places.get(_place(a, resource.locator)) for a, resource in wanted.items()}
    return {a: replace(entry, address=a) for a, entry in found.items() if entry is not None}


def orphans(wanted: Mapping[Address, Resource[Any]], inventory: Inventory) -> tuple[Entry, ...]:
    """Entries of the inventory that nothing desired stands for, kept kinds (images) aside.

    What is wanted at another place than it was is an orphan under an address of its own, one for each place.
    """
    found = []
    for address, entry in sorted(inventory.entries.items()):
        resource = wanted.get(current_of(address))
        if entry.keep or (resource is not None and dict(resource.locator) == dict(entry.locator)):
            continue
        found.append(
            entry if resource is None else replace(entry, address=previous_of(address, entry.locator))
        )
    return tuple(found)


def _returned(wanted: Mapping[Address, Resource[Any]], inventory: Inventory) -> Iterator[Change[Any]]:
    """Places that were left and are wanted again: their second entries go, the things stay."""
    for address, entry in sorted(inventory.entries.items()):
        resource = wanted.get(current_of(address))
        if (
            current_of(address) != address
            and resource is not None
            and dict(resource.locator) == dict(entry.locator)
        ):
            reason = "wanted again where it was"
            yield Change(address, entry.kind, Action.FORGET, None, None, entry, reason=reason)


def _place(address: Address, locator: Locator) -> tuple[Address, tuple[tuple[str, str], ...]]:
    return address, tuple(sorted(locator.items()))


def diff(
    wanted: Mapping[Address, Resource[Any]],
    gone: tuple[Entry, ...],
    answers: Mapping[Address, Answer],
    inventory: Inventory,
    mark: Mark,
    why_gone: str = "no longer declared",
    adoption: Adoption = Adoption.NONE,
) -> Comparison:
    """Every wanted resource and every orphan, compared. `mark` is ours; its address is filled in for each."""
    findings = _Findings()
    entries = remembered(wanted, inventory)
    for address, resource in wanted.items():
        entry = entries.get(address)
        match answers.get(address, Unreadable("the driver gave no answer")):
            case Unreadable() as unreadable:
                findings.unreadable[address] = unreadable
            case Absent() | Observed() as watched if resource.watched:
                findings.changes.append(_watched(resource, entry, watched))
            case Absent() as absent:
                findings.changes.append(_creation(resource, entry, absent))
            case Observed() as observed:
                _compare(findings, resource, entry, observed, replace(mark, address=address), adoption)
    for entry in gone:
        answer = answers.get(entry.address, Unreadable("the driver gave no answer"))
        _remove(findings, entry, answer, mark, why_gone)
    findings.changes.extend(_returned(wanted, inventory))
    return Comparison(
        tuple(_with_needless(findings.changes, wanted)),
        findings.unreadable,
        tuple(findings.diagnostics),
        tuple(findings.refusals),
    )


def _with_needless(
    changes: Iterable[Change[Any]], wanted: Mapping[Address, Resource[Any]]
) -> Iterator[Change[Any]]:
    """The changes; what this machine lacks only for making things that stand already is not made.

    Weights in the cache are a means: a runner with an empty cache fetches nothing for images that are published. What
    runs here needs them all the time, and so does what could not be read: it may have to be made.
    """
    found = list(changes)
    standing = {c.address for c in found if c.resource and c.resource.keep and _stands(c)}
    users: dict[Address, list[Address]] = {}
    for resource in wanted.values():
        for need in resource.needs:
            users.setdefault(need, []).append(resource.address)
    for change in found:
        needed_by = users.get(change.address, [])
        idle = change.resource is not None and not change.resource.tracked and change.action is Action.CREATE
        if idle and needed_by and standing.issuperset(needed_by):
            yield replace(change, action=Action.NOOP, reason=NEEDLESS, transfer=Transfer())
        else:
            yield change


def _stands(change: Change[Any]) -> bool:
    """It is there, and all that is to be done is to mark it."""
    desired = change.resource.desired if change.resource else None
    return change.action is Action.NOOP or (
        change.action is Action.UPDATE
        and desired is not None
        and all(desired.only_marks(each.path) for each in change.diffs)
    )


def _creation(resource: Resource[Any], entry: Entry | None, absent: Absent) -> Change[Any]:
    here = entry is not None and dict(entry.locator) == dict(resource.locator)  # not in another registry
    missing = entry is not None and bool(entry.applied) and here
    reason = "missing: it was applied and is not there" if missing else "not there"
    return Change(
        resource.address,
        resource.kind,
        Action.CREATE,
        resource,
        None,
        entry,
        missing=missing,
        reason=reason,
        transfer=absent.transfer,
        identity=absent.identity,
    )


def _watched(resource: Resource[Any], entry: Entry | None, answer: Absent | Observed[Any]) -> Change[Any]:
    """What is as its entry says, or how it differs, for information. What was ours before is forgotten, and runs on."""
    seen = answer if isinstance(answer, Observed) else None
    address, kind = resource.address, resource.kind
    if entry is not None:
        reason = "only observed from now on: it is left as it is"
        return Change(address, kind, Action.FORGET, None, seen, entry, reason=reason)
    if seen is None:
        return Change(address, kind, Action.NOOP, resource, None, None, missing=True, reason="not there")
    drift = tuple(differences(fields_of(resource.desired), fields_of(seen.state)))
    return Change(address, kind, Action.NOOP, resource, seen, None, drift=drift)


def _compare(
    findings: _Findings,
    resource: Resource[Any],
    entry: Entry | None,
    seen: Observed[Any],
    mark: Mark,
    adoption: Adoption,
) -> None:
    live = fields_of(seen.state)
    diffs = tuple(differences(live, fields_of(seen.would_be or resource.desired)))
    drift: tuple[FieldDiff, ...] = ()
    if entry is not None and entry.applied:
        applied = dict(resource.desired.compared(entry.applied))
        known = {key: value for key, value in live.items() if key in applied}  # an older mp knew fewer
        if diffs:  # what is as desired has not drifted, whoever brought it there
            drift = tuple(differences(applied, known))
        if entry.digest and seen.digest and entry.digest != seen.digest and applied == known:
            drift = (FieldDiff("digest", entry.digest, seen.digest),)
            diffs = diffs or (FieldDiff("digest", seen.digest, entry.digest),)
    action, reason = _action(resource.desired, diffs), _reason(diffs, drift)
    if resource.tracked and seen.mark != mark:
        adoptable = seen.mark is None and not seen.maker and resource.desired.adoptable
        if adoptable and adoption is not Adoption.NONE:
            action, reason = Action.ADOPT, "taken over: it has no mark"
        else:
            drift += (
                (FieldDiff("mark", mark.address, seen.mark.address if seen.mark else None),) if entry else ()
            )
            findings.refusals.append(not_ours(resource, seen.mark, seen.maker, adoptable=adoptable))
    _tell(findings, resource, seen)
    change = Change(
        resource.address,
        resource.kind,
        action,
        resource,
        seen,
        entry,
        diffs,
        drift,
        reason=reason,
        transfer=seen.transfer,
        identity=seen.identity,
    )
    if action is Action.ADOPT and change.interrupts and adoption is not Adoption.RESTART:
        findings.refusals.append(interrupting(change))
    findings.changes.append(change)


def _tell(findings: _Findings, resource: Resource[Any], seen: Observed[Any]) -> None:
    """What its driver says of it besides its state."""
    if seen.refused is not None:
        findings.refusals.append(managed(resource, seen.refused))
    if seen.note:
        text, owner = f"{resource.address}: {seen.note}", owner_of(resource.address)
        findings.diagnostics.append(note(text, resource.where, owner))


def _action(desired: State, diffs: tuple[FieldDiff, ...]) -> Action:
    if not diffs:
        return Action.NOOP
    return Action.REPLACE if any(desired.replaces(d.path) for d in diffs) else Action.UPDATE


def _reason(diffs: tuple[FieldDiff, ...], drift: tuple[FieldDiff, ...]) -> str:
    if not diffs:
        return ""
    drifted = {d.path for d in drift}
    changed = [d.path for d in diffs if d.path not in drifted]
    if not changed:
        return "drifted"
    return "changed" if not drifted else "changed and drifted"


def _remove(findings: _Findings, entry: Entry, answer: Answer, mark: Mark, why: str) -> None:
    """The deletion rule: only what is in the inventory, still carries our mark, and was read without error."""
    own = replace(mark, address=current_of(entry.address))
    action, reason = Action.DELETE, why
    seen: Observed[Any] | None = None
    match answer:
        case Unreadable():
            findings.unreadable[entry.address] = answer
            return
        case Absent():
            action, reason = Action.FORGET, f"{why}, and already gone"
        case Observed():
            seen = answer
            if seen.note and seen.mark == own and entry.on_remove != "forget":
                text = f"{said_of(entry.address)}: {seen.note}"
                findings.diagnostics.append(note(text, model=owner_of(entry.address)))
            if seen.mark != own:
                action, reason = (
                    Action.FORGET,
                    f"{why}, and no longer carries our mark: left alone",
                )
                findings.diagnostics.append(
                    warning(f"{said_of(entry.address)}: {reason}", model=owner_of(entry.address))
                )
            elif entry.on_remove == "forget":
                action, reason = Action.FORGET, f"{why}: on_remove is forget"
    if action is Action.DELETE and entry.protect:
        findings.refusals.append(
            error(
                f"{said_of(entry.address)}: is protected and would be deleted",
                hint="declare it again, or apply it once with lifecycle protect: false and then remove it",
                model=owner_of(entry.address),
            )
        )
    findings.changes.append(Change(entry.address, entry.kind, action, None, seen, entry, reason=reason))


def guard_deletes(
    changes: tuple[Change[Any], ...], owned: int, max_deletes: int | None
) -> tuple[Diagnostic, ...]:
    """Refuse a plan that deletes more than max(3, 10 %) of what we own, unless a number was given."""
    deletes = sum(1 for change in changes if change.action is Action.DELETE)
    limit = max(3, owned // 10) if max_deletes is None else max_deletes
    if deletes <= limit:
        return ()
    return (
        error(
            f"{deletes} things would be deleted, {limit} is the most",
            hint=f"if that is meant: --max-deletes {deletes}",
        ),
    )
