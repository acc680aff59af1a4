"""Whether a system that answered is the one that the inventory knows by its name: a kubeconfig may have been rewritten. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.change import Change
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.protocols import Answer
from pipeline.core.resource import (
    Absent,
    Address,
    Identity,
    Observed,
    Unreadable,
    current_of,
    place_of,
)
from pipeline.store.inventory import Inventory


def checked(
    answers: Mapping[Address, Answer], inventory: Inventory
) -> tuple[dict[Address, Answer], tuple[Diagnostic, ...]]:
    """The answers, and why nothing may be done: what another system says of a known name counts as not read.

    One refusal for each system, whatever is asked of it: what is new must not go to the other one either.
    """
    seen = {one.system: one for answer in answers.values() if (one := _identity(answer))}
    strange = {
        one.system: known
        for entry in inventory.entries.values()
        if (known := entry.identity) and (one := seen.get(known.system)) and known.differs(one)
    }
    if not strange:
        return dict(answers), ()
    kept: dict[Address, Answer] = {}
    for address, answer in answers.items():
        one = _identity(answer)
        kept[address] = _unread(one.system) if one and one.system in strange else answer
    return kept, tuple(_refusal(strange[name], seen[name], inventory) for name in sorted(strange))


def identity_of(change: Change[Any]) -> Identity | None:
    """What is known of the system of a change afterwards: as it was seen, with what this account may not ask."""
    known = change.entry.identity if change.entry else None
    if change.identity is None or known is None:
        return change.identity or known
    return replace(change.identity, uid=change.identity.uid or known.uid)


def _identity(answer: Answer) -> Identity | None:
    return answer.identity if isinstance(answer, Observed | Absent) else None


def _unread(system: str) -> Unreadable:
    return Unreadable(f"{system} is not the one that was applied to")


def _refusal(known: Identity, seen: Identity, inventory: Inventory) -> Diagnostic:
    way = "name the right one"
    if known.uid and seen.uid:
        is_now, was = f"uid {seen.uid}", f"uid {known.uid}"
    else:
        is_now, was = f"authority {seen.authority[:12]}", f"authority {known.authority[:12]}"
    if known.uid and not seen.uid:  # new certificates are no new cluster
        way += ", or let this account get the namespace kube-system, whose uid tells clusters with new certificates apart"
    there = (a for a, e in inventory.entries.items() if e.identity and e.identity.system == known.system)
    places = sorted({place for address in there if (place := place_of(current_of(address)))})
    return error(
        f"{seen.system}: another one answers by this name than the one that was applied to: {is_now}, not {was}",
        hint=f"{way}; if it was replaced for good: mp forget {' '.join(places)} (what runs in the old one "
        "is left alone), then plan again",
    )
