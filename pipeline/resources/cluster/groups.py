"""LeaderWorkerSets: replicas that are groups of pods, one a node. How each is, and which pods are of its version. Pure.

Labels, status and conditions are those of LeaderWorkerSet 0.7 (api/leaderworkerset/v1).
"""

from collections.abc import Iterable

from pipeline.resources.cluster.fields import is_leaving, labels_in
from pipeline.resources.cluster.health import Health, Object, Word
from pipeline.resources.cluster.marks import TEMPLATE

NAME, RANK = "leaderworkerset.sigs.k8s.io/name", "leaderworkerset.sigs.k8s.io/worker-index"
STOPPED = (0, 137, 143)  # exit codes of containers that were told to end: their group is made anew, or leaves


def group_health(group_set: Object) -> Health:
    """What its status says; a group is ready when all its pods are."""
    spec, status = group_set["spec"], group_set.get("status") or {}
    if status.get("observedGeneration", 0) < group_set["metadata"].get("generation", 0):
        return Health(
            Word.PROGRESSING, "its controller has not seen it yet: is the LeaderWorkerSet controller running?"
        )
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    ready, there = status.get("readyReplicas", 0), status.get("replicas", 0)
    if wanted == updated == ready == there:
        return Health(Word.HEALTHY)
    if updated < wanted or there > wanted:
        return Health(Word.PROGRESSING, f"{updated} of {wanted} groups are of this version")
    return Health(Word.PROGRESSING, f"{ready} of {wanted} groups are ready")


def group_pods(group_set: Object, _: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    """The pods of the version that is wanted now, leaders first: they take the requests.

    A group whose pod ended is deleted and made anew, so its pods tell why only while they leave.
    """
    name, version = (
        group_set["metadata"]["name"],
        _version(group_set["spec"]["leaderWorkerTemplate"]["workerTemplate"]),
    )
    own = [
        pod
        for pod in pods
        if labels_in(pod).get(NAME) == name
        and _version(pod) == version
        and (not is_leaving(pod) or _crashed(pod))
    ]
    return sorted(own, key=lambda pod: labels_in(pod).get(RANK) != "0")


def _version(template: Object) -> str:
    return str(((template.get("metadata") or {}).get("annotations") or {}).get(TEMPLATE))


def _crashed(pod: Object) -> bool:
    ends = [
        state.get("terminated") or {}
        for container in (pod.get("status") or {}).get("containerStatuses") or ()
        for state in (container.get("state") or {}, container.get("lastState") or {})
    ]
    return any(end.get("exitCode", 0) not in STOPPED or end.get("reason") == "OOMKilled" for end in ends)
