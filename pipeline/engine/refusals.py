"""Why a thing that was seen is not changed: the words of refusals. Pure; used by diff."""

from typing import Any

from pipeline.core.change import Change
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.resource import Mark, Resource, owner_of


def not_ours(resource: Resource[Any], mark: Mark | None, maker: str, *, adoptable: bool) -> Diagnostic:
    """It has the wanted name and another one's mark, or none. `maker`: what made it and would make it again, or ""."""
    whose = (
        f'it belongs to "{mark.project}", {mark.environment}, {mark.address}'
        if mark
        else f"{maker} made it"
        if maker
        else "it has no mark of mp"
    )
    where = ", ".join(f"{key} {value}" for key, value in sorted(resource.locator.items()))
    return error(
        f"{resource.address}: exists and is not ours: {whose} ({where})",
        resource.where,
        ("give this entry another name" if maker else "remove it by hand, or give this entry another name")
        + ("; mp plan --adopt shows what taking it over would change" if adoptable else ""),
        model=owner_of(resource.address),
    )


def interrupting(change: Change[Any]) -> Diagnostic:
    """Taking it over would restart it."""
    assert change.resource is not None, "what is taken over is wanted"
    fields = [d.path.partition("/")[2] for d in change.diffs if change.resource.desired.restarts(d.path)]
    more = f" and {len(fields) - 1} more" if fields[1:] else ""
    return error(
        f"{change.address}: taking it over would change what runs: {fields[0]}{more}",
        change.resource.where,
        "write in its entry what runs (mp import shows it), or say --adopt-restart",
        model=owner_of(change.address),
    )


def managed(resource: Resource[Any], why: str) -> Diagnostic:
    """Somebody else manages a field of it."""
    return error(
        f"{resource.address}: {why}",
        resource.where,
        "leave that field to whoever manages it, or take it: --take-from MANAGER",
        model=owner_of(resource.address),
    )
