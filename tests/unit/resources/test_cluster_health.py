"""The six words and their reasons, from the status objects that a cluster gives."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.core.resource import Address, Entry, Observed, fields_of
from pipeline.resources.cluster.comparing import told
from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.pods import troubles
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import WORKLOADS, deployment_health, deployment_pods

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
READY = [{"type": "Ready", "status": "True"}]
LONG_S = 60.0
ADDRESS = Address("qwen/kubernetes:prod")


def deployment(replicas: int = 2, **changes: Any) -> dict[str, Any]:  # Any: an object of the API
    counts = {"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
    return {
        "metadata": {"name": "qwen", "generation": 3, "uid": "d"},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 3, **counts, **changes},
    }


def pod(age_s: float = LONG_S, **status: Any) -> dict[str, Any]:
    created = (NOW - timedelta(seconds=age_s)).isoformat().replace("+00:00", "Z")
    return {"metadata": {"name": "qwen-1", "uid": "p", "creationTimestamp": created}, "status": status}


def container(
    state: dict[str, Any], last: dict[str, Any] | None = None, *, ready: bool = False
) -> dict[str, Any]:
    return {"name": "server", "ready": ready, "state": state, "lastState": last or {}}


def unscheduled() -> list[dict[str, str]]:
    said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    return [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]


def event(reason: str, message: str = "") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"uid": "p"}}


def test_whatever_is_rolled_out_and_ready_is_healthy() -> None:
    assert str(deployment_health(deployment())) == "Healthy"
    assert deployment_health(deployment(0)).word is Word.HEALTHY


def test_what_is_scaled_to_nothing_is_told_as_suspended_and_what_is_unwell_keeps_its_reason() -> None:
    applied: dict[str, Any] = {"objects": {"Deployment/qwen": {"spec": {"replicas": 2}}}}
    entry = Entry(ADDRESS, "kubernetes", {"name": "qwen", "namespace": "m"}, None, None, applied, applied)

    def seen(*workloads: dict[str, Any]) -> Observed[ClusterState]:
        live = {f"Deployment/{'qwen-canary' if at else 'qwen'}": one for at, one in enumerate(workloads)}
        return told(live, entry)

    assert seen(deployment(0)).state.health == "Suspended: scaled to 0"
    assert seen(deployment(2)).state.health == seen(deployment(0), deployment(1)).state.health == "Healthy"
    leaving = deployment(0, availableReplicas=1)
    assert seen(leaving).state.health == "Progressing: 1 of 0 pods are ready"
    found = fields_of(seen(deployment(0)).state)["objects"]
    assert found == {"Deployment/qwen": {"metadata": {"name": "qwen"}, "spec": {"replicas": 0}}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, Health(Word.MISSING, "there is no Deployment")),
        (deployment(observedGeneration=2), Health(Word.PROGRESSING, "its controller has not seen it yet")),
        (deployment(updatedReplicas=1), Health(Word.PROGRESSING, "1 of 2 pods are of this version")),
        (deployment(replicas=2, availableReplicas=1), Health(Word.PROGRESSING, "1 of 2 pods are ready")),
    ],
)
def test_what_is_not_there_yet_says_how_far_it_is(found: dict[str, Any] | None, expected: Health) -> None:
    assert WORKLOADS["Deployment"].health_of(found) == expected


def test_old_pods_that_are_still_there_are_waited_for() -> None:
    seen = deployment()
    seen["status"]["replicas"] = 3
    assert deployment_health(seen).word is Word.PROGRESSING


def test_paused_is_suspended() -> None:
    seen = deployment()
    seen["spec"]["paused"] = True
    assert deployment_health(seen).word is Word.SUSPENDED


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("Progressing", "False", "ProgressDeadlineExceeded"),
        ("ReplicaFailure", "True", "FailedCreate"),
    ],
)
def test_conditions_that_say_no_are_degraded(kind: str, status: str, reason: str) -> None:
    one = {"type": kind, "status": status, "reason": reason, "message": "exceeded quota"}
    seen = deployment_health(deployment(availableReplicas=0, conditions=[one]))
    assert seen == Health(Word.DEGRADED, f"{reason}: exceeded quota")


@pytest.mark.parametrize(
    ("state", "last", "reason", "previous"),
    [
        (
            {"terminated": {"exitCode": 1, "reason": "Error"}},
            None,
            "the server ended with exit code 1",
            False,
        ),
        (
            {"waiting": {"reason": "CrashLoopBackOff"}},
            {"terminated": {"exitCode": 2, "reason": "Error"}},
            "the server ended with exit code 2",
            True,
        ),
        (
            {"running": {}},
            {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            "OOMKilled: it used more memory than its limit",
            True,
        ),
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
            None,
            "ImagePullBackOff: not found",
            False,
        ),
    ],
)
def test_containers_that_waiting_does_not_help(
    state: dict[str, Any], last: dict[str, Any] | None, reason: str, previous: bool
) -> None:
    (found,) = troubles([pod(containerStatuses=[container(state, last)])], (), NOW)
    assert (found.reason, found.lasting, found.previous) == (reason, True, previous)


def test_container_that_ended_once_and_serves_again_is_no_trouble() -> None:
    ended = {"terminated": {"exitCode": 1}}
    seen = pod(containerStatuses=[container({"running": {}}, ended, ready=True)], conditions=READY)
    assert troubles([seen], (), NOW) == []


def test_image_that_failed_once_is_tried_again() -> None:
    waits = {"waiting": {"reason": "ErrImagePull", "message": "connection reset"}}
    assert troubles([pod(containerStatuses=[container(waits)])], (), NOW) == []


def test_pod_without_a_node_is_told_at_once_and_given_up_soon() -> None:
    (young,) = troubles([pod(1, conditions=unscheduled())], (), NOW)
    (old,) = troubles([pod(conditions=unscheduled())], (), NOW)
    assert young.reason == "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    assert (young.lasting, old.lasting) == (False, True)


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_node_that_is_on_its_way_is_waited_for(reason: str) -> None:
    (found,) = troubles([pod(conditions=unscheduled())], [event(reason)], NOW)
    assert not found.lasting


def test_volume_that_is_not_mounted_says_why() -> None:
    said = 'MountVolume.SetUp failed for volume "secrets": secret "door" not found'
    (found,) = troubles([pod()], [event("FailedMount", said)], NOW)
    assert found.lasting
    assert 'secret "door" not found' in found.reason


def test_storage_that_is_attached_elsewhere_is_waited_for_and_told_at_once() -> None:
    waits = pod()
    waits["spec"] = {"volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "w"}}]}
    (found,) = troubles([waits], [event("FailedAttachVolume", "Multi-Attach error for volume pvc-1")], NOW)
    assert not found.lasting
    assert "Multi-Attach error" in found.reason
    (found,) = troubles([waits], [event("FailedMount", 'configmap "launch" not found')], NOW)
    assert found.lasting


def test_what_lasts_comes_first() -> None:
    waits, crashes = (
        pod(1, conditions=unscheduled()),
        pod(containerStatuses=[container({"terminated": {"exitCode": 1}})]),
    )
    assert [one.lasting for one in troubles([waits, crashes], (), NOW)] == [True, False]


def test_only_pods_of_the_version_that_is_wanted_and_that_stay_are_asked() -> None:
    def template(image: str, **labels: str) -> dict[str, Any]:
        return {"metadata": {"labels": {"app": "qwen", **labels}}, "spec": {"image": image}}

    def owned(uid: str, by: str, image: str = "", **metadata: str) -> dict[str, Any]:
        made = template(image, **{"pod-template-hash": uid})
        return {
            "metadata": {"uid": uid, "ownerReferences": [{"uid": by}], **metadata},
            "spec": {"template": made},
        }

    seen = deployment()
    seen["spec"]["template"] = template("two")
    sets = [owned("old", "d", "one"), owned("new", "d", "two"), owned("other", "x", "two")]
    pods = [
        owned("a", "old"),
        owned("b", "new"),
        owned("c", "other"),
        owned("e", "new", deletionTimestamp="2026-11-21T12:00:00Z"),
    ]
    assert [one["metadata"]["uid"] for one in deployment_pods(seen, sets, pods)] == ["b"]
