"""Models as a kaito target expands them, in every form that there is, for tests of their objects."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry, Hardware, Model, Secret
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource
from pipeline.resources.cluster.state import ClusterState
from pipeline.targets.kaito import KaitoOptions, KaitoSpec, KaitoTarget
from pipeline.templates import TEMPLATES
from tests.parts.deployments import HASH, KEY, MAIN, TOKEN, a_model
from tests.parts.stated import require_possible

COMMIT = "b" * 40
A100 = Hardware("a100", 1, "A100", 80.0, instance_type="Standard_NC24ads_A100_v4")
NODES: Mapping[str, Any] = {"node_labels": {"pool": "models"}}
HUB_TOKEN = Secret("hub", "HF_TOKEN", kubernetes=("hf", "HF_TOKEN"))
ADAPTER: Mapping[str, Any] = {"name": "fr", "image": f"127.0.0.1:5000/acme/fr@sha256:{HASH}", "strength": 0.5}


def hub(pin: str = COMMIT, **changed: Any) -> Model:
    """A model of the Hugging Face Hub, on nodes that KAITO makes."""
    files = (FileEntry("model.safetensors", 9, HASH),)
    artifact = Artifact("hf://Qwen/Qwen3-8B", "main", pin, files)
    return replace(a_model("vllm", A100), artifact=artifact, **changed)


def workspace(
    model: Model | None = None,
    spec: Mapping[str, Any] | None = None,
    registry: Registry = MAIN,
    environment: str = "default",
    **options: object,
) -> Resource[ClusterState]:
    """One model at the target "aks". Raises UserError for what KAITO cannot do."""
    model = model or a_model("vllm", A100)
    read = KaitoSpec.model_validate({"kind": "kaito", "namespace": "models", **(spec or {})})
    place = Place("aks", read, KaitoOptions.model_validate(options), registry, "acme", environment)
    require_possible(KaitoTarget(), place, model)
    template = TEMPLATES[model.template]
    launch = template.launch(model, template.variant(model.engine.version, model.hardware))
    return next(iter(KaitoTarget().expand(place, model, template.build(model.engine), launch)))


PRESET: Mapping[str, Any] = {"model": hub(), "preset": "Qwen/Qwen3-8B"}

# Everything that makes objects differ, a name each.
WORKSPACES: Mapping[str, Mapping[str, Any]] = {
    "own-image": {},
    "own-image-on-nodes": {"model": a_model(), **NODES},
    "replicas": {"replicas": 3},
    "none-running": {"replicas": 0},
    "set-of-one": {"object": "InferenceSet"},
    "scaled": {"annotations": {"scaledobject.kaito.sh/auto-provision": "true"}},
    "secrets": {
        "model": a_model("vllm", A100, api_key=KEY, secret_env={"HF_TOKEN": TOKEN}),
        "spec": {"pull_secret": "ghcr"},
        "name": "front-door",
    },
    "preset": PRESET,
    "preset-on-nodes": {
        "model": hub(hardware=Hardware("byo", 2, "A100", 80.0, nodes=2)),
        "preset": "phi-4",
        **NODES,
        "preferred_nodes": ["gpu-1"],
    },
    "preset-with-all": {
        "model": hub(secret_env={"HF_TOKEN": HUB_TOKEN}, max_model_len=8192, args={"max_num_seqs": 8}),
        "preset": "Qwen/Qwen3-8B",
        "adapters": [ADAPTER],
        "spec": {"pull_secret": "ghcr"},
        "annotations": {"kaito.sh/disable-benchmark": "true"},
    },
    "preset-replicas": {**PRESET, "replicas": 2},
    "preset-of-an-old-kaito": {
        **PRESET,
        "image": "ghcr.io/acme/llama:0.1",
        "spec": {"kaito": "0.4", "pull_secret": "ghcr"},
    },
    "slice": {
        "model": a_model("vllm", Hardware("byo", 1, "A100", 80.0)),
        **NODES,
        "partition": {"mode": "mig", "profile": "3g.40gb"},
    },
}
