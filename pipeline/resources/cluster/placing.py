"""Whether a pod may go to a node: its node selector, its required node affinity, and the node's taints. Pure.

Rules are those of the scheduler of Kubernetes 1.36 (NodeAffinity, TaintToleration); what only ranks nodes is left out.
"""

from collections.abc import Mapping
from typing import Any

_FORBIDDING = ("NoSchedule", "NoExecute")
# Set by the node controller for a moment: what a node is is told by its conditions.
_PASSING = "node.kubernetes.io/"


def admits(node: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """Whether a pod with that spec may be placed there, room aside."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required and not any(
        _term(labels, str(node["metadata"]["name"]), one) for one in required["nodeSelectorTerms"]
    ):
        return False
    taints = node.get("spec", {}).get("taints") or ()
    return all(_tolerated(taint, spec.get("tolerations") or ()) for taint in taints)


def _term(labels: Mapping[str, str], name: str, term: Mapping[str, Any]) -> bool:
    fields = {"metadata.name": name}
    return all(_matches(labels, one) for one in term.get("matchExpressions") or ()) and all(
        _matches(fields, one) for one in term.get("matchFields") or ()
    )


def _matches(found: Mapping[str, str], rule: Mapping[str, Any]) -> bool:
    value, values = found.get(rule["key"]), list(rule.get("values") or ())
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _whole(value) is not None and int(str(value)) > int(values[0])
        case "Lt":
            return _whole(value) is not None and int(str(value)) < int(values[0])
        case _:  # an operator of a later version: the scheduler decides
            return True


def _whole(value: str | None) -> int | None:
    return int(value) if value is not None and value.lstrip("-").isdigit() else None


def _tolerated(taint: Mapping[str, Any], tolerations: Any) -> bool:
    if taint["effect"] not in _FORBIDDING or str(taint["key"]).startswith(_PASSING):
        return True
    return any(_tolerates(one, taint) for one in tolerations)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key, exists = toleration.get("key") or "", toleration.get("operator") == "Exists"
    if not key:
        return exists
    return bool(key == taint["key"] and (exists or toleration.get("value", "") == taint.get("value", "")))
