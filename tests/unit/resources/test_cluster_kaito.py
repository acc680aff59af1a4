"""How Workspaces and InferenceSets are, in KAITO's own words, and which pods are theirs."""

from typing import Any

import pytest

from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.kaito import set_health, set_pods, workspace_health, workspace_pods
from pipeline.resources.cluster.shape import shaped

Object = dict[str, Any]  # Any: an object of the API


def condition(kind: str, status: str, reason: str = "Done", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def workspace(*conditions: dict[str, str], state: str = "Pending") -> Object:
    return {"metadata": {"name": "qwen-1a2b"}, "status": {"state": state, "conditions": list(conditions)}}


READY = (
    condition("ResourceReady", "True"),
    condition("InferenceReady", "True"),
    condition("WorkspaceSucceeded", "True"),
)
NO_NODES = condition("NodeClaimReady", "False", "NodeClaimNotReady", "Ready NodeClaims are not enough")
PENDING = condition("WorkspaceSucceeded", "False", "workspacePending", "workspace is waiting")
NO_SKU = "failed (last reconcile error: all requested instance types were unavailable during launch)"


@pytest.mark.parametrize(
    ("found", "word", "said"),
    [
        (workspace(*READY, state="Ready"), Word.HEALTHY, ""),
        (workspace(), Word.PROGRESSING, "is KAITO running?"),
        (
            workspace(NO_NODES, PENDING),
            Word.PROGRESSING,
            "NodeClaimNotReady: Ready NodeClaims are not enough",
        ),
        (workspace(PENDING), Word.PROGRESSING, "workspacePending"),
        (
            workspace(condition("NodeClaimReady", "False", "NodeClaimNotReady", NO_SKU), PENDING),
            Word.DEGRADED,
            "all requested instance types were unavailable",
        ),
        (
            workspace(condition("InferenceReady", "False", "ImagePullError", "not found"), PENDING),
            Word.DEGRADED,
            "ImagePullError: not found",
        ),
        (
            workspace(condition("InferenceReady", "False", "Unschedulable", "0/3 nodes"), PENDING),
            Word.PROGRESSING,
            "Unschedulable: 0/3 nodes",
        ),
        (
            workspace(
                condition("InferenceReady", "False", "WorkspaceInferenceStatusPending"), state="NotReady"
            ),
            Word.DEGRADED,
            "WorkspaceInferenceStatusPending",
        ),
        (workspace(condition("ResourceReady", "True")), Word.PROGRESSING, "its nodes are being prepared"),
    ],
)
def test_workspace_says_the_first_step_that_is_not_done(found: Object, word: Word, said: str) -> None:
    health = workspace_health(found)
    assert health.word is word
    assert said in health.reason


def inference_set(wanted: int, **status: Any) -> Object:
    return {"metadata": {"name": "qwen-1a2b"}, "spec": {"replicas": wanted}, "status": status}


def test_inference_set_counts_its_workspaces() -> None:
    assert set_health(inference_set(2, replicas=2, readyReplicas=2)) == Health(Word.HEALTHY)
    assert str(set_health(inference_set(2, replicas=2, readyReplicas=1))).endswith(
        "1 of 2 Workspaces are ready"
    )
    assert set_health(inference_set(1, replicas=2, readyReplicas=1)).word is Word.PROGRESSING
    assert set_health(inference_set(0)).word is Word.HEALTHY
    assert set_health(inference_set(1)).word is Word.PROGRESSING


def pod(name: str, index: int, **labels: str) -> Object:
    number = {"apps.kubernetes.io/pod-index": str(index)}
    return {"metadata": {"name": name, "labels": {**number, **labels}}}


def test_pods_are_told_by_kaitos_labels_and_the_one_that_answers_comes_first() -> None:
    label = {"kaito.sh/workspace": "qwen-1a2b", "inferenceset.kaito.sh/created-by": "qwen-1a2b"}
    leaving = pod("leaving", 0, **label)
    leaving["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    pods = [pod("worker", 10, **label), pod("first", 0, **label), leaving, pod("other", 0)]
    for found in (workspace_pods(workspace(), (), pods), set_pods(inference_set(1), (), pods)):
        assert [one["metadata"]["name"] for one in found] == ["first", "worker"]


def test_pod_template_that_is_ours_as_one_value_is_seen_whole_also_when_nothing_stands_for_it_any_more() -> (
    None
):
    sent = {"containers": [{"name": "server", "image": "ghcr.io/acme/qwen:mp-1"}]}
    digest = f"@sha256:{'a' * 64}"
    there = {"containers": [{"name": "server", "image": f"ghcr.io/acme/qwen:mp-1{digest}", "tty": True}]}
    fields: Object = {"f:inference": {"f:template": {"f:spec": {"f:containers": {}}}}}
    entry = {"manager": "mp", "operation": "Apply", "fieldsV1": fields}
    live = {
        "metadata": {"name": "q", "managedFields": [entry]},
        "inference": {"template": {"spec": there}},
    }
    seen = {"containers": [{**sent["containers"][0], "tty": True}]}
    for wanted in ({}, {"inference": {"template": {"spec": sent}}}):
        found = shaped(live, wanted)
        assert isinstance(found, dict)
        assert found["inference"] == {"template": {"spec": seen}}  # what was added by hand is drift


def test_image_that_is_declared_by_its_digest_is_no_drift() -> None:
    image = f"ghcr.io/acme/fr@sha256:{'a' * 64}"
    one = {"metadata": {"name": "q"}, "inference": {"adapters": [{"source": {"image": image}}]}}
    found = shaped(one, one)
    assert isinstance(found, dict)
    assert found["inference"] == one["inference"]
