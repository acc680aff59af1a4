"""Fields of a workload that others set and mp does not: a variable, a sidecar, a node selector that came by `kubectl edit`. Pure.

mp's own fields are compared and brought back. A field that mp never wrote is not its to remove, and still somebody will ask
why pods differ from what is declared: so a plan names it, with who set it. `metadata.managedFields` knows that
(server-side apply, Kubernetes 1.22 and later; an entry with a subresource is a status or an autoscaler's scale).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.clients.kube import MANAGER
from pipeline.core.digest import Json
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.workloads import workloads_in

MOST = 3  # fields that are named of one manager
# `kubectl rollout restart` leaves an annotation on the template; replicas are an autoscaler's, or drift that is seen.
_LEFT = ("spec.replicas", "spec.template.metadata")
_COUNTS = "spec."  # a Workspace of KAITO has none: what somebody writes there is its own declaration

Fields = Mapping[str, Any]  # FieldsV1: {"f:spec": {"f:template": {…}}}


def added(live: Live, sent: Mapping[str, Json]) -> str:
    """What others added to the workloads of one deployment, for a plan's note; "" where nobody did.

    `sent`: the objects that mp applies. Whoever changes one of their values is its manager then: that is drift, told as such.
    """
    told = []
    for key in sorted(workloads_in(live)):
        found: dict[str, list[str]] = {}
        for manager, fields in _entries(live[key]):
            paths = [path for path in _paths(fields, sent.get(key), "") if _counts(path)]
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


def _paths(fields: Fields, ours: Json, above: str) -> Iterator[str]:
    """Every field that ours lack; what is added as a whole is named once, a list by its items."""
    for name, below in fields.items():
        if name == "." or name.startswith("v:"):
            continue
        path = f"{above}{_written(name)}".removeprefix(".")
        same = _below(ours, name)
        if same is None:
            items = [item for item in below if item.startswith("k:")]
            yield from (path + _written(item) for item in items) if items else (path,)
        else:
            yield from _paths(below, same, path)


def _below(ours: Json, name: str) -> Json:
    """What we have under a FieldsV1 name; None: nothing."""
    kind, _, rest = name.partition(":")
    if kind == "f" and isinstance(ours, Mapping):
        return ours.get(rest)
    if kind == "k" and isinstance(ours, list | tuple):
        keys: Mapping[str, Json] = json.loads(rest)
        return next((one for one in ours if _fits(one, keys)), None)
    return None


def _fits(one: Json, keys: Mapping[str, Json]) -> bool:
    """A key with a default, such as a port's protocol, may be left out of what is sent."""
    return isinstance(one, Mapping) and all(one.get(key, value) == value for key, value in keys.items())


def _written(name: str) -> str:
    """ "f:env" as ".env", k:{"name":"DEBUG"} as "[DEBUG]"."""
    kind, _, rest = name.partition(":")
    if kind != "k":
        return f".{rest}"
    return "[" + ",".join(str(value) for value in json.loads(rest).values()) + "]"


def _counts(path: str) -> bool:
    return path.startswith(_COUNTS) and not path.startswith(_LEFT)


def _some(paths: list[str]) -> str:
    named = ", ".join(paths[:MOST])
    return f"{named} and {len(paths) - MOST} more" if len(paths) > MOST else named
