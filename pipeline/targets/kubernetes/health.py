"""How a deployment is, from what the cluster says: one of six words, and why. Pure.

The words are those of Argo CD's resource health. Conditions and reasons are those of Kubernetes 1.36
(Deployment status, container states of the kubelet, events of scheduler and kubelet).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

Object: TypeAlias = Mapping[str, Any]  # Any: an object of the API, as its schema has it

# Reasons of a container that waits, which do not pass by waiting.
STUCK = frozenset(
    (
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    )
)
# Events of cluster-autoscaler and Karpenter: a node for the pod is on its way.
NODE_COMES = frozenset(("TriggeredScaleUp", "Nominated"))
NOT_MOUNTED = frozenset(("FailedMount", "FailedAttachVolume"))
PATIENCE_S = 15.0  # for a node or a volume that is free in a moment
HASH = "pod-template-hash"


class Word(StrEnum):
    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"  # it is paused: nothing is rolled out
    MISSING = "Missing"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Health:
    word: Word
    reason: str = ""

    def __str__(self) -> str:
        """As a state has it: "Healthy", "Degraded: 1 of 2 pods is ready"."""
        return f"{self.word}: {self.reason}" if self.reason else str(self.word)


@dataclass(frozen=True)
class Trouble:
    """What keeps one pod from serving."""

    pod: str
    reason: str  # "ImagePullBackOff: …", in the words of whoever said it
    lasting: bool  # waiting does not help
    container: str = ""  # whose log tells more
    previous: bool = False  # the log is that of the container that ended


def health_of(deployment: Object | None) -> Health:
    """What the Deployment's own status says."""
    if deployment is None:
        return Health(Word.MISSING, "there is no Deployment")
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
            return Health(Word.DEGRADED, _said(one))
    if updated < wanted or status.get("replicas", 0) > updated:
        return Health(Word.PROGRESSING, f"{updated} of {wanted} pods are of this version")
    return Health(Word.PROGRESSING, f"{available} of {wanted} pods are ready")


def pods_of(deployment: Object, replica_sets: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    """The pods of the version that is wanted now, those that are to stay.

    Its ReplicaSet is told by the template, as the controller does: the revision is older for as long as nothing is made.
    """
    current = [
        one["metadata"]["uid"]
        for one in replica_sets
        if _owned(one, deployment["metadata"]["uid"]) and _template(one) == _template(deployment)
    ]
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"] and any(_owned(pod, uid) for uid in current)
    ]


def _template(one: Object) -> Object:
    """Of the pods, without the label that the controller adds."""
    template = one["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH}
    return {"metadata": {**metadata, "labels": labels}, "spec": template["spec"]}


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def troubles(pods: Iterable[Object], events: Sequence[Object], now: datetime) -> list[Trouble]:
    """What is wrong with each pod that does not serve, what lasts first."""
    found = [one for pod in pods if (one := _trouble(pod, events, now)) is not None]
    return sorted(found, key=lambda one: not one.lasting)


def _trouble(pod: Object, events: Sequence[Object], now: datetime) -> Trouble | None:
    name = str(pod["metadata"]["name"])
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if (found := _container(name, container)) is not None:
            return found
    if is_ready(pod):
        return None
    own = [one for one in events if one.get("involvedObject", {}).get("uid") == pod["metadata"]["uid"]]
    waits_long = _age_s(pod, now) > PATIENCE_S
    if (words := _unscheduled(pod)) is not None:
        comes = any(one.get("reason") in NODE_COMES for one in own)
        return Trouble(name, f"Unschedulable: {words}", waits_long and not comes)
    mounts = [one for one in own if one.get("reason") in NOT_MOUNTED]
    if mounts and not _has_started(pod):
        return Trouble(name, f"{mounts[-1]['reason']}: {mounts[-1].get('message', '')}", waits_long)
    return None


def _container(pod: str, status: Object) -> Trouble | None:
    """A container that ended is no good: an engine that fails needs minutes to fail again."""
    name, state = str(status["name"]), status.get("state") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    waiting = state.get("waiting") or {}
    if ended and not status.get("ready"):
        return Trouble(pod, _end(ended), True, name, previous="terminated" not in state)
    if waiting.get("reason") in STUCK:
        return Trouble(pod, _said(waiting), True, name)
    return None


def _end(ended: Object) -> str:
    match ended.get("reason"):
        case "OOMKilled":
            return "OOMKilled: it used more memory than its limit"
        case "Error" | "Completed" | None:
            return f"the server ended with exit code {ended.get('exitCode')}"
        case reason:  # StartError, ContainerCannotRun: there is no log
            return f"{reason}: {ended.get('message', '')}".rstrip(": ")


def _unscheduled(pod: Object) -> str | None:
    """The scheduler's words; None when the pod has a node."""
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return str(one.get("message") or one.get("reason") or "no node")
    return None


def _has_started(pod: Object) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(one.get("started") or "running" in (one.get("state") or {}) for one in statuses)


def _age_s(pod: Object, now: datetime) -> float:
    created = datetime.fromisoformat(str(pod["metadata"]["creationTimestamp"]))
    return (now - created).total_seconds()


def _owned(one: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in one["metadata"].get("ownerReferences") or ())


def _said(one: Object) -> str:
    reason, message = str(one.get("reason") or ""), str(one.get("message") or "")
    return ": ".join(part for part in (reason, message) if part)
