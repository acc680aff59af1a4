"""A Workspace of others in words of models.yaml: what is told, what is a guess, and what is named because there is no word for it."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.views.imported import added
from pipeline.engine.importing import imported
from pipeline.manifest.read import read
from pipeline.targets.described import left_out
from pipeline.targets.kaito.describing import Around, describe

Object = dict[str, Any]  # Any: an object of the API
A100 = "Standard_NC48ads_A100_v4"
NODE: Object = {
    "metadata": {"name": "gpu-1", "labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
    "status": {"allocatable": {"nvidia.com/gpu": "8"}},
}


def workspace(inference: Object | None = None, resource: Object | None = None, **changed: Any) -> Object:
    return {
        "kind": "Workspace",
        "metadata": {"name": "phi"},
        "resource": {
            "instanceType": A100,
            "labelSelector": {"matchLabels": {"apps": "phi"}},
            **(resource or {}),
        },
        "inference": {"preset": {"name": "Qwen/Qwen3-8B"}, **(inference or {})},
        **changed,
    }


def test_preset_of_a_repository_is_its_source_and_its_config_map_tells_the_version() -> None:
    config = {"data": {"inference_config.yaml": f"vllm: {{revision: {'c' * 40}, max-model-len: 8192}}"}}
    found = describe(workspace({"config": "ds"}), Around(configs={"ds": config}))
    assert found is not None
    assert (found.source, found.version) == ("hf://Qwen/Qwen3-8B", "c" * 40)
    assert found.options["runs"] == {"preset": "Qwen/Qwen3-8B", "config": "ds"}
    assert "ConfigMap ds is left as it is, and says max-model-len, revision" in found.remarks


@pytest.mark.parametrize(
    ("one", "remark"),
    [
        (workspace(), "its version is not known"),
        (workspace({"preset": {"name": "phi-4"}}), "its repository is not known"),
        (workspace({"config": "gone"}), "ConfigMap gone is left as it is, and could not be read"),
        (workspace(resource={"labelSelector": {"matchExpressions": [{}]}}), "left as it is: labelSelector"),
        (workspace(resource={"instanceType": "Standard_X"}), 'the GPUs of instance type "Standard_X" are not known'),
        (
            workspace({"adapters": [{"source": {"name": "fr", "urls": ["https://h/x"]}}]}),
            "left as it is: adapters fr",
        ),
        (
            workspace({"adapters": [{"source": {"name": "fr", "image": "h/fr:1", "imagePullSecrets": ["x"]}}]}),
            "left as it is: adapters fr",
        ),
        (workspace(metadata={"name": "phi", "labels": {"team": "search"}}), "left as it is: labels team"),
        (
            workspace(metadata={"name": "phi", "annotations": {"argocd.argoproj.io/tracking-id": "shop:x"}}),
            "Argo CD applies it from shop",
        ),
    ],
)  # fmt: skip
def test_what_is_not_known_and_what_has_no_word_is_named(one: Object, remark: str) -> None:
    found = describe(one, Around())
    assert found is not None
    assert any(remark in each for each in found.remarks), found.remarks


def test_gpus_are_those_of_its_nodes_else_those_of_its_instance_type() -> None:
    found = describe(workspace(resource={"count": 2}), Around())
    assert found is not None
    assert (found.gpus.count, found.gpus.product, found.gpus.nodes) == (2, "A100-80GB", 2)
    there = workspace(resource={"instanceType": ""}, status={"workerNodes": ["gpu-1"]})
    found = describe(there, Around(nodes={"gpu-1": NODE}))
    assert found is not None
    assert (found.gpus.count, found.gpus.product, found.gpus.instance_type) == (8, "NVIDIA-L4", "")


def test_what_its_controller_makes_again_and_what_serves_nothing_is_left_out() -> None:
    owner = {"kind": "InferenceSet", "name": "phi", "controller": True}
    assert (
        left_out(workspace(metadata={"name": "phi-x", "ownerReferences": [owner]}))
        == "InferenceSet/phi made it"
    )
    tuning = {"kind": "Workspace", "metadata": {"name": "t"}, "tuning": {}}
    assert left_out(tuning) == "it tunes a model and serves none"
    assert left_out(workspace()) is None


def test_entries_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "version: 1\nproject: acme\ntargets:\n  aks: {kind: kaito, namespace: m, pull_secret: ghcr}\nmodels:\n"
    )
    document = read(file)
    assert document.manifest is not None
    adapter = {"source": {"name": "fr", "image": "h/fr:1", "imagePullSecrets": ["ghcr"]}, "strength": "0.5"}
    settings = {"image": "h/llama:1", "modelAccessSecret": "hub", "imagePullSecrets": ["ghcr"]}
    private = {
        "preset": {"name": "llama", "accessMode": "private", "presetOptions": settings},
        "adapters": [adapter],
    }
    both = workspace(private, metadata={"name": "phi", "annotations": {"kaito.sh/disable-benchmark": "true"}})
    bare = {"kind": "InferenceSet", "metadata": {"name": "bare"}, "spec": {"replicas": 2}}
    found = [describe(one, Around(pull_secret="ghcr")) for one in (both, bare)]
    text = added(document.text, imported(document.manifest, "aks", [one for one in found if one is not None]))
    assert text is not None
    file.write_text(text)
    again = read(file)
    assert again.manifest is not None, again.diagnostics
    assert list(again.manifest.models) == ["phi", "bare"]
    entry = again.manifest.models["phi"]
    options = entry.targets["aks"]
    assert (options.runs.preset, options.runs.image) == ("llama", "h/llama:1")
    assert (options.adapters[0].name, options.adapters[0].strength) == ("fr", 0.5)
    assert options.annotations == {"kaito.sh/disable-benchmark": "true"}
    assert again.manifest.hardware[entry.hardware or ""].instance_type == A100
    assert again.manifest.secrets["hub-hf-token"].kubernetes is not None
