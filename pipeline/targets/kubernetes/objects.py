"""The objects of one deployment, as `mp apply` writes them and `mp render` shows them. Pure.

Fields and defaults are those of Kubernetes 1.36. What the server would write differently is written as it has it
("2Gi", never "2048Mi"), so that a live object compares equal without being asked about.
"""

from typing import Any

from pipeline.core.image import Launch
from pipeline.core.model import Model
from pipeline.core.protocols import Place
from pipeline.resources.cluster.pod import Images, Object, pod, startup_s
from pipeline.targets.objects import (
    labels_of,
    launch_map,
    name_of,
    named,
    selector_of,
    service,
    service_account,
)

PULL_BYTES_PER_S = 50_000_000  # of a slow registry: what a node has to pull is part of the deadline
PULL_S = 600  # for the engine's part of it (about 10 GB), and for a node that is still being added
APPLY_S = 60  # apply waits longer than the deadline: it is the Deployment that says that a roll-out failed


def objects(place: Place[Any], model: Model, launch: Launch, images: Images) -> tuple[Object, ...]:
    """Everything one model is made of at a target, in the order it is applied; images without digests."""
    made = [
        service_account(place, model),
        launch_map(place, model, launch, images),
        service(place, model, selector_of(name_of(place, model))),
        *([_disruption_budget(place, model)] if place.options.replicas > 1 else ()),
    ]
    config = str(made[1]["metadata"]["name"])
    return (*made, _deployment(place, model, launch, images, config))


def rollout_s(model: Model, launch: Launch, replicas: int) -> int:
    """How long apply waits for a roll-out. Pods of GPU models come all at once, those of CPU models one after the other."""
    turns = 1 if model.hardware.gpus else max(replicas, 1)
    return deadline_s(model, launch) * turns + APPLY_S


def deadline_s(model: Model, launch: Launch) -> int:
    """progressDeadlineSeconds: pulling and starting. The startup probe bounds the start alone, so it ends earlier."""
    size_bytes = sum(file.size_bytes for file in model.files)
    return startup_s(launch) + PULL_S + -(-size_bytes // PULL_BYTES_PER_S)


def _deployment(place: Place[Any], model: Model, launch: Launch, images: Images, config: str) -> Object:
    name, rolling = name_of(place, model), model.hardware.gpus == 0 and not images.one_node
    labels = labels_of(place, model)
    template = {
        "metadata": {"labels": labels},
        "spec": pod(place, model, launch, images, name=name, config=config, rolling=rolling),
    }
    spec = {
        "replicas": place.options.replicas,
        "progressDeadlineSeconds": deadline_s(model, launch),
        # an older ReplicaSet would name a ConfigMap that is gone: what is brought back is applied again
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": selector_of(name)},
        "strategy": _strategy(rolling),
        "template": template,
    }
    return named(place, model, "apps/v1", "Deployment", name, spec=spec)


def _strategy(rolling: bool) -> Object:
    """A second pod of a GPU model finds no GPU where none is spare, and the roll-out would hang: the old one goes first."""
    if not rolling:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _disruption_budget(place: Place[Any], model: Model) -> Object:
    """One pod at a time leaves a node that is drained; pods that are not ready hold nobody up."""
    name = name_of(place, model)
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector_of(name)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return named(place, model, "policy/v1", "PodDisruptionBudget", name, spec=spec)
