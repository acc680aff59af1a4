"""Replicas that each own a volume: the image that filled them stays, and what becomes of volumes is told. Used by looking and driver."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.clients.kube import CLAIM, STATEFUL_SET, Cluster, Object
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError
from pipeline.core.resource import Resource
from pipeline.resources.cluster.fields import is_leaving, labels_in, record
from pipeline.resources.cluster.filling import CONTAINER
from pipeline.resources.cluster.live import OURS, Live
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.standing import in_the_way
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import INSTANCE

_KEPT = "its set does not say whenDeleted: Delete, so remove what is not needed by hand"
_ANEW = "the model does not answer until new ones are filled"
INDEX = "-"  # before the number at the end of a volume's name: "weights-qwen-2"


def with_its_filler(resource: Resource[ClusterState], live: Live) -> Resource[ClusterState]:
    """The same resource; where nothing else of its pods changes, with the image that filled their volumes.

    Every mp has an image of its own for that, and a newer mp is no reason to restart what serves.
    """
    found = {key: one for key, one in resource.desired.objects.items() if _is_set(key) and key in live}
    changed = {key: _kept(record(one), live[key]) for key, one in found.items()}
    if all(changed[key] is found[key] for key in found):
        return resource
    objects = {**resource.desired.objects, **changed}
    return replace(resource, desired=replace(resource.desired, objects=objects))


def volumes_lost(cluster: Cluster, namespace: str, own: Live, wanted: Mapping[str, Json]) -> str:
    """What a plan says of volumes that go with what it does, or that stay without a set; "" where neither is so."""
    for key, one in own.items():
        if not _is_set(key):
            continue
        stays = key in wanted and key not in in_the_way({key: wanted[key]}, {key: one}, partial=False)
        first = _left(one, record(wanted[key])) if stays else 0
        if first is None:
            continue
        goes = stays or _policy(one).get("whenDeleted") == "Delete"
        try:
            names = _volumes(cluster, namespace, one, first)
        except BackendError:  # not to be seen: their number is not known then
            return f"volumes of {key} go with it" if goes else f"volumes of {key} stay: {_KEPT}"
        if names:
            anew = key in wanted and not stays
            return _said(names, goes=goes) + (f": {_ANEW}" if anew else "")
    return ""


def _said(names: Sequence[str], *, goes: bool) -> str:
    several, listed = len(names) > 1, ", ".join(names)
    if goes:
        return f"{len(names)} {'volumes go' if several else 'volume goes'} with what is in it: {listed}"
    return f"{len(names)} {'volumes stay' if several else 'volume stays'}: {listed}: {_KEPT}"


def _policy(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """What becomes of volumes; {} on a server that does not know the field (before Kubernetes 1.27), which keeps them."""
    return record(record(one.get("spec")).get("persistentVolumeClaimRetentionPolicy"))


def _left(live: Object, wanted: Mapping[str, Any]) -> int | None:
    """The number of the first replica that goes with its volume; None where none does. The new policy is there by then."""
    before, after = live["spec"].get("replicas", 1), wanted["spec"].get("replicas")
    scaled = _policy(wanted).get("whenScaled")
    return after if scaled == "Delete" and after is not None and after < before else None


def _volumes(cluster: Cluster, namespace: str, one: Object, first: int) -> list[str]:
    """The volumes of the replicas from that number on."""
    name = str(one["metadata"]["name"])
    stems = [f"{each['metadata']['name']}-{name}" for each in one["spec"].get("volumeClaimTemplates") or ()]
    found = []
    for claim in cluster.list(CLAIM, namespace, f"{OURS},{INSTANCE}={labels_in(one).get(INSTANCE)}"):
        stem, _, number = str(claim["metadata"]["name"]).rpartition(INDEX)
        if stem in stems and number.isdecimal() and int(number) >= first and not is_leaving(claim):
            found.append((int(number), str(claim["metadata"]["name"])))
    return [each for _, each in sorted(found)]


def _kept(wanted: dict[str, Any], live: Object) -> dict[str, Any]:
    """The wanted object with the live one's filler, where its pods are the same but for that; else as it is."""
    seen = record(shaped(live, wanted))
    image = _filler(seen)
    if image is None or _filler(wanted) in (None, image):
        return wanted
    kept = copy.deepcopy(wanted)
    for one in kept["spec"]["template"]["spec"]["initContainers"]:
        if one["name"] == CONTAINER:
            one["image"] = image
    return kept if kept["spec"]["template"] == seen["spec"].get("template") else wanted


def _filler(one: Mapping[str, Any]) -> str | None:
    pod = record(record(record(one.get("spec")).get("template")).get("spec"))
    return next(
        (each.get("image") for each in pod.get("initContainers") or () if each["name"] == CONTAINER), None
    )


def _is_set(key: str) -> bool:
    return key.partition("/")[0] == STATEFUL_SET.name
