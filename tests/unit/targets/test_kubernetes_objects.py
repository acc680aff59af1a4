"""The objects that a model becomes in a cluster: what is promised of each, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.errors import UserError
from pipeline.core.image import Registry
from pipeline.core.model import Hardware, Model, Secret
from pipeline.core.resource import Mark, Resource, address
from pipeline.resources.cluster.marks import fingerprint_of, key_of, mark_of
from pipeline.resources.cluster.pod import cores, quantity
from pipeline.resources.cluster.products import products_of
from pipeline.resources.cluster.sending import images_of, ordered, written
from pipeline.resources.cluster.state import ClusterState
from tests.parts.deployments import CPU, DEPLOYMENTS, KEY, L40S, MAIN, TOKEN, a_model, deployment

Object = dict[str, Any]  # Any: an object of the API


def objects(resource: Resource[ClusterState]) -> dict[str, Object]:
    """By kind."""
    return {str(one["kind"]): one for one in ordered(resource.desired.objects)}


def pod(resource: Resource[ClusterState]) -> Object:
    """Of those that answer requests."""
    each = objects(resource)
    if "LeaderWorkerSet" in each:
        template: Object = each["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
    else:
        template = each.get("StatefulSet", each.get("Deployment", {}))["spec"]["template"]
    found: Object = template["spec"]
    return found


def server(resource: Resource[ClusterState]) -> Object:
    (container,) = pod(resource)["containers"]
    assert isinstance(container, dict)
    return container


def launch(resource: Resource[ClusterState]) -> Object:
    found: Object = json.loads(objects(resource)["ConfigMap"]["data"]["launch.json"])
    return found


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_objects_come_in_the_order_they_need_one_another_and_bear_their_own_mark(name: str) -> None:
    made = deployment(**DEPLOYMENTS[name])
    kinds = [one["kind"] for one in ordered(made.desired.objects)]
    order = [
        "ServiceAccount",
        "ConfigMap",
        "PersistentVolumeClaim",
        "Service",
        "PodDisruptionBudget",
        "Deployment",
        "StatefulSet",
        "LeaderWorkerSet",
        "HorizontalPodAutoscaler",
        "ScaledObject",
    ]
    assert kinds == sorted(kinds, key=order.index)
    for key, one in made.desired.objects.items():
        assert isinstance(one, dict)
        assert key == key_of(one)
        assert mark_of(one) == Mark("acme", "default", made.address)


def test_copied_object_is_nobodys() -> None:
    copy = json.loads(json.dumps(objects(deployment())["Service"]))
    copy["metadata"]["name"] = "qwen-copy"
    assert mark_of(copy) is None


def test_state_names_images_by_tag_and_what_is_sent_names_them_by_digest() -> None:
    made = deployment(weights="volume")
    recipe = made.desired.recipe
    assert recipe is not None
    digests = {image: f"sha256:{number:064x}" for number, image in enumerate(recipe.images)}
    stated = objects(made)["Deployment"]
    sent = written(stated, digests)
    assert sorted(images_of(stated)) == sorted(recipe.images)
    assert sorted(images_of(sent)) == sorted(f"{image}@{digest}" for image, digest in digests.items())
    assert fingerprint_of(sent) == fingerprint_of(written(stated, {})) != ""
    assert fingerprint_of(stated) == ""


def test_needs_are_the_images_that_the_pod_names() -> None:
    baked, mounted = deployment(), deployment(weights="volume")
    assert baked.needs == ("qwen/image:main",)
    assert mounted.needs == (f"@engine/{a_model().engine.key}:main", "qwen/weights:main")
    assert baked.locator == {"context": "", "namespace": "models", "name": "qwen"}


def test_weights_image_is_mounted_where_the_launch_looks_for_them() -> None:
    mounted = deployment(weights="volume")
    volume = next(one for one in pod(mounted)["volumes"] if "image" in one)
    mount = next(one for one in server(mounted)["volumeMounts"] if one["name"] == volume["name"])
    assert (mount["mountPath"], mount["readOnly"]) == ("/mnt", True)
    assert launch(mounted)["model"] == "/mnt/models"  # a weights image has them under /models
    assert launch(deployment())["model"] == "/models"


def test_changed_launch_is_another_config_map_and_another_pod_template() -> None:
    before = deployment(a_model(env={"A": "1"}))
    after = deployment(a_model(env={"A": "2"}))
    names = [objects(one)["ConfigMap"]["metadata"]["name"] for one in (before, after)]
    assert names[0] != names[1]
    for one, name in zip((before, after), names, strict=True):
        assert {"name": "launch", "configMap": {"name": name, "defaultMode": 0o444}} in pod(one)["volumes"]
        assert objects(one)["ConfigMap"]["immutable"] is True


def test_selector_holds_nothing_that_changes_while_the_name_stays() -> None:
    before = deployment(name="front")
    after = deployment(replace(a_model("vllm", L40S), name="other"), name="front", replicas=4)
    first, second = (objects(one)["Deployment"]["spec"] for one in (before, after))
    assert (
        first["selector"]
        == second["selector"]
        == {"matchLabels": objects(after)["Service"]["spec"]["selector"]}
    )
    assert first["selector"]["matchLabels"].items() <= second["template"]["metadata"]["labels"].items()


def test_three_time_outs_agree() -> None:
    made = deployment()
    assert made.desired.recipe is not None
    probe = server(made)["startupProbe"]
    startup = probe["periodSeconds"] * probe["failureThreshold"]
    deadline = objects(made)["Deployment"]["spec"]["progressDeadlineSeconds"]
    assert startup < deadline < made.desired.recipe.start_timeout_s


def test_deadline_leaves_time_to_pull_the_weights() -> None:
    model = a_model()
    file = replace(model.artifact.files[0], size_bytes=140 * 10**9)
    large = replace(model, artifact=replace(model.artifact, files=(file,)))
    little, much = (
        objects(deployment(m))["Deployment"]["spec"]["progressDeadlineSeconds"] for m in (model, large)
    )
    assert much - little > 140e9 / 100e6  # at 100 MB/s


def test_gpu_model_asks_for_its_product_and_a_new_pod_comes_before_an_old_one_goes() -> None:
    made = deployment(a_model("vllm", L40S))
    (term,) = pod(made)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [
        {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L40S"]}
    ]
    amounts = {"cpu": "1500m", "memory": "48Gi", "nvidia.com/gpu": "2"}
    assert server(made)["resources"] == {"requests": amounts, "limits": amounts}
    assert pod(made)["tolerations"][0]["key"] == "nvidia.com/gpu"
    rolling = objects(made)["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    shm = next(one for one in pod(made)["volumes"] if one["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in server(made)["volumeMounts"]


def test_cpu_model_is_rolled_out_without_a_gap() -> None:
    strategy = objects(deployment())["Deployment"]["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert "affinity" not in pod(deployment())


def test_only_several_replicas_have_a_disruption_budget() -> None:
    assert "PodDisruptionBudget" not in objects(deployment())
    assert objects(deployment(replicas=2))["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_secrets_are_named_and_never_held() -> None:
    made = deployment(a_model(api_key=KEY, secret_env={"HF_TOKEN": TOKEN}))
    files = launch(made)["secrets"]
    volume = next(one for one in pod(made)["volumes"] if one["name"] == "secrets")
    mount = next(one for one in server(made)["volumeMounts"] if one["name"] == "secrets")
    mounted = {
        f"{mount['mountPath']}/{item['path']}": (source["secret"]["name"], item["key"])
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert mounted[files["HF_TOKEN"]] == ("hf", "token")
    assert sorted(mounted) == sorted(files.values())
    assert volume["projected"]["defaultMode"] & 0o007 == 0  # others read nothing
    assert all("env" not in one for one in pod(made)["containers"])


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pod_has_no_privilege_and_no_token(name: str) -> None:
    made = deployment(**DEPLOYMENTS[name])
    spec, container = pod(made), server(made)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert objects(made)["ServiceAccount"]["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_pull_secret_is_the_targets() -> None:
    assert pod(deployment(spec={"pull_secret": "ghcr"}))["imagePullSecrets"] == [{"name": "ghcr"}]
    assert "imagePullSecrets" not in pod(deployment())


def test_what_is_not_declared_is_not_limited() -> None:
    assert "resources" not in server(deployment(a_model(hardware=Hardware("cpu", 0))))
    amounts = {"memory": "3Gi"}
    limited = server(deployment(a_model(hardware=Hardware("cpu", 0)), memory="3Gi"))["resources"]
    assert limited == {"requests": amounts, "limits": amounts}


REFUSED: dict[str, tuple[Model, Registry, str]] = {
    "layout": (
        a_model(),
        Registry("here", layout="/srv/layouts"),
        'qwen: a cluster cannot pull "here", which is a layout folder',
    ),
    "secret": (
        a_model(secret_env={"HF_TOKEN": Secret("hub", "HF_TOKEN")}),
        MAIN,
        'qwen: secret "hub" has no place in a cluster',
    ),
    "gpu": (
        a_model("vllm", replace(L40S, gpu="L99")),
        MAIN,
        'qwen: no node label is known for the GPU "L99"',
    ),
    "name": (
        replace(a_model(), name="4bit"),
        MAIN,
        '4bit: "4bit" is no name of a Service: a letter first, and 63 characters at most',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_cluster_cannot_do_is_the_users_error(case: str) -> None:
    model, registry, summary = REFUSED[case]
    with pytest.raises(UserError) as refused:
        deployment(model, registry=registry)
    assert [d.summary for d in refused.value.diagnostics] == [summary]
    assert all(d.hint for d in refused.value.diagnostics)


def test_name_is_the_models_with_the_environment_before_it_unless_one_is_given() -> None:
    names = [
        deployment().locator["name"],
        deployment(environment="staging").locator["name"],
        deployment(name="front", environment="staging").locator["name"],
    ]
    assert names == ["qwen", "staging-qwen", "front"]
    assert deployment().address == address("qwen", "kubernetes", "prod")


@pytest.mark.parametrize(
    ("gpu", "labels"),
    [
        ("L40S", ("NVIDIA-L40S",)),
        ("h100 nvl", ("NVIDIA-H100-NVL",)),
        ("NVIDIA-Something-New", ("NVIDIA-Something-New",)),
        ("L99", ()),
        ("", ()),
    ],
)
def test_gpu_of_a_hardware_class_is_the_label_of_its_nodes(gpu: str, labels: tuple[str, ...]) -> None:
    assert products_of(gpu) == labels


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (2**31, "2Gi"),
        (1500 * 2**20, "1500Mi"),
        (1_500_000_000, "1500M"),
        (2**40, "1Ti"),
        (1001, "1001"),
    ],
)
def test_sizes_are_written_as_the_server_has_them(size: int, text: str) -> None:
    assert quantity(size) == text


def test_cores_are_written_as_the_server_has_them() -> None:
    assert [cores(each) for each in (2.0, 0.5, 1.25, 0.0001)] == ["2", "500m", "1250m", "1m"]


def test_cpu_change_touches_the_pod_and_no_image() -> None:
    before, after = deployment(), deployment(a_model(hardware=replace(CPU, cpus=4)))
    assert before.desired.recipe is not None and after.desired.recipe is not None
    assert before.desired.recipe.images == after.desired.recipe.images
    assert server(before)["resources"] != server(after)["resources"]
