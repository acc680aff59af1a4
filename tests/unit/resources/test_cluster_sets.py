"""StatefulSets: the six words of their health, which pods are of the present version, and what fills a volume and fails."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.pods import NEVER, RETRIES, troubles
from pipeline.resources.cluster.sets import REVISION, replicas_health, replicas_pods
from pipeline.resources.cluster.workloads import WORKLOADS

Object = dict[str, Any]  # Any: an object of the API
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
WRONG = 'error: "a.safetensors" has sha256 12, and models.lock says 34'


def a_set(**status: Any) -> Object:
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "updateRevision": "tiny-2"}
    return {
        "metadata": {"name": "tiny", "generation": 3, "uid": "s"},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 3, **counts, **status},
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (a_set(), Health(Word.HEALTHY)),
        (None, Health(Word.MISSING, "there is no StatefulSet")),
        (a_set(observedGeneration=2), Health(Word.PROGRESSING, "its controller has not seen it yet")),
        (a_set(updatedReplicas=1), Health(Word.PROGRESSING, "1 of 2 pods are of this version")),
        (a_set(replicas=3), Health(Word.PROGRESSING, "2 of 2 pods are of this version")),
        (a_set(availableReplicas=1), Health(Word.PROGRESSING, "1 of 2 pods are ready")),
    ],
)
def test_its_status_says_how_far_it_is(found: Object | None, expected: Health) -> None:
    assert WORKLOADS["StatefulSet"].health_of(found) == expected


def test_none_wanted_is_healthy() -> None:
    found = a_set(replicas=0, updatedReplicas=0, availableReplicas=0)
    found["spec"]["replicas"] = 0
    assert replicas_health(found).word is Word.HEALTHY


def a_pod(revision: str, owner: str = "s", **metadata: Any) -> Object:
    return {
        "metadata": {"labels": {REVISION: revision}, "ownerReferences": [{"uid": owner}], **metadata},
        "status": {},
    }


def test_pods_are_those_of_the_version_that_its_controller_has_seen() -> None:
    own = a_pod("tiny-2")
    others = [a_pod("tiny-1"), a_pod("tiny-2", "t"), a_pod("tiny-2", deletionTimestamp="now")]
    assert replicas_pods(a_set(), (), [*others, own]) == [own]
    assert replicas_pods(a_set(observedGeneration=2), (), [own]) == []


def filling(state: Object, restarts: int = 0, last: Object | None = None) -> Object:
    status = {
        "name": "fill",
        "ready": False,
        "state": state,
        "lastState": last or {},
        "restartCount": restarts,
    }
    waits = {"name": "server", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
    created = (NOW - timedelta(seconds=60)).isoformat()
    return {
        "metadata": {"name": "tiny-0", "uid": "p", "creationTimestamp": created},
        "status": {"initContainerStatuses": [status], "containerStatuses": [waits]},
    }


def ended(code: int, message: str = "", reason: str = "Error") -> Object:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}


@pytest.mark.parametrize(
    ("pod", "reason", "lasting"),
    [
        (filling(ended(NEVER, f"1.0 MB of 2.0 MB\n{WRONG}\n")), WRONG.removeprefix("error: "), True),
        (filling(BACK_OFF, 1, ended(NEVER, WRONG)), WRONG.removeprefix("error: "), True),
        (
            filling(BACK_OFF, 1, ended(1, "error: registry: connection refused")),
            "registry: connection refused",
            False,
        ),
        (filling(BACK_OFF, RETRIES, ended(1, "error: registry: away")), "registry: away", True),
        (filling(ended(137)), "fill ended with exit code 137", False),
        (filling(ended(137, reason="OOMKilled")), "OOMKilled: it used more memory than its limit", True),
        (
            filling({"waiting": {"reason": "ImagePullBackOff", "message": "gone"}}),
            "ImagePullBackOff: gone",
            True,
        ),
    ],
)
def test_what_fills_a_volume_and_fails_says_why_and_whether_waiting_helps(
    pod: Object, reason: str, lasting: bool
) -> None:
    (found,) = troubles([pod], [], NOW)
    assert (found.reason, found.lasting) == (reason, lasting)


@pytest.mark.parametrize("state", [{"running": {}}, {"waiting": {"reason": "PodInitializing"}}])
def test_what_still_fills_is_no_trouble(state: Object) -> None:
    assert troubles([filling(state)], [], NOW) == []


def waiting_for_storage(age_s: float) -> Object:
    said = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    return {
        "metadata": {
            "name": "tiny-0",
            "uid": "p",
            "creationTimestamp": (NOW - timedelta(seconds=age_s)).isoformat(),
        },
        "spec": {"volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "weights-tiny-0"}}]},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": said}]},
    }


def test_storage_takes_a_while_to_be_made() -> None:
    (early,) = troubles([waiting_for_storage(60)], [], NOW)
    (late,) = troubles([waiting_for_storage(200)], [], NOW)
    assert (early.lasting, late.lasting) == (False, True)


def test_storage_that_nobody_makes_is_said_in_the_words_of_its_claim() -> None:
    about = {"kind": "PersistentVolumeClaim", "name": "weights-tiny-0"}
    event = {"involvedObject": about, "reason": "ProvisioningFailed", "message": '"nowhere" not found'}
    (found,) = troubles([waiting_for_storage(60)], [event], NOW)
    assert (found.reason, found.lasting) == ('ProvisioningFailed: "nowhere" not found', True)
