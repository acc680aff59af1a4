"""What others made and mp takes over: which objects have to go first, what is sent back after a failure. Pure, but for `take`."""

from collections.abc import Mapping
from typing import Any

from pipeline.clients.kube import KINDS, Object
from pipeline.core.digest import Json
from pipeline.core.errors import Refused
from pipeline.resources.cluster.applying import put
from pipeline.resources.cluster.fields import record
from pipeline.resources.cluster.live import Live, labelled
from pipeline.resources.cluster.marks import key_of, mark_of
from pipeline.resources.cluster.rollout import Rollout
from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.workloads import WORKLOADS

# What the server and the Deployment's controller keep there themselves; Kubernetes 1.36.
_OF_THE_SERVER = ("name", "namespace", "labels", "annotations")
_REVISION = "deployment.kubernetes.io/revision"


def take(rollout: Rollout, objects: Mapping[str, Json], live: Live, digests: dict[str, str]) -> Live:
    """Write our mark, and with it the fields that are equal. Raises Refused when pods would restart after all."""
    made = {}
    for one in ordered(objects):
        key, whole = key_of(one), written(one, digests)
        if key in live:
            would_be = put(rollout.cluster, whole, dry_run=True, take_from=rollout.take_from)
            if _runs(would_be) != _runs(live[key]):
                text = f"{rollout.system}: {key} was changed since it was planned, and its pods would restart"
                raise Refused(text, "run mp plan --adopt again")
        made[key] = put(rollout.cluster, whole, take_from=rollout.take_from)
    return made


def in_the_way(objects: Mapping[str, Json], live: Live, *, partial: bool) -> Live:
    """What has to be deleted before the objects can be written: a selector never changes, and of what others made in our
    form their own fields would stay beside ours. Nothing of it where mp writes only a `partial` object.
    """
    if partial:
        return {}
    return {
        key: one
        for key, one in live.items()
        if key in objects and (mark_of(one) is None or _is_fixed(key, one, objects[key]))
    }


def restored(one: Object) -> Object:
    """An object that was deleted, as it can be made again."""
    metadata = {key: value for key, value in one["metadata"].items() if key in _OF_THE_SERVER}
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {key: value for key, value in annotations.items() if key != _REVISION}
    return {**{key: value for key, value in one.items() if key != "status"}, "metadata": metadata}


def as_found(objects: Mapping[str, Json], live: Live) -> dict[str, Any]:
    """The objects with what the live ones say in their fields: how they were before mp changed them."""
    return {
        key: {**record(shaped(live[key], record(one))), "metadata": record(one)["metadata"]}
        for key, one in objects.items()
        if key in live
    }


def unlabelled(objects: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of objects that no list by our label gives: others made them."""
    return tuple(
        key for key, one in objects.items() if key.partition("/")[0] in KINDS and not labelled(record(one))
    )


def template_of(one: Object) -> Json:
    return (one.get("spec") or {}).get("template")


def _runs(one: Object) -> Json:
    """What of an object makes its pods anew: of a Workspace all that KAITO reads."""
    return [template_of(one), one.get("resource"), one.get("inference")]


def _is_fixed(key: str, one: Object, wanted: Json) -> bool:
    """Whether the selector of what runs pods would change, or what else is fixed in it; a Service's may."""
    if (kind := key.partition("/")[0]) not in WORKLOADS:
        return False
    seen = shaped(one, record(wanted))
    fixed = WORKLOADS[kind].fixed
    return _field(one, "selector") != _field(wanted, "selector") or any(
        _field(seen, name) != _field(wanted, name) for name in fixed
    )


def _field(one: Any, name: str) -> Json:
    return (record(one).get("spec") or {}).get(name)
