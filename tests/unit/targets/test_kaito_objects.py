"""The objects that a model becomes under KAITO: what is promised of each, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from pipeline.core.errors import UserError
from pipeline.core.model import Artifact, FileEntry, Model, Overlay, Part, Secret
from pipeline.core.resource import Mark, Resource
from pipeline.resources.cluster.marks import key_of, mark_of
from pipeline.resources.cluster.sending import ordered
from pipeline.resources.cluster.state import ClusterState
from tests.parts.deployments import HASH, KEY, a_model
from tests.parts.schemas import KUBERNETES, mistakes
from tests.parts.workspaces import A100, ADAPTER, COMMIT, NODES, PRESET, WORKSPACES, hub, workspace

Object = dict[str, Any]  # Any: an object of the API
OTHER = "c" * 40


def objects(resource: Resource[ClusterState]) -> dict[str, Object]:
    """By kind."""
    return {str(one["kind"]): one for one in ordered(resource.desired.objects)}


def main(resource: Resource[ClusterState]) -> Object:
    found = objects(resource)
    return found.get("Workspace") or found["InferenceSet"]


def settings(resource: Resource[ClusterState]) -> dict[str, str]:
    """What the ConfigMap says to vLLM."""
    found: dict[str, str] = yaml.safe_load(objects(resource)["ConfigMap"]["data"]["inference_config.yaml"])[
        "vllm"
    ]
    return found


def name_of(resource: Resource[ClusterState]) -> str:
    return str(main(resource)["metadata"]["name"])


@pytest.mark.parametrize("name", WORKSPACES)
def test_objects_bear_their_own_mark_and_the_service_comes_last(name: str) -> None:
    made = workspace(**WORKSPACES[name])
    for key, one in made.desired.objects.items():
        assert isinstance(one, dict)
        assert key == key_of(one)
        assert mark_of(one) == Mark("acme", "default", made.address)
    recipe = made.desired.recipe
    assert recipe is not None
    assert recipe.last == (f"Service/{made.locator['name']}",)
    assert recipe.last[0] in made.desired.objects


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", WORKSPACES)
def test_every_form_passes_the_strict_schemas_of_kaito_and_of_kubernetes(name: str, version: str) -> None:
    for one in ordered(workspace(**WORKSPACES[name]).desired.objects):
        assert mistakes(one, version) == []
        inference = one.get("inference") or one.get("spec", {}).get("template", {}).get("inference") or {}
        if "template" in inference:  # KAITO's definition says nothing of a pod's fields
            spec = inference["template"]["spec"]
            template = {"metadata": {}, "spec": spec}
            whole = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "x"},
                "spec": {"selector": {}, "template": template},
            }
            assert mistakes(whole, version) == []


def test_own_image_is_a_pod_template_on_a_node_of_the_instance_type() -> None:
    made = workspace()
    assert made.needs == ("qwen/image:main",)
    one = main(made)
    assert one["apiVersion"] == "kaito.sh/v1beta1"
    assert one["resource"]["instanceType"] == "Standard_NC24ads_A100_v4"
    (container,) = one["inference"]["template"]["spec"]["containers"]
    assert container["image"].startswith("127.0.0.1:5000/acme/qwen:mp-")
    assert container["ports"][0]["containerPort"] == 5000  # where KAITO's own Service sends requests
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "affinity" not in one["inference"]["template"]["spec"]  # KAITO writes its own in its place


def test_service_keeps_its_name_and_selects_the_pods_of_this_version_alone() -> None:
    labels = {1: "kaito.sh/workspace", 2: "inferenceset.kaito.sh/created-by"}
    for replicas, label in labels.items():
        made = workspace(replicas=replicas)
        service = objects(made)["Service"]
        assert service["metadata"]["name"] == "qwen"
        assert service["spec"]["selector"] == {label: name_of(made)}
        assert service["spec"]["ports"][0]["targetPort"] == 5000
    preset = objects(workspace(**PRESET))["Service"]["spec"]["selector"]
    assert preset["apps.kubernetes.io/pod-index"] == "0"  # of a group on several nodes the first answers


def test_nodes_that_kaito_makes_are_for_one_version_alone() -> None:
    made = workspace()
    assert main(made)["resource"]["labelSelector"] == {"matchLabels": {"dev.mp.deployment": name_of(made)}}
    given = workspace(a_model(), **NODES)
    assert main(given)["resource"]["labelSelector"] == {"matchLabels": {"pool": "models"}}


@pytest.mark.parametrize(
    "options",
    [
        {"model": a_model("vllm", replace(A100, instance_type="Standard_NC48ads_A100_v4"))},
        {"model": a_model("vllm", A100, max_model_len=512)},
        {"model": a_model("vllm", A100, env={"A": "b"})},
        {"node_labels": {"pool": "models"}},
        {"annotations": {"kaito.sh/enablelb": "true"}},
        {"object": "InferenceSet"},
        {"memory": "8Gi"},
    ],
)
def test_what_kaito_refuses_or_does_not_roll_out_is_another_object(options: dict[str, Any]) -> None:
    before, after = workspace(), workspace(**options)
    assert name_of(before) != name_of(after)
    old = f"{main(before)['kind']}/{name_of(before)}".replace("/", "~1")
    assert after.desired.replaces(f"objects/{old}")
    new = f"{main(after)['kind']}/{name_of(after)}".replace("/", "~1")
    assert not after.desired.replaces(f"objects/{new}")  # it is made, or put back as it was


def test_how_many_replicas_there_are_changes_no_name() -> None:
    two, five = workspace(replicas=2), workspace(replicas=5)
    assert name_of(two) == name_of(five)
    assert main(five)["spec"]["replicas"] == 5
    scaled = workspace(annotations={"scaledobject.kaito.sh/max-replicas": "4"})
    assert "replicas" not in main(scaled)["spec"]
    assert main(scaled)["metadata"]["annotations"]["scaledobject.kaito.sh/max-replicas"] == "4"


def test_preset_is_pinned_to_what_the_lock_says() -> None:
    made = workspace(**PRESET)
    assert made.needs == ()
    assert main(made)["inference"]["preset"] == {"name": "Qwen/Qwen3-8B"}
    assert main(made)["inference"]["config"] == objects(made)["ConfigMap"]["metadata"]["name"]
    assert settings(made) == {
        "revision": COMMIT,
        "tokenizer-revision": COMMIT,
        "code-revision": COMMIT,
        "served-model-name": "qwen",
    }
    moved = workspace(hub(OTHER), preset="Qwen/Qwen3-8B")
    assert settings(moved)["revision"] == OTHER
    assert name_of(moved) != name_of(made)


def test_preset_has_the_entrys_settings_adapters_and_secrets_by_name() -> None:
    made = workspace(**WORKSPACES["preset-with-all"])
    inference = main(made)["inference"]
    assert inference["preset"]["presetOptions"] == {"modelAccessSecret": "hf"}
    source = {"name": "fr", "image": ADAPTER["image"], "imagePullSecrets": ["ghcr"]}
    assert inference["adapters"] == [{"source": source, "strength": "0.5"}]
    assert settings(made)["max-num-seqs"] == "8"
    assert settings(made)["max-model-len"] == "8192"
    other = replace_adapter(f"127.0.0.1:5000/acme/fr@sha256:{'d' * 64}")
    assert name_of(workspace(**other)) != name_of(made)


def replace_adapter(image: str) -> dict[str, Any]:
    return {**WORKSPACES["preset-with-all"], "adapters": [{**ADAPTER, "image": image}]}


def test_tokenizer_from_elsewhere_is_pinned_too() -> None:
    files = (FileEntry("tokenizer.json", 9, HASH),)
    part = Part("tokenizer", Artifact("hf://Qwen/Tokenizer", "main", OTHER, files))
    found = settings(workspace(hub(parts=(part,)), preset="Qwen/Qwen3-8B"))
    assert (found["tokenizer"], found["tokenizer-revision"]) == ("Qwen/Tokenizer", OTHER)
    assert found["revision"] == COMMIT


def test_several_nodes_of_a_preset_are_counted_and_private_images_are_for_old_versions() -> None:
    assert main(workspace(**WORKSPACES["preset-on-nodes"]))["resource"]["count"] == 2
    preset = main(workspace(**WORKSPACES["preset-of-an-old-kaito"]))["inference"]["preset"]
    assert preset["accessMode"] == "private"
    assert preset["presetOptions"] == {"image": "ghcr.io/acme/llama:0.1", "imagePullSecrets": ["ghcr"]}


UNPLACED = Secret("hub", "HF_TOKEN")
OVERLAY = Overlay("chat_template.jinja", HASH, 9, "/nowhere")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": a_model("vllm", replace(A100, instance_type=None))}, "has no instance_type"),
        ({"name": "q" * 37, "environment": "default", "model": a_model("vllm", A100)}, None),
        ({"model": replace(a_model("vllm", A100), name="q" * 38)}, "37 characters at most"),
        ({"object": "Workspace", "replicas": 2}, "a Workspace is one replica, not 2"),
        ({"replicas": 2, "preferred_nodes": ["a"]}, "an InferenceSet prefers no nodes"),
        ({"node_labels": {"kaito.sh/workspace": "x"}}, "labels of KAITO's own"),
        ({"adapters": [ADAPTER]}, "adapters of a target belong to a preset"),
        ({"image": "ghcr.io/acme/x:1"}, "belongs to a preset of an old KAITO"),
        ({"model": a_model("vllm", replace(A100, nodes=2))}, "one node each"),
        ({"model": a_model("vllm", A100, secret_env={"HF_TOKEN": UNPLACED})}, "has no place in a cluster"),
        ({"partition": {"mode": "mig", "profile": "3g.40gb"}}, "nodes that are there"),
        ({"model": a_model("vllm", A100), "preset": "phi-4"}, 'not from "file:///m"'),
        ({"model": hub(), "preset": "Qwen/Other"}, 'do not fit preset "Qwen/Other"'),
        ({"model": hub(overlays=(OVERLAY,)), "preset": "phi-4"}, "takes no chat template"),
        ({"model": hub(env={"A": "b"}), "preset": "phi-4"}, "takes no environment variables: A"),
        ({"model": hub(api_key=KEY), "preset": "phi-4"}, "asks clients for no key"),
        ({"model": hub(secret_env={"HF_TOKEN": UNPLACED}), "preset": "phi-4"}, "reads the key HF_TOKEN"),
        ({"model": hub(secret_env={"OTHER": UNPLACED}), "preset": "phi-4"}, "takes no secret but HF_TOKEN"),
        ({"model": hub(args={"enforce-eager": True}), "preset": "phi-4"}, "is a switch"),
        ({"model": hub(args={"data_parallel_size": 1}), "preset": "phi-4"}, "is not yours to set"),
        ({**PRESET, "annotations": {"kaito.sh/runtime": "transformers"}}, "takes no revision"),
        ({"model": hub(), "preset": "phi-4", "image": "ghcr.io/acme/x:1"}, "only KAITO 0.4 and older"),
        ({"model": hub(), "preset": "phi-4", "adapters": [ADAPTER, ADAPTER]}, 'two adapters are called "fr"'),
    ],
)
def test_what_kaito_cannot_do_is_refused_with_a_way_out(options: dict[str, Any], said: str | None) -> None:
    if said is None:
        workspace(**options)
        return
    with pytest.raises(UserError) as caught:
        workspace(**options)
    (problem,) = [one for one in caught.value.diagnostics if said in one.summary]
    assert problem.hint


def test_apply_waits_for_a_node_that_is_made_and_for_bytes_that_are_pulled() -> None:
    def waited_s(model: Model) -> int:
        recipe = workspace(model, preset="Qwen/Qwen3-8B").desired.recipe
        assert recipe is not None
        return recipe.start_timeout_s

    large = replace(hub().artifact, files=(FileEntry("model.safetensors", 100 * 2**30, HASH),))
    assert 1800 <= waited_s(hub()) < waited_s(replace(hub(), artifact=large)) <= 10800
