"""What every object of the API says of itself: labels, met conditions, whether it leaves. Pure; used by all that read objects."""

from collections.abc import Mapping
from typing import Any


def labels_in(one: Mapping[str, Any]) -> Mapping[str, str]:
    """{} where it has none."""
    found: Mapping[str, str] = (one.get("metadata") or {}).get("labels") or {}
    return found


def met(one: Mapping[str, Any], condition: str) -> Mapping[str, Any] | None:
    """The condition of that type where it is true: "Ready" of a pod or a node, "Complete" of a Job."""
    found = (one.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each["type"] == condition and each["status"] == "True"), None)


def controller_of(one: Mapping[str, Any]) -> str:
    """ "Workspace/qwen" that made it and would make it again; "" where nothing does."""
    owners = one["metadata"].get("ownerReferences") or ()
    return next((f"{each['kind']}/{each['name']}" for each in owners if each.get("controller")), "")


def is_leaving(one: Mapping[str, Any]) -> bool:
    """It is being deleted: its grace period runs, or a finalizer holds it."""
    return "deletionTimestamp" in one["metadata"]


def record(found: Any) -> dict[str, Any]:
    """What is found where a mapping belongs; {} where it is none."""
    return found if isinstance(found, dict) else {}
