"""Replicas that each own a volume: when there is a StatefulSet, what it says, what never changes, and what a newer mp restarts."""

import copy
import json
from typing import Any

import pytest

from pipeline.core.model import Artifact, FileEntry
from pipeline.core.resource import Resource
from pipeline.resources.cluster.sending import ordered
from pipeline.resources.cluster.standing import in_the_way
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.volumes import with_its_filler
from tests.parts.deployments import FAR, a_model, deployment

Object = dict[str, Any]  # Any: an object of the API
KEY = "StatefulSet/qwen"
OTHER = a_model(
    artifact=Artifact("file:///m", "", "sha256-b", (FileEntry("model.safetensors", 9, "b" * 64),))
)


def with_volumes(**options: Any) -> Resource[ClusterState]:
    return deployment(**{"registry": FAR, "weights": "pvc", "replicas": 2, **options})


def set_of(resource: Resource[ClusterState]) -> Object:
    found = resource.desired.objects[KEY]
    assert isinstance(found, dict)
    return found


def document_of(resource: Resource[ClusterState]) -> Object:
    pod = set_of(resource)["spec"]["template"]["spec"]
    (name,) = [one["configMap"]["name"] for one in pod["volumes"] if one["name"] == "document"]
    config: Any = resource.desired.objects[f"ConfigMap/{name}"]
    found: Object = json.loads(config["data"]["fill.json"])
    return found


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"replicas": 1}, "Deployment"),
        ({"replicas": 1, "claim": {"per": "replica"}}, "StatefulSet"),
        ({"replicas": 2}, "StatefulSet"),
        ({"replicas": 2, "claim": {"access_mode": "ReadWriteOnce"}}, "StatefulSet"),
        ({"replicas": 2, "claim": {"access_mode": "ReadWriteOncePod"}}, "StatefulSet"),
        ({"replicas": 2, "claim": {"access_mode": "ReadWriteMany"}}, "Deployment"),
        ({"replicas": 2, "claim": {"access_mode": "ReadWriteMany", "per": "replica"}}, "StatefulSet"),
        ({"replicas": 2, "claim": {"access_mode": "ReadWriteOnce", "per": "model"}}, "Deployment"),
        ({"replicas": 1, "autoscale": {"max": 3}}, "StatefulSet"),
        ({"replicas": 2, "weights": "volume"}, "Deployment"),
    ],
)
def test_replicas_own_volumes_where_they_cannot_share_one_or_it_is_said(options: Any, kind: str) -> None:
    assert f"{kind}/qwen" in with_volumes(**options).desired.objects


def test_each_pod_fills_its_volume_before_its_server_reads_it() -> None:
    made = with_volumes(spec={"pull_secret": "ghcr"})
    spec = set_of(made)["spec"]
    pod = spec["template"]["spec"]
    (fills,), (server,) = pod["initContainers"], pod["containers"]
    (template,) = spec["volumeClaimTemplates"]
    name, folder = template["metadata"]["name"], document_of(made)["folder"]
    assert {"name": name, "mountPath": "/mnt"} in fills["volumeMounts"]
    reads = {"name": name, "mountPath": "/mnt/models", "readOnly": True, "subPath": folder}
    assert reads in server["volumeMounts"]
    assert name not in [one["name"] for one in pod["volumes"]]  # the controller adds it
    assert document_of(made)["alone"] is True
    assert made.desired.recipe is not None
    assert fills["image"] in made.desired.recipe.images
    assert {"name": "login", "mountPath": "/run/secrets/registry", "readOnly": True} in fills["volumeMounts"]
    assert fills["resources"]["requests"] == fills["resources"]["limits"]
    assert made.desired.recipe.tasks == {}


def test_pods_have_names_in_a_service_of_their_own_and_requests_go_through_the_other() -> None:
    services = {
        one["metadata"]["name"]: one["spec"]
        for one in ordered(with_volumes().desired.objects)
        if one["kind"] == "Service"
    }
    assert services["qwen-pods"]["clusterIP"] == "None"
    assert services["qwen"]["type"] == "ClusterIP"
    assert set_of(with_volumes())["spec"]["serviceName"] == "qwen-pods"


def test_volumes_go_with_their_replica_but_where_an_autoscaler_brings_it_back() -> None:
    def policy(**options: Any) -> tuple[str, str]:
        found = set_of(with_volumes(**options))["spec"]["persistentVolumeClaimRetentionPolicy"]
        return found["whenDeleted"], found["whenScaled"]

    assert policy() == ("Delete", "Delete")
    assert policy(autoscale={"max": 3}) == ("Delete", "Retain")


def test_an_autoscaler_scales_the_set() -> None:
    scaler: Any = with_volumes(autoscale={"max": 3}).desired.objects["HorizontalPodAutoscaler/qwen"]
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": "qwen",
    }


def test_another_version_of_equal_size_has_a_folder_of_its_own_in_the_same_volume() -> None:
    one, other = with_volumes(), with_volumes(model=OTHER)
    assert document_of(one)["folder"] != document_of(other)["folder"]
    assert set_of(one)["spec"]["volumeClaimTemplates"] == set_of(other)["spec"]["volumeClaimTemplates"]
    assert in_the_way({KEY: set_of(other)}, {KEY: set_of(one)}, partial=False) == {}


@pytest.mark.parametrize(
    "claim", [{"size": "9Gi"}, {"storage_class": "fast"}, {"access_mode": "ReadWriteOncePod"}]
)
def test_what_a_volume_is_never_changes_so_the_set_is_made_anew(claim: Any) -> None:
    one, other = with_volumes(), with_volumes(claim=claim)
    assert other.desired.replaces(
        "objects/StatefulSet~1qwen/spec/volumeClaimTemplates/0/spec/storageClassName"
    )
    assert not other.desired.replaces("objects/StatefulSet~1qwen/spec/replicas")
    assert in_the_way({KEY: set_of(other)}, {KEY: set_of(one)}, partial=False).keys() == {KEY}


def live_with(image: str, resource: Resource[ClusterState]) -> Object:
    """As it was applied by another mp."""
    found = copy.deepcopy(set_of(resource))
    found["spec"]["template"]["spec"]["initContainers"][0]["image"] = f"{image}@sha256:{'a' * 64}"
    return found


def test_a_newer_mp_restarts_nothing_for_its_own_image() -> None:
    wanted, old = with_volumes(), "registry.acme.example/models/transformers.filler:mp-000000000000"
    live = {KEY: live_with(old, wanted)}

    def image(of: Resource[ClusterState]) -> str:
        found: str = set_of(with_its_filler(of, live))["spec"]["template"]["spec"]["initContainers"][0][
            "image"
        ]
        return found

    assert image(wanted) == old
    assert image(with_volumes(replicas=3)) == old  # a number of pods restarts none either
    assert image(with_volumes(model=OTHER)) != old
    assert with_its_filler(wanted, {}) is wanted
