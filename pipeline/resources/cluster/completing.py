"""Workspaces and InferenceSets that others made, where an entry says a part of one: what is sent, and what is made anew. Pure.

Two things differ from a Deployment. KAITO changes nothing of them, so another preset is the object deleted and made again, with
all that the entry does not say. And its definition does not say by what the containers of a pod template are told apart, so the
server takes their list as one value: it is sent whole.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.digest import Json
from pipeline.core.resource import Resource
from pipeline.resources.cluster.fields import record
from pipeline.resources.cluster.ignoring import settled
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.standing import restored
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import renamed_in

_NAMED = ("containers", "env")  # lists whose items are told apart by their names


def completed(resource: Resource[ClusterState], live: Live) -> Resource[ClusterState]:
    """The same, with what mp wrote of the live object before and the entry does not say: that stays as it is."""
    keys = _standing_in(resource, live)
    if not keys or resource.watched:
        return resource
    wanted = resource.desired.objects
    whole = {key: _completed(live[key], record(wanted[key])) for key in keys}
    return replace(resource, desired=replace(resource.desired, objects={**wanted, **whole}))


def made_anew(resource: Resource[ClusterState], live: Live) -> Live:
    """Live objects that differ from the wanted ones in what KAITO never changes, but for fields that are left to others."""
    recipe, wanted = resource.desired.recipe, resource.desired.objects
    wanted = settled(wanted, wanted, live, recipe.ignored if recipe else ())
    return {
        key: live[key]
        for key in _standing_in(resource, live)
        if _runs(shaped(live[key], record(wanted[key]))) != _runs(wanted[key])
    }


def why_anew(resource: Resource[ClusterState], live: Live) -> str:
    """What a plan says of them; "" where nothing is made anew."""
    keys = ", ".join(made_anew(resource, live))
    gone = f"{keys} is deleted with the nodes that KAITO made for it, and made again: nothing answers until it is ready"
    return f"KAITO changes nothing of what runs: {gone}" if keys and not resource.watched else ""


def whole(removed: Live, sent: Mapping[str, Json]) -> dict[str, Json]:
    """What is sent, with all that the removed objects had."""
    again = {key: _over(restored(removed[key]), one) for key, one in sent.items() if key in removed}
    return {**sent, **again}


def _standing_in(resource: Resource[ClusterState], live: Live) -> list[str]:
    recipe = resource.desired.recipe
    if recipe is None or not recipe.standing:
        return []
    return [key for key in renamed_in(resource.desired.objects) if key in live]


def _completed(live: Object, wanted: dict[str, Any]) -> Json:
    containers, said = _pod(live).get("containers"), _pod(wanted).get("containers")
    if isinstance(containers, list) and isinstance(said, list):
        wanted = copy.deepcopy(wanted)
        _pod(wanted)["containers"] = _over(containers, said, "containers")
    found: Json = _over(shaped(live, wanted), wanted)
    return found


def _inference(one: Mapping[str, Any]) -> dict[str, Any]:
    """Of a Workspace, or of what an InferenceSet makes its Workspaces from."""
    return record(one.get("inference") or record(record(one.get("spec")).get("template")).get("inference"))


def _pod(one: Mapping[str, Any]) -> dict[str, Any]:
    return record(record(_inference(one).get("template")).get("spec"))


def _runs(one: Any) -> Any:
    """All but names, marks and the number of replicas."""
    said = {key: value for key, value in record(one).items() if key != "metadata"}
    spec = {key: value for key, value in record(said.get("spec")).items() if key != "replicas"}
    return {**said, "spec": spec}


def _over(base: Any, wanted: Any, key: str = "") -> Any:
    """`wanted` laid over `base`; containers and variables are told apart by their names."""
    if isinstance(base, dict) and isinstance(wanted, dict):
        return {**base, **{name: _over(base.get(name), value, name) for name, value in wanted.items()}}
    if key not in _NAMED or not isinstance(base, list):
        return wanted
    asked, known = {one["name"]: one for one in wanted}, {one["name"] for one in base}
    there = [one if one["name"] not in asked else _laid(one, asked[one["name"]], key) for one in base]
    return there + [one for one in wanted if one["name"] not in known]


def _laid(base: Any, wanted: Any, key: str) -> Any:
    """A variable is one value: a text takes the place of a reference."""
    return _over(base, wanted) if key == "containers" else wanted
