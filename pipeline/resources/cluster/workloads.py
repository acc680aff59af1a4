"""The kinds of objects that run pods: how each is, and which pods are of its present version. Pure; used by live and rollout.

A kind that is new here is one entry of WORKLOADS. Conditions are those of Kubernetes 1.36.
"""

from collections.abc import Callable, Iterable, Mapping

from pipeline.clients.kube import (
    DEPLOYMENT,
    INFERENCE_SET,
    LEADER_WORKER_SET,
    STATEFUL_SET,
    WORKSPACE,
    Kind,
)
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.resources.cluster.fields import is_leaving
from pipeline.resources.cluster.groups import group_health, group_pods
from pipeline.resources.cluster.health import Health, Object, Word, said
from pipeline.resources.cluster.kaito import (
    GONE_S,
    by_set,
    by_workspace,
    set_health,
    set_pods,
    workspace_health,
    workspace_pods,
)
from pipeline.resources.cluster.sets import FIXED, replicas_health, replicas_pods

HASH = "pod-template-hash"
INSTANCE = "app.kubernetes.io/instance"


@frozen
class Workload:
    """A kind of object that runs pods."""

    kind: Kind
    health: Callable[[Object], Health]  # what its own status says
    pods: Callable[[Object, Iterable[Object], Iterable[Object]], list[Object]]
    selector: Callable[[str], str]  # the workload's name → a label selector of its pods
    labelled: bool = True  # its pods bear our labels
    fixed: tuple[str, ...] = ()  # fields of its spec that never change, besides the selector: it is made anew
    renamed: bool = False  # an object never changes: another version is another object, with another name
    gone_s: float = 180.0  # how long it may take to be gone: grace periods, and what a node needs for them

    def health_of(self, one: Object | None) -> Health:
        return Health(Word.MISSING, f"there is no {self.kind.name}") if one is None else self.health(one)


def deployment_health(deployment: Object) -> Health:
    """What the Deployment's own status says."""
    spec, status = deployment["spec"], deployment.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    if spec.get("paused"):
        return Health(Word.SUSPENDED, "it is paused, kubectl rollout resume starts it again")
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return Health(Word.PROGRESSING, "its controller has not seen it yet")
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    available = status.get("availableReplicas", 0)
    if (
        wanted <= updated
        and updated == status.get("replicas", 0) == available
        and not status.get("unavailableReplicas")
    ):
        return Health(Word.HEALTHY)
    for kind in ("ReplicaFailure", "Progressing"):  # a quota, an admission; the deadline
        one = conditions.get(kind, {})
        if one.get("status") == ("True" if kind == "ReplicaFailure" else "False"):
            return Health(Word.DEGRADED, said(one))
    if updated < wanted or status.get("replicas", 0) > updated:
        return Health(Word.PROGRESSING, f"{updated} of {wanted} pods are of this version")
    return Health(Word.PROGRESSING, f"{available} of {wanted} pods are ready")


def deployment_pods(
    deployment: Object, replica_sets: Iterable[Object], pods: Iterable[Object]
) -> list[Object]:
    """The pods of the version that is wanted now, those that are to stay.

    Its ReplicaSet is told by the template, as the controller does: the revision is older for as long as nothing is made.
    """
    current = [
        one["metadata"]["uid"]
        for one in replica_sets
        if _owned(one, deployment["metadata"]["uid"]) and _template(one) == _template(deployment)
    ]
    return [pod for pod in pods if not is_leaving(pod) and any(_owned(pod, uid) for uid in current)]


def _template(one: Object) -> Object:
    """Of the pods, without the label that the controller adds."""
    template = one["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    return {"metadata": {**metadata, "labels": labels}, "spec": template["spec"]}


def _owned(one: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in one["metadata"].get("ownerReferences") or ())


def _by_instance(name: str) -> str:
    return f"{INSTANCE}={name}"


WORKLOADS: Mapping[str, Workload] = {
    "Deployment": Workload(DEPLOYMENT, deployment_health, deployment_pods, _by_instance),
    "StatefulSet": Workload(STATEFUL_SET, replicas_health, replicas_pods, _by_instance, fixed=FIXED),
    "LeaderWorkerSet": Workload(LEADER_WORKER_SET, group_health, group_pods, _by_instance),
    "Workspace": Workload(
        WORKSPACE, workspace_health, workspace_pods, by_workspace, labelled=False, renamed=True, gone_s=GONE_S
    ),
    "InferenceSet": Workload(
        INFERENCE_SET, set_health, set_pods, by_set, labelled=False, renamed=True, gone_s=GONE_S
    ),
}


def workload_in(objects: Mapping[str, Json] | Mapping[str, Object]) -> str | None:
    """The key of the one that runs pods, "Deployment/qwen"; None where there is none."""
    return next((key for key in objects if key.partition("/")[0] in WORKLOADS), None)


def workloads_in(objects: Mapping[str, Json] | Mapping[str, Object]) -> tuple[str, ...]:
    """All of them: a canary is one more."""
    return tuple(key for key in objects if key.partition("/")[0] in WORKLOADS)


def gone_s_of(kind: str) -> float:
    """How long an object of any kind may take to be gone."""
    return WORKLOADS[kind].gone_s if kind in WORKLOADS else WORKLOADS["Deployment"].gone_s


def renamed_in(keys: Iterable[str]) -> tuple[str, ...]:
    """Those of objects that never change: another version has another name."""
    return tuple(
        key for key in keys if (kind := key.partition("/")[0]) in WORKLOADS and WORKLOADS[kind].renamed
    )


def workload_of(key: str) -> Workload:
    return WORKLOADS[key.partition("/")[0]]
