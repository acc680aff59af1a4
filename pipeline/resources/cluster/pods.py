"""What keeps a pod from serving, from what the kubelet and the scheduler say. Pure.

Container states, conditions and reasons of events are those of Kubernetes 1.36.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pipeline.resources.cluster.fields import met
from pipeline.resources.cluster.health import Object, said

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
UNSCHEDULABLE = "Unschedulable"
TOO_MUCH_MEMORY = "OOMKilled: it used more memory than its limit"
PATIENCE_S = 15.0  # for a node or a volume that is free in a moment


@dataclass(frozen=True)
class Trouble:
    """What keeps one pod from serving."""

    pod: str
    reason: str  # "ImagePullBackOff: …", in the words of whoever said it
    lasting: bool  # waiting does not help
    container: str = ""  # whose log tells more
    previous: bool = False  # the log is that of the container that ended

    @property
    def unscheduled(self) -> bool:
        return self.reason.startswith(UNSCHEDULABLE)


def is_ready(pod: Object) -> bool:
    return met(pod, "Ready") is not None


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
        return Trouble(name, f"{UNSCHEDULABLE}: {words}", waits_long and not comes)
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
        return Trouble(pod, said(waiting), True, name)
    return None


def _end(ended: Object) -> str:
    match ended.get("reason"):
        case "OOMKilled":
            return TOO_MUCH_MEMORY
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
