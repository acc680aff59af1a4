"""What keeps a pod from serving, from what the kubelet and the scheduler say. Pure.

Container states, conditions and reasons of events are those of Kubernetes 1.36.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from pipeline.clients.kube import CLAIM
from pipeline.core.frozen import frozen
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
BIND_S = 180.0  # for storage that is made, or attached to another node, when it is asked for
UNBOUND = frozenset(
    ("ProvisioningFailed", "FailedBinding")
)  # of a claim's events: its storage class makes none
REFUSED_S = 20.0  # it may be tried again meanwhile
# Of containers that run before the server: the kubelet starts them again, as a Job does its pods.
RETRIES = 6  # pods that are killed, a registry that does not answer
NEVER = 3  # exit code of pipeline/cli/filling.py: another try fails the same way
AGAIN = "CrashLoopBackOff"


@frozen
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


def waits_for_storage(pod: Object) -> bool:
    """The scheduler says that it waits for a claim of its own."""
    return CLAIM.name in (_unscheduled(pod) or "")


def troubles(pods: Iterable[Object], events: Sequence[Object], now: datetime) -> list[Trouble]:
    """What is wrong with each pod that does not serve, what lasts first."""
    found = [one for pod in pods if (one := _trouble(pod, events, now)) is not None]
    return sorted(found, key=lambda one: not one.lasting)


def _trouble(pod: Object, events: Sequence[Object], now: datetime) -> Trouble | None:
    if (found := next(_of_containers(pod), None)) is not None:
        return found
    if is_ready(pod):
        return None
    name, age_s = str(pod["metadata"]["name"]), _age_s(pod, now)
    own = [one for one in events if one.get("involvedObject", {}).get("uid") == pod["metadata"]["uid"]]
    if (words := _unscheduled(pod)) is not None:
        comes = any(one.get("reason") in NODE_COMES for one in own)
        waits = Trouble(name, f"{UNSCHEDULABLE}: {words}", age_s > PATIENCE_S and not comes)
        return _unbound(pod, waits, events, age_s) if CLAIM.name in words else waits
    mounts = [one for one in own if one.get("reason") in NOT_MOUNTED]
    if mounts and not _has_started(pod):
        words = f"{mounts[-1]['reason']}: {mounts[-1].get('message', '')}"
        return Trouble(name, words, age_s > (BIND_S if _attaches(pod, words) else PATIENCE_S))
    return None


def _attaches(pod: Object, words: str) -> bool:
    """Whether storage is what is waited for: it is bound, detached elsewhere and attached here; what is not there is not."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return any("persistentVolumeClaim" in each for each in volumes) and "not found" not in words


def _of_containers(pod: Object) -> Iterator[Trouble]:
    name, status = str(pod["metadata"]["name"]), pod.get("status") or {}
    found = [_first(name, one) for one in status.get("initContainerStatuses") or ()]
    found += [_container(name, one) for one in status.get("containerStatuses") or ()]
    yield from (one for one in found if one is not None)


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


def _first(pod: str, status: Object) -> Trouble | None:
    """A container that runs before the others: what it said last. The kubelet tries again, and that may help."""
    name, state = str(status["name"]), status.get("state") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in STUCK - {AGAIN}:
        return Trouble(pod, said(waiting), True, name)
    if status.get("ready") or not ended.get("exitCode"):
        return None
    lasting = ended.get("exitCode") == NEVER or status.get("restartCount", 0) >= RETRIES
    reason = end_of(ended) or f"{name} ended with exit code {ended['exitCode']}"
    return Trouble(
        pod, reason, lasting or reason == TOO_MUCH_MEMORY, name, previous="terminated" not in state
    )


def end_of(ended: Object) -> str | None:
    """Why a container ended: the last line of its log, which the kubelet keeps in its status."""
    if ended.get("reason") == "OOMKilled":
        return TOO_MUCH_MEMORY
    return last_line(str(ended.get("message") or "")).removeprefix("error: ") or None


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _unbound(pod: Object, waits: Trouble, events: Sequence[Object], age_s: float) -> Trouble:
    """Of a pod that waits for storage of its own, which takes a while: why none is made, where somebody says so."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    claims = {(each.get("persistentVolumeClaim") or {}).get("claimName") for each in volumes}
    for one in reversed(events):
        about = one.get("involvedObject", {})
        if about.get("kind") == CLAIM.name and about.get("name") in claims and one.get("reason") in UNBOUND:
            return replace(waits, reason=said(one), lasting=age_s > REFUSED_S)
    return replace(waits, lasting=waits.lasting and age_s > BIND_S)


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
