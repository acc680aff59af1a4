"""A model on several nodes: the LeaderWorkerSet it becomes, how it is told to be well, and which pods are its own."""

import json
from typing import Any

import pytest

from pipeline.core.errors import UserError
from pipeline.core.resource import Resource
from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.marks import TEMPLATE
from pipeline.resources.cluster.sending import images_of, ordered, written
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import WORKLOADS
from tests.parts.deployments import H100X16, a_model, deployment

Object = dict[str, Any]  # Any: an object of the API
KIND = WORKLOADS["LeaderWorkerSet"]


def made(**changed: Any) -> Resource[ClusterState]:
    return deployment(a_model("vllm", H100X16, **changed), replicas=2)


def objects(resource: Resource[ClusterState]) -> dict[str, Object]:
    return {str(one["kind"]): one for one in ordered(resource.desired.objects)}


def templates(resource: Resource[ClusterState]) -> tuple[Object, Object]:
    found = objects(resource)["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    return found["leaderTemplate"], found["workerTemplate"]


def test_a_replica_is_a_group_of_one_pod_a_node_and_no_deployment_is_left() -> None:
    found = objects(made())
    assert "Deployment" not in found
    spec = found["LeaderWorkerSet"]["spec"]
    assert (spec["replicas"], spec["leaderWorkerTemplate"]["size"]) == (2, 2)
    for template in templates(made()):
        (container,) = template["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_requests_and_probes_go_to_leaders_alone() -> None:
    leader, worker = templates(made())
    selector = objects(made())["Service"]["spec"]["selector"]
    assert selector.items() <= leader["metadata"]["labels"].items()
    assert not selector.items() <= worker["metadata"]["labels"].items()
    assert "startupProbe" in leader["spec"]["containers"][0]
    assert not {"startupProbe", "readinessProbe", "livenessProbe"} & worker["spec"]["containers"][0].keys()


def test_a_budget_covers_every_pod_since_one_that_leaves_ends_its_group() -> None:
    selector = objects(made())["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    for template in templates(made()):
        assert selector.items() <= template["metadata"]["labels"].items()


def test_its_own_services_do_not_take_the_name_of_ours() -> None:
    policy = objects(made())["LeaderWorkerSet"]["spec"]["networkConfig"]["subdomainPolicy"]
    assert policy == "UniquePerReplica"


def test_the_launch_says_how_the_nodes_find_one_another() -> None:
    launch = json.loads(objects(made())["ConfigMap"]["data"]["launch.json"])
    group = launch["group"]
    assert group["nodes"] == 2
    for template in templates(made()):
        assert group["own"] in {one["name"] for one in template["spec"]["containers"][0]["env"]}
    alone = json.loads(objects(deployment())["ConfigMap"]["data"]["launch.json"])
    assert alone["group"] is None


def test_images_of_both_templates_are_sent_with_digests() -> None:
    resource = made()
    assert resource.desired.recipe is not None
    (image,) = resource.desired.recipe.images
    sent = written(objects(resource)["LeaderWorkerSet"], {image: f"sha256:{'c' * 64}"})
    assert set(images_of(sent)) == {f"{image}@sha256:{'c' * 64}"}


@pytest.mark.parametrize(
    "options",
    [{"name": "a" * 49}, {"weights": "pvc", "replicas": 1}, {"weights": "pvc", "claim": {"name": "w"}}],
)
def test_what_several_nodes_cannot_do_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        deployment(a_model("vllm", H100X16), **options)


def group_set(**status: Any) -> Object:
    one = objects(made())["LeaderWorkerSet"]
    one["metadata"]["generation"] = 3
    full = {"observedGeneration": 3, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}
    return {**one, "status": {**full, **status}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, Health(Word.HEALTHY)),
        ({"updatedReplicas": 1}, Health(Word.PROGRESSING, "1 of 2 groups are of this version")),
        ({"replicas": 3}, Health(Word.PROGRESSING, "2 of 2 groups are of this version")),
        ({"readyReplicas": 1}, Health(Word.PROGRESSING, "1 of 2 groups are ready")),
    ],
)
def test_how_far_groups_are_is_said(status: dict[str, int], expected: Health) -> None:
    assert KIND.health_of(group_set(**status)) == expected


def test_without_its_controller_it_stays_unseen_and_that_is_said() -> None:
    assert "controller running?" in KIND.health_of(group_set(observedGeneration=2)).reason


def pod(name: str, rank: int, version: str, *, leaving: bool = False, **status: Any) -> Object:
    labels = {
        "leaderworkerset.sigs.k8s.io/name": "qwen",
        "leaderworkerset.sigs.k8s.io/worker-index": str(rank),
    }
    metadata: Object = {"name": name, "labels": labels, "annotations": {TEMPLATE: version}}
    return {"metadata": metadata | ({"deletionTimestamp": "now"} if leaving else {}), "status": status}


def ended(code: int, reason: str = "Error") -> Object:
    return {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "reason": reason}}}]}


def test_pods_are_told_by_the_version_of_their_template_leaders_first() -> None:
    version = templates(made())[0]["metadata"]["annotations"][TEMPLATE]
    pods = [pod("qwen-0-1", 1, version), pod("qwen-0", 0, version), pod("qwen-1", 0, "older")]
    found = KIND.pods(group_set(), (), pods)
    assert [one["metadata"]["name"] for one in found] == ["qwen-0", "qwen-0-1"]
    other = templates(made(env={"A": "1"}))[0]["metadata"]["annotations"][TEMPLATE]
    assert other != version


@pytest.mark.parametrize(
    ("status", "told"), [(ended(1), True), (ended(137, "OOMKilled"), True), (ended(143), False), ({}, False)]
)
def test_a_pod_that_leaves_with_its_group_is_asked_only_when_it_crashed(status: Object, told: bool) -> None:
    version = templates(made())[0]["metadata"]["annotations"][TEMPLATE]
    found = KIND.pods(group_set(), (), [pod("qwen-0", 0, version, leaving=True, **status)])
    assert bool(found) is told
