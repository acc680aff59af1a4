"""Models as a kubernetes target expands them, small ones and large ones, for tests of their objects."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.core.image import Engine, Registry
from pipeline.core.model import Artifact, FileEntry, Hardware, Model, Secret
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource
from pipeline.resources.cluster.state import ClusterState
from pipeline.targets.kubernetes import KubernetesOptions, KubernetesSpec, KubernetesTarget
from pipeline.templates import TEMPLATES
from tests.parts.stated import require_possible

MAIN = Registry("main", url="127.0.0.1:5000/acme")
FAR = Registry("main", url="registry.acme.example/models")  # pods reach it
HASH = "a" * 64
CPU = Hardware("cpu", 0, cpus=2, memory_bytes=2**31)
L40S = Hardware("l40s", 2, "L40S", 44.0, cpus=1.5, memory_bytes=48 * 2**30)
H100X16 = Hardware("h100x16", 8, "H100", 80.0, cpus=32, memory_bytes=512 * 2**30, nodes=2)
TOKEN = Secret("hub", "HF_TOKEN", kubernetes=("hf", "token"))
KEY = Secret("key", "API_KEY", kubernetes=("qwen", "api-key"))


def a_model(template: str = "transformers", hardware: Hardware = CPU, **changed: Any) -> Model:
    variant = TEMPLATES[template].variant(None, hardware)
    engine = Engine(
        template,
        variant.version,
        variant.name,
        "linux/amd64",
        variant.python,
        "debian",
        f"sha256:{HASH}",
        "https://pypi.org/simple",
        (),
    )
    artifact = Artifact("file:///m", "", f"sha256-{HASH}", (FileEntry("model.safetensors", 9, HASH),))
    return replace(Model("qwen", artifact, hardware, template, engine), **changed)


def deployment(
    model: Model | None = None,
    spec: Mapping[str, Any] | None = None,
    registry: Registry = MAIN,
    environment: str = "default",
    **options: object,
) -> Resource[ClusterState]:
    """One model at the target "prod". Raises UserError for what a cluster cannot do."""
    model = model or a_model()
    read = KubernetesSpec.model_validate({"kind": "kubernetes", "namespace": "models", **(spec or {})})
    place = Place("prod", read, KubernetesOptions.model_validate(options), registry, "acme", environment)
    require_possible(KubernetesTarget(), place, model)
    template = TEMPLATES[model.template]
    launch = template.launch(model, template.variant(model.engine.version, model.hardware))
    return next(iter(KubernetesTarget().expand(place, model, template.build(model.engine), launch)))


# Everything that makes objects differ, a name each.
DEPLOYMENTS: Mapping[str, Mapping[str, Any]] = {
    "small": {},
    "replicas": {"replicas": 3},
    "canary": {"replicas": 2, "rollout": {"strategy": "canary"}},
    "none-running": {"replicas": 0},
    "weights-volume": {"weights": "volume", "memory": "1500MB"},
    "pull-secret": {"spec": {"pull_secret": "ghcr"}, "name": "front-door"},
    "gpus": {"model": a_model("vllm", L40S), "replicas": 2},
    "nodes": {"model": a_model("vllm", H100X16), "replicas": 2},
    "scaled": {"model": a_model("vllm", L40S), "autoscale": {"max": 4}},
    "scaled-by-keda": {
        "model": a_model("vllm", L40S),
        "autoscale": {"by": "keda", "max": 4, "prometheus": "http://prometheus:9090", "target": 2.5},
    },
    "secrets": {"model": a_model(api_key=KEY, secret_env={"HF_TOKEN": TOKEN}), "weights": "volume"},
    "claim": {"weights": "pvc", "registry": FAR, "spec": {"pull_secret": "ghcr"}},
    "claim-on-gpus": {
        "model": a_model("vllm", L40S),
        "weights": "pvc",
        "registry": FAR,
        "claim": {"storage_class": "fast", "size": "20Gi", "access_mode": "ReadWriteMany"},
    },
    "claim-per-replica": {"weights": "pvc", "registry": FAR, "spec": {"pull_secret": "ghcr"}, "replicas": 2},
    "claim-per-scaled-replica": {
        "name": "scaled",  # its volumes are others than those of the one before, and never change
        "model": a_model("vllm", L40S),
        "weights": "pvc",
        "registry": FAR,
        "claim": {"storage_class": "fast", "access_mode": "ReadWriteOncePod"},
        "autoscale": {"max": 4},
    },
    "claim-of-others": {"weights": "pvc", "claim": {"name": "shared", "path": "models/qwen"}},
    "nothing-declared": {"model": a_model(hardware=Hardware("cpu", 0))},
}
