"""How far a changed engine reaches: the images that are made again for it and the deployments that restart. Used by the plan's view."""

from collections.abc import Mapping
from typing import Any

from pipeline.cli.views import units
from pipeline.core.change import Action, Change
from pipeline.core.plan import Plan
from pipeline.core.resource import Address, owner_of

_ANEW = (Action.UPDATE, Action.REPLACE)
_SAME = frozenset({"signed", "version_tag", "digest"})  # fields of an image that others do not see


def reach(plan: Plan) -> Mapping[Address, str]:
    """For engines and environments that change, by address: "makes 37 images again, restarts 37 models"; nothing for new users."""
    users: dict[Address, list[Address]] = {}
    for address, needs in plan.needs.items():
        for need in needs:
            users.setdefault(need, []).append(address)
    anew = {change.address: change for change in plan.active if _is_anew(change)}
    found = {}
    for change in plan.active:
        if not change.address.startswith("@"):
            continue
        reached = [anew[where] for where in _closure(change.address, users) if where in anew]
        images = [one for one in reached if one.resource and one.resource.keep]
        models = {owner_of(one.address) for one in reached if one.resource and not one.resource.keep}
        words = [f"makes {units.counted(len(images), 'image')} again"] if images else []
        words += [f"restarts {units.counted(len(models), 'model')}"] if models else []
        found[change.address] = ", ".join(words)
    return found


def _is_anew(change: Change[Any]) -> bool:
    """An image that is only signed or tagged again stays what it is."""
    kept = change.resource is not None and change.resource.keep
    return change.action in _ANEW and not (kept and _SAME.issuperset(diff.path for diff in change.diffs))


def _closure(start: Address, users: Mapping[Address, list[Address]]) -> list[Address]:
    """Everything that needs it, directly or through something else."""
    found: dict[Address, None] = {}
    waiting = list(users.get(start, ()))
    while waiting:
        if (where := waiting.pop()) not in found:
            found[where] = None
            waiting += users.get(where, ())
    return list(found)
