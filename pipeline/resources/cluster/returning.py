"""Versions that come back while their pods are still there: nothing comes beside those. Pure; used by turns and preflight.

So goes what somebody edited into pods that never start: a Deployment's controller keeps the ReplicaSet of the version before
until the pods of the new one are available (Kubernetes 1.36).
"""

from collections.abc import Callable, Iterable

from pipeline.clients.kube import Object


def comes_back(wanted: Object, sets: Iterable[Object], differs: Callable[[Object, Object], bool]) -> bool:
    """Whether as many pods as are wanted serve already in a ReplicaSet of the wanted version.

    `wanted` says how many run now where replicas are an autoscaler's (`ignoring.settled`, `preflight.replicas`).
    `differs`: of a Deployment as it is wanted, and as it was when that ReplicaSet was made. Other kinds keep no pods.
    """
    replicas = int((wanted.get("spec") or {}).get("replicas", 1))
    return wanted["kind"] == "Deployment" and any(
        int((one.get("status") or {}).get("availableReplicas", 0)) >= replicas
        and not differs(wanted, {**wanted, "spec": {**wanted["spec"], "template": one["spec"]["template"]}})
        for one in sets
        if _is_of(one, wanted)
    )


def _is_of(one: Object, wanted: Object) -> bool:
    owners = one["metadata"].get("ownerReferences") or ()
    place = (wanted["metadata"].get("namespace"), wanted["metadata"]["name"])
    return any((one["metadata"].get("namespace"), owner.get("name")) == place for owner in owners)
