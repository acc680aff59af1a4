"""Fields of a workload that others set and mp does not: a variable, a sidecar, a node selector that came by `kubectl edit`. Pure.

mp's own fields are compared and brought back. A field that mp never wrote is not its to remove, and still somebody will ask
why pods differ from what is declared: so a plan names it, with who set it. `metadata.managedFields` knows that
(server-side apply, Kubernetes 1.22 and later; an entry with a subresource is a status or an autoscaler's scale).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.clients.kube import MANAGER
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.workloads import workloads_in

MOST = 3  # fields that are named of one manager
# `kubectl rollout restart` leaves an annotation on the template; replicas are an autoscaler's, or drift that is seen.
_LEFT = ("spec.replicas", "spec.template.metadata")

Fields = Mapping[str, Any]  # FieldsV1: {"f:spec": {"f:template": {…}}}


def added(live: Live) -> str:
    """What others added to the workloads of one deployment, for a plan's note; "" where nobody did."""
    told = []
    for key in sorted(workloads_in(live)):
        found: dict[str, list[str]] = {}
        entries = _entries(live[key])
        ours = [fields for manager, fields in entries if manager == MANAGER]
        for manager, fields in entries:
            paths = [path for path in _paths(fields, ours, "") if _counts(path)]
            if manager != MANAGER and paths:
                found.setdefault(manager, []).extend(paths)
        told += [f"{manager} added {_some(paths)} to {key}" for manager, paths in sorted(found.items())]
    return "; ".join(told)


def _entries(one: Mapping[str, Any]) -> list[tuple[str, Fields]]:
    return [
        (str(entry.get("manager")), entry.get("fieldsV1") or {})
        for entry in one["metadata"].get("managedFields") or ()
        if not entry.get("subresource")
    ]


def _paths(fields: Fields, ours: list[Fields], above: str) -> Iterator[str]:
    """Everything that is in none of ours; what is added as a whole is named once, a list by its items."""
    for name, below in fields.items():
        if name == "." or name.startswith("v:"):
            continue
        path = f"{above}{_written(name)}".removeprefix(".")
        same = [one[name] for one in ours if name in one]
        if not same:
            items = [item for item in below if item.startswith("k:")]
            yield from (path + _written(item) for item in items) if items else (path,)
        elif below and all(same):  # {}: ours as one value
            yield from _paths(below, same, path)


def _written(name: str) -> str:
    """ "f:env" as ".env", k:{"name":"DEBUG"} as "[DEBUG]"."""
    kind, _, rest = name.partition(":")
    if kind != "k":
        return f".{rest}"
    return "[" + ",".join(str(value) for value in json.loads(rest).values()) + "]"


def _counts(path: str) -> bool:
    return path.startswith("spec.") and not path.startswith(_LEFT)


def _some(paths: list[str]) -> str:
    named = ", ".join(paths[:MOST])
    return f"{named} and {len(paths) - MOST} more" if len(paths) > MOST else named
