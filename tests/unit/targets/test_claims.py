"""Weights in a claim: what the claim and the Job are, when there is another claim, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.digest import Digest
from pipeline.core.errors import UserError
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry, Overlay
from pipeline.core.resource import Entry, Mark, Observed, Resource, Version, fields_of
from pipeline.resources.cluster.filling import objects_of
from pipeline.resources.cluster.marks import FILLED, mark_of
from pipeline.resources.cluster.restoring import as_it_was, recalled
from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState
from tests.parts.deployments import FAR, H100X16, HASH, L40S, MAIN, a_model, deployment

Object = dict[str, Any]  # Any: an object of the API

GIB = 2**30


def with_claim(registry: Registry = FAR, **options: Any) -> Resource[ClusterState]:
    return deployment(**{"registry": registry, "weights": "pvc", **options})


def recipe_of(resource: Resource[ClusterState]) -> ClusterRecipe:
    assert resource.desired.recipe is not None
    return resource.desired.recipe


def claim_of(resource: Resource[ClusterState]) -> Object:
    (found,) = [one for one in ordered(resource.desired.objects) if one["kind"] == "PersistentVolumeClaim"]
    return found


def task_of(resource: Resource[ClusterState]) -> tuple[Object, Object]:
    """The ConfigMap and the Job that fill the claim."""
    ((_, task),) = recipe_of(resource).tasks.items()
    config, job = task
    assert isinstance(config, dict)
    assert isinstance(job, dict)
    return config, job


def pod_of(resource: Resource[ClusterState]) -> Object:
    (workload,) = [one for one in ordered(resource.desired.objects) if one["kind"] == "Deployment"]
    found: Object = workload["spec"]["template"]["spec"]
    return found


def mounted(resource: Resource[ClusterState]) -> tuple[Object, Object]:
    """The volume of the weights and its mount."""
    pod = pod_of(resource)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "weights"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "weights"]
    return volume, mount


def sized(size_bytes: int) -> Artifact:
    return Artifact("file:///m", "", f"sha256-{HASH}", (FileEntry("model.safetensors", size_bytes, HASH),))


def test_claim_is_an_object_of_the_deployment_and_holds_what_the_launch_looks_for() -> None:
    made = with_claim()
    claim = claim_of(made)
    assert mark_of(claim) == Mark("acme", "default", made.address)
    volume, mount = mounted(made)
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert (mount["mountPath"], mount["subPath"], mount["readOnly"]) == ("/mnt/models", "models", True)
    kinds = [one["kind"] for one in ordered(made.desired.objects)]
    assert kinds.index("PersistentVolumeClaim") < kinds.index("Deployment")
    assert "Job" not in kinds  # it goes when the claim is filled, and is not missed


def test_job_is_told_the_weights_image_and_the_hash_of_every_file() -> None:
    overlay = Overlay("chat_template.jinja", "b" * 64, 7, "/home/me/chat.jinja")
    made = with_claim(model=a_model(overlays=(overlay,)))
    config, _ = task_of(made)
    document = json.loads(config["data"]["fill.json"])
    assert document["files"] == [["chat_template.jinja", 7, "b" * 64], ["model.safetensors", 9, HASH]]
    assert f"{document['registry']}/{document['repository']}:{document['tag']}" in recipe_of(made).images


def test_job_runs_mps_own_image_by_digest_without_token_or_privilege() -> None:
    made = with_claim()
    config, job = task_of(made)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert made.needs == (
        f"@engine/{a_model().engine.key}:main",
        f"@filler/{a_model().engine.key}:main",
        "qwen/weights:main",
    )
    assert recipe_of(made).images[container["image"]] == made.needs[1]
    digest = f"sha256:{HASH}"
    sent = written(job, {container["image"]: digest})
    assert sent["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f"@{digest}")
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["weights"]["persistentVolumeClaim"]["claimName"] == claim_of(made)["metadata"]["name"]
    assert volumes["document"]["configMap"]["name"] == config["metadata"]["name"]


def test_pods_of_the_job_are_nothing_to_the_service_and_the_budget() -> None:
    made = with_claim(replicas=2, claim={"access_mode": "ReadWriteMany"})
    labels = task_of(made)[1]["spec"]["template"]["metadata"]["labels"]
    service = next(one for one in ordered(made.desired.objects) if one["kind"] == "Service")
    assert not labels.keys() & service["spec"]["selector"].keys()


def test_job_goes_where_the_server_can_and_takes_no_gpu() -> None:
    made = with_claim(model=a_model("vllm", L40S))
    job, server = task_of(made)[1]["spec"]["template"]["spec"], pod_of(made)
    assert job["affinity"] == server["affinity"]
    assert job["tolerations"] == server["tolerations"]
    assert "nvidia.com/gpu" not in json.dumps(job["containers"])


def test_registry_login_is_the_pull_secret_and_its_value_is_nowhere() -> None:
    made = with_claim(spec={"pull_secret": "ghcr"})
    pod = task_of(made)[1]["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "ghcr"}]
    login = next(one["secret"] for one in pod["volumes"] if one["name"] == "login")
    assert login["secretName"] == "ghcr"
    assert login["items"] == [{"key": ".dockerconfigjson", "path": "config.json"}]
    assert "env" not in task_of(with_claim())[1]["spec"]["template"]["spec"]["containers"][0]


def test_certificates_of_the_registry_come_along(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    config, _ = task_of(with_claim(replace(FAR, ca=str(tmp_path / "ca.pem"))))
    assert config["data"]["ca.pem"] == "-----BEGIN CERTIFICATE-----"
    assert json.loads(config["data"]["fill.json"])["ca"] == "/etc/mp/ca.pem"


@pytest.mark.parametrize(
    ("size_bytes", "storage"), [(9, "1Gi"), (GIB, "2Gi"), (100 * GIB, "110Gi"), (10 * GIB, "11Gi")]
)
def test_claim_is_as_large_as_the_files_and_a_tenth(size_bytes: int, storage: str) -> None:
    claim = claim_of(with_claim(model=a_model(artifact=sized(size_bytes))))
    assert claim["spec"]["resources"]["requests"]["storage"] == storage


def test_size_is_grown_in_place_and_all_else_makes_another_claim_beside_it() -> None:
    names = [
        claim_of(with_claim(**options))["metadata"]["name"]
        for options in (
            {},
            {"claim": {"size": "20Gi"}},
            {"model": a_model(env={"A": "1"})},
            {"claim": {"storage_class": "fast"}},
            {"claim": {"access_mode": "ReadWriteMany"}},
            {"model": a_model(artifact=replace(sized(9), files=(FileEntry("a.safetensors", 9, "b" * 64),)))},
        )
    ]
    assert names[0] == names[1] == names[2]
    assert len(set(names)) == 4


def test_claim_says_what_it_holds_once_it_is_filled() -> None:
    one, other = (claim_of(with_claim(model=a_model(artifact=sized(size)))) for size in (9, 10))
    assert one["metadata"]["annotations"][FILLED] == other["metadata"]["annotations"][FILLED]  # by hashes


def test_changed_job_has_another_name_for_it_cannot_be_changed() -> None:
    first, second = with_claim(), with_claim(spec={"pull_secret": "ghcr"})
    names = [[one["metadata"]["name"] for one in task_of(made)] for made in (first, second)]
    assert names[0][0] == names[0][1] != names[1][0]
    assert claim_of(first) == claim_of(second)


def test_names_fit_where_the_name_of_the_entry_is_the_longest() -> None:
    config, job = task_of(with_claim(name="q" * 63))
    assert len(job["metadata"]["name"]) <= 63
    assert config["metadata"]["name"] == job["metadata"]["name"]


def test_old_pod_goes_first_where_one_node_mounts_the_claim() -> None:
    def strategy(**claim: str) -> str:
        made = with_claim(claim=claim)
        workload = next(one for one in ordered(made.desired.objects) if one["kind"] == "Deployment")
        return str(workload["spec"]["strategy"]["type"])

    assert strategy() == "Recreate"
    assert strategy(access_mode="ReadWriteMany") == "RollingUpdate"


def test_claim_of_somebody_else_is_mounted_and_nothing_is_made() -> None:
    made = with_claim(MAIN, claim={"name": "shared", "path": "models/qwen"})
    volume, mount = mounted(made)
    assert volume["persistentVolumeClaim"] == {"claimName": "shared"}
    assert (mount["subPath"], mount["readOnly"]) == ("models/qwen", True)
    assert made.needs == (f"@engine/{a_model().engine.key}:main",)
    assert not recipe_of(made).tasks
    assert not any(key.startswith("PersistentVolumeClaim/") for key in made.desired.objects)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"replicas": 2, "claim": {"per": "model"}}, "2 pods mount one claim"),
        ({"replicas": 2, "claim": {"name": "shared"}}, "only one node may mount it"),
        ({"replicas": 2, "claim": {"per": "model", "access_mode": "ReadWriteOncePod"}}, "only one pod may"),
        ({"claim": {"name": "shared", "per": "replica"}}, "is one claim, and per: replica asks"),
        ({"claim": {"size": "0Gi"}}, "size 0Gi is too small: the files take"),
        ({"claim": {"size": "1B"}}, "size 1B is too small: the files take"),
        ({"name": "q" * 53, "replicas": 2}, "too long a name for replicas with volumes"),
        (
            {"model": a_model("vllm", H100X16), "claim": {"per": "replica", "access_mode": "ReadWriteMany"}},
            "several nodes",
        ),
        (
            {"replicas": 2, "rollout": {"strategy": "canary"}},
            "has no canary: each of its replicas owns a volume",
        ),
        ({"rollout": {"strategy": "canary"}}, "has no canary: its pods share a claim"),
        ({"registry": MAIN}, "pods cannot reach the registry"),
        ({"claim": {"name": "shared", "size": "2Gi"}}, "is somebody else's"),
        ({"claim": {"path": "deep"}}, "path: is for a claim that somebody else fills"),
        ({"registry": replace(FAR, ca="/nowhere/ca.pem")}, "certificates"),
        ({"registry": replace(FAR, ca=f"/nowhere/{'c' * 300}.pem")}, "certificates"),
        ({"registry": replace(FAR, ca="/nowhere/\0")}, "certificates"),
    ],
)
def test_what_cannot_be_is_said_before_anything_moves(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        with_claim(**options)
    assert any(words in one.summary for one in refused.value.diagnostics)


def test_version_that_is_brought_back_knows_how_its_claim_is_filled() -> None:
    made = with_claim()
    digests = {where: Observed(made.desired, digest=Digest(f"sha256:{HASH}")) for where in made.needs}
    record = json.loads(json.dumps(recalled(made, digests)))
    state = fields_of(made.desired)
    entry = Entry(made.address, made.kind, made.locator, None, None, state, state)
    back = as_it_was(entry, Version(state, 0.0, recipe=record))
    ((key, task),) = recipe_of(back).tasks.items()
    assert objects_of(task) == task_of(made)
    assert key in back.desired.objects
    image = task_of(made)[1]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert recipe_of(back).digests[image] == f"sha256:{HASH}"
