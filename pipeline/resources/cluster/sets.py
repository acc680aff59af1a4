"""StatefulSets: replicas that each own a volume. How each is, and which pods are of its version. Pure; used by workloads.

Status and labels are those of Kubernetes 1.36.
"""

from collections.abc import Iterable

from pipeline.resources.cluster.fields import is_leaving, labels_in
from pipeline.resources.cluster.health import Health, Object, Word

REVISION = "controller-revision-hash"  # the controller's, of its pods: the version of the template
# What the server lets nobody change besides the selector.
FIXED = ("serviceName", "podManagementPolicy", "volumeClaimTemplates")


def replicas_health(one: Object) -> Health:
    """What its own status says; why a pod is not ready says the pod."""
    spec, status = one["spec"], one.get("status") or {}
    if not _is_seen(one):
        return Health(Word.PROGRESSING, "its controller has not seen it yet")
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    there, available = status.get("replicas", 0), status.get("availableReplicas", 0)
    if wanted == updated == there == available:
        return Health(Word.HEALTHY)
    if updated < wanted or there > wanted:
        return Health(Word.PROGRESSING, f"{updated} of {wanted} pods are of this version")
    return Health(Word.PROGRESSING, f"{available} of {wanted} pods are ready")


def replicas_pods(one: Object, _: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    """The pods of the version that is wanted now; which that is says the controller, once it has seen it."""
    revision, uid = (one.get("status") or {}).get("updateRevision"), one["metadata"]["uid"]
    if not revision or not _is_seen(one):
        return []
    return [
        pod
        for pod in pods
        if not is_leaving(pod)
        and labels_in(pod).get(REVISION) == revision
        and any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences") or ())
    ]


def _is_seen(one: Object) -> bool:
    status = one.get("status") or {}
    return bool(status.get("observedGeneration", 0) >= one["metadata"].get("generation", 0))
