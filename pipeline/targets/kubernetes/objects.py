"""The objects of one deployment, as `mp apply` writes them and `mp render` shows them. Pure.

Fields and defaults are those of Kubernetes 1.36. What the server would write differently is written as it has it
("2Gi", never "2048Mi"), so that a live object compares equal without being asked about.
"""

from typing import Any

from pipeline.core.digest import Json, canonical, fingerprint
from pipeline.core.image import Launch
from pipeline.core.model import Model
from pipeline.core.protocols import Place
from pipeline.core.resource import Mark, address
from pipeline.resources.cluster.marks import annotations_of
from pipeline.targets.kubernetes.pod import HTTP, LAUNCH, Images, Object, pod, startup_s
from pipeline.templates.launch import document

PULL_BYTES_PER_S = 50_000_000  # of a slow registry: what a node has to pull is part of the deadline
PULL_S = 600  # for the engine's part of it (about 10 GB), and for a node that is still being added
APPLY_S = 60  # apply waits longer than the deadline: it is the Deployment that says that a roll-out failed


def objects(place: Place[Any], model: Model, launch: Launch, images: Images) -> tuple[Object, ...]:
    """Everything one model is made of at a target, in the order it is applied; images without digests."""
    made = [
        _service_account(place, model),
        _config_map(place, model, launch, images),
        _service(place, model),
        *([_disruption_budget(place, model)] if place.options.replicas > 1 else ()),
    ]
    config = str(made[1]["metadata"]["name"])
    return (*made, _deployment(place, model, launch, images, config))


def name_of(place: Place[Any], model: Model) -> str:
    """Of the Deployment and the Service: "qwen", "staging-qwen"."""
    if place.options.name:
        return str(place.options.name)
    return model.name if place.environment == "default" else f"{place.environment}-{model.name}"


def rollout_s(model: Model, launch: Launch, replicas: int) -> int:
    """How long apply waits for a roll-out. Pods of GPU models come all at once, those of CPU models one after the other."""
    turns = 1 if model.hardware.gpus else max(replicas, 1)
    return deadline_s(model, launch) * turns + APPLY_S


def deadline_s(model: Model, launch: Launch) -> int:
    """progressDeadlineSeconds: pulling and starting. The startup probe bounds the start alone, so it ends earlier."""
    size_bytes = sum(file.size_bytes for file in model.files)
    return startup_s(launch) + PULL_S + -(-size_bytes // PULL_BYTES_PER_S)


def _deployment(place: Place[Any], model: Model, launch: Launch, images: Images, config: str) -> Object:
    name, rolling = name_of(place, model), model.hardware.gpus == 0
    labels = _labels(place, model)
    template = {
        "metadata": {"labels": labels},
        "spec": pod(place, model, launch, images, name=name, config=config, rolling=rolling),
    }
    spec = {
        "replicas": place.options.replicas,
        "progressDeadlineSeconds": deadline_s(model, launch),
        # an older ReplicaSet would name a ConfigMap that is gone: what is brought back is applied again
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": _selector(name)},
        "strategy": _strategy(rolling),
        "template": template,
    }
    return _object(place, model, "apps/v1", "Deployment", name, spec=spec)


def _strategy(rolling: bool) -> Object:
    """A second pod of a GPU model finds no GPU where none is spare, and the roll-out would hang: the old one goes first."""
    if not rolling:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _service_account(place: Place[Any], model: Model) -> Object:
    """Of its own, without a token: a server of models asks the cluster nothing."""
    name = name_of(place, model)
    return _object(place, model, "v1", "ServiceAccount", name, automountServiceAccountToken=False)


def _config_map(place: Place[Any], model: Model, launch: Launch, images: Images) -> Object:
    """The launch document. Its name carries its hash: pods of the version before keep theirs until the new ones serve."""
    from_files = {variable: f"{LAUNCH.secrets}/{variable}" for variable in launch.secrets}
    text = canonical(
        document(launch, model=images.folder, host="0.0.0.0", port=launch.port, secrets=from_files)
    ).decode()
    contents: dict[str, Json] = {LAUNCH.file: text}
    name = f"{name_of(place, model)}-{fingerprint(contents)[:8]}"
    return _object(place, model, "v1", "ConfigMap", name, immutable=True, data=contents)


def _service(place: Place[Any], model: Model) -> Object:
    name = name_of(place, model)
    ports = [{"name": HTTP, "port": 80, "protocol": "TCP", "targetPort": HTTP}]
    spec = {"type": "ClusterIP", "selector": _selector(name), "ports": ports}
    return _object(place, model, "v1", "Service", name, spec=spec)


def _disruption_budget(place: Place[Any], model: Model) -> Object:
    """One pod at a time leaves a node that is drained; pods that are not ready hold nobody up."""
    name = name_of(place, model)
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": _selector(name)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return _object(place, model, "policy/v1", "PodDisruptionBudget", name, spec=spec)


def _object(place: Place[Any], model: Model, api: str, kind: str, name: str, **body: Any) -> Object:
    mark = Mark(place.project, place.environment, address(model.name, "kubernetes", place.name))
    metadata = {
        "name": name,
        "namespace": place.spec.namespace,
        "labels": _labels(place, model),
        "annotations": annotations_of(mark, f"{kind}/{name}"),
    }
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def _labels(place: Place[Any], model: Model) -> dict[str, Json]:
    return {"app.kubernetes.io/name": model.name, **_selector(name_of(place, model))}


def _selector(name: str) -> dict[str, Json]:
    """A Deployment's selector never changes: only what is fixed by the object's name is in it."""
    return {"app.kubernetes.io/instance": name, "app.kubernetes.io/managed-by": "mp"}
