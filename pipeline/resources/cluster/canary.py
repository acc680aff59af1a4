"""A canary: one pod of a new version beside those of the good one, in a Deployment of its own. Pure; used by driver.

Its pods bear the label that the Service selects, and another instance label than those of the good version, so that no
Deployment's selector fits the other's pods. What its pods read (the ConfigMap of its launch) comes with it.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.digest import Json, fingerprint
from pipeline.core.errors import MpError
from pipeline.core.resource import Resource, Trial, fields_of
from pipeline.resources.cluster.ignoring import without
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.marks import OBJECT, SERVES
from pipeline.resources.cluster.state import ClusterState, objects_in, recipe_of
from pipeline.resources.cluster.workloads import INSTANCE, workload_in

SUFFIX = "-canary"


def beside(wanted: Resource[ClusterState], good: Resource[ClusterState]) -> Resource[ClusterState] | None:
    """The objects of the good version, and a canary of the wanted one.

    None where no pod would be made anew, or none serves. Raises MpError where the Service would not find the canary.
    """
    recipe = recipe_of(wanted)
    new, old = (objects_in(without(one.desired.objects, recipe.ignored)) for one in (wanted, good))
    key = workload_in(new)
    if key is None or key not in old or _is_same(new[key], old[key]) or _replicas(old[key]) == 0:
        return None
    if SERVES not in _labels(old[key]):
        raise MpError(
            f"{wanted.address}: what runs was applied without strategy: canary, so no canary can serve beside it",
            "apply the strategy first, with everything else as it was; then the new version",
        )
    name = canary_key(recipe.name)
    maps = {key: one for key, one in new.items() if one["kind"] == "ConfigMap"}
    objects: dict[str, Json] = {**maps, **good.desired.objects, name: _canary(new[key], recipe.name)}
    digests = {**recipe_of(good).digests, **recipe.digests}
    desired = ClusterState(objects, replace(recipe, tried=name, digests=digests))
    return replace(wanted, desired=desired, trial=_trial(wanted, old[key]))


def canary_key(name: str) -> str:
    """ "Deployment/qwen-canary" of "qwen"."""
    return f"Deployment/{name}{SUFFIX}"


def leaving(before: Live, wanted: Mapping[str, Json], name: str) -> dict[str, Object]:
    """The canary that is not wanted any more: it makes room for what takes its place."""
    key = canary_key(name)
    return {key: before[key]} if key in before and key not in wanted else {}


def _canary(one: Mapping[str, Any], name: str) -> dict[str, Json]:
    """The Deployment of the new version, under another name, with one pod. Another one takes its place: it is alone."""
    made = copy.deepcopy(dict(one))
    key, metadata, spec = canary_key(name), made["metadata"], made["spec"]
    metadata["name"] = name + SUFFIX
    metadata["annotations"][OBJECT] = key
    instance = {INSTANCE: name + SUFFIX}
    spec["replicas"] = 1
    spec["strategy"] = {"type": "Recreate"}
    spec["selector"] = {"matchLabels": spec["selector"]["matchLabels"] | instance}
    spec["template"]["metadata"]["labels"] |= instance
    return made


def _trial(wanted: Resource[ClusterState], old: Mapping[str, Any]) -> Trial:
    count = _replicas(old)
    words = f"1 pod of the new version beside {'those' if count is None else count} of the old"
    return Trial(fingerprint(fields_of(wanted.desired)), words, wanted.contents)


def _is_same(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """The same pods, but for the label that strategy: canary adds."""
    return _unlabelled(new) == _unlabelled(old)


def _unlabelled(one: Mapping[str, Any]) -> Json:
    """Its template; of one that others made, metadata may be missing."""
    template: dict[str, Any] = one["spec"].get("template") or {}
    labels = {key: value for key, value in _labels(one).items() if key != SERVES}
    return {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}}


def _labels(one: Mapping[str, Any]) -> Mapping[str, Json]:
    template = one["spec"].get("template") or {}
    found: Mapping[str, Json] = (template.get("metadata") or {}).get("labels") or {}
    return found


def _replicas(one: Mapping[str, Any]) -> int | None:
    """None where an autoscaler sets them."""
    found = one["spec"].get("replicas")
    return None if found is None else int(found)
