"""Workspaces and InferenceSets of KAITO: how each is, and which pods are theirs. Pure; used by workloads.

Labels, states, conditions and reasons are those of KAITO 0.12 (api/v1beta1, pkg/workspace/controllers/workspace_controller.go,
pkg/inferenceset, pkg/nodeprovision); KAITO before 0.5 has no states, and reasons that end in "Failed".
"""

from collections.abc import Iterable

from pipeline.resources.cluster.fields import is_leaving, labels_in
from pipeline.resources.cluster.health import Health, Object, Word, said

WORKSPACE_LABEL = "kaito.sh/workspace"  # of the pods of a Workspace: its name
SET_LABEL = "inferenceset.kaito.sh/created-by"  # of the Workspaces and pods of an InferenceSet: its name
INDEX_LABEL = "apps.kubernetes.io/pod-index"  # Kubernetes 1.28: the pod of number 0 answers for a group
GONE_S = 900.0  # a Workspace leaves after the nodes that were made for it

# What a Workspace waits for, in the order that it comes.
STEPS = (
    "NodeClaimReady",
    "NodesReady",
    "ResourceReady",
    "ModelMirrorReady",
    "InferenceReady",
    "WorkspaceSucceeded",
)
# Waiting does not help: reasons of InferenceReady and BenchmarkCompleted, and what older versions write.
LASTING = frozenset(
    (
        "ImagePullError",
        "ContainerCrashLoopBackOff",
        "ContainerOOMKilled",
        "ContainerStartError",
        "ModelBundleMismatch",
        "SASTokenFetchFailed",
        "BenchmarkFailed",
        "WorkspaceInferenceStatusFailed",
        "workspaceResourceStatusFailed",
    )
)
NO_INSTANCES = "all requested instance types were unavailable"  # of a NodeClaim: it is not tried again
UNSEEN = Health(Word.PROGRESSING, "its controller has not seen it yet: is KAITO running?")


def workspace_health(workspace: Object) -> Health:
    """What KAITO says: the first step that is not done, in its own words."""
    status = workspace.get("status") or {}
    conditions = {str(one["type"]): one for one in status.get("conditions") or ()}
    if not conditions:
        return UNSEEN
    open_step = next((conditions[step] for step in STEPS if _is_open(conditions.get(step))), None)
    if open_step is None:
        done = conditions.get(STEPS[-1], {}).get("status") == "True"
        return Health(Word.HEALTHY) if done else Health(Word.PROGRESSING, "its nodes are being prepared")
    served_before = status.get("state") in ("NotReady", "Failed")
    word = Word.DEGRADED if served_before or _lasts(open_step) else Word.PROGRESSING
    return Health(word, said(open_step))


def set_health(inference_set: Object) -> Health:
    """How many of its Workspaces are ready, and what its conditions say of the others."""
    wanted, status = inference_set["spec"].get("replicas", 1), inference_set.get("status") or {}
    conditions = [one for one in status.get("conditions") or () if one.get("status") == "False"]
    if not status and wanted:
        return UNSEEN
    ready = status.get("readyReplicas", 0)
    if ready == wanted == status.get("replicas", wanted):
        return Health(Word.HEALTHY)
    lasting = next((one for one in conditions if _lasts(one)), None)
    if lasting is not None:
        return Health(Word.DEGRADED, said(lasting))
    return Health(Word.PROGRESSING, f"{ready} of {wanted} Workspaces are ready")


def workspace_pods(workspace: Object, _: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    """A Workspace never changes, so all its pods are of its version; the one that answers for a group comes first."""
    return _labelled(pods, WORKSPACE_LABEL, str(workspace["metadata"]["name"]))


def set_pods(inference_set: Object, _: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    return _labelled(pods, SET_LABEL, str(inference_set["metadata"]["name"]))


def by_workspace(name: str) -> str:
    return f"{WORKSPACE_LABEL}={name}"


def by_set(name: str) -> str:
    return f"{SET_LABEL}={name}"


def _is_open(condition: Object | None) -> bool:
    return condition is not None and condition.get("status") != "True"


def _lasts(condition: Object) -> bool:
    return condition.get("reason") in LASTING or NO_INSTANCES in str(condition.get("message"))


def _labelled(pods: Iterable[Object], label: str, name: str) -> list[Object]:
    found = [pod for pod in pods if labels_in(pod).get(label) == name and not is_leaving(pod)]
    return sorted(found, key=lambda pod: int(labels_in(pod).get(INDEX_LABEL, "0")))
