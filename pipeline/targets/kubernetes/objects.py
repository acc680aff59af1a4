"""The objects of one deployment, as `mp apply` writes them and `mp render` shows them. Pure.

Fields and defaults are those of Kubernetes 1.36. What the server would write differently is written as it has it
("2Gi", never "2048Mi"), so that a live object compares equal without being asked about.
"""

from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.image import Launch
from pipeline.core.model import Model
from pipeline.core.protocols import Place
from pipeline.resources.cluster.pod import Images, pod, startup_s
from pipeline.targets.kubernetes.autoscaling import autoscaler, first_replicas, most_replicas
from pipeline.targets.kubernetes.canary import front_selector, pod_labels
from pipeline.targets.kubernetes.claims import Claimed
from pipeline.targets.kubernetes.groups import group_of, group_set, leader_selector
from pipeline.targets.kubernetes.volumes import replica_set
from pipeline.targets.objects import (
    launch_map,
    name_of,
    named,
    selector_of,
    service,
    service_account,
)

PULL_BYTES_PER_S = 50_000_000  # of a slow registry: what a node has to pull is part of the deadline
PULL_S = 600  # for the engine's part of it (about 10 GB), and for a node that is still being added
# A new pod comes before an old one goes. Where no GPU is spare for it, `cluster/turns` says otherwise for as long as that
# roll-out takes: so what is written down does not depend on who uses the cluster today.
ROLLING = {"maxSurge": 1, "maxUnavailable": 0}
APPLY_S = 60  # apply waits longer than the deadline: it is the Deployment that says that a roll-out failed


def objects(
    place: Place[Any], model: Model, launch: Launch, images: Images, weights: Claimed
) -> tuple[Object, ...]:
    """Everything one model is made of at a target; images without digests."""
    name, group = name_of(place, model), group_of(launch.nodes)
    made = [
        service_account(place, model),
        launch_map(place, model, launch, images, group),
        service(place, model, leader_selector(name) if group else front_selector(place, model)),
        *([_disruption_budget(place, model)] if most_replicas(place) > 1 else ()),
        *weights.objects,
    ]
    config = str(made[1]["metadata"]["name"])
    spec = pod(place, model, launch, images, name=name, config=config)
    if group:
        workload = group_set(place, model, spec, nodes=group.nodes, rolling=ROLLING)
    elif weights.volume:
        headless, workload = replica_set(place, model, spec, weights)
        made.append(headless)
    else:
        workload = _deployment(place, model, launch, spec, alone=images.one_node)
    return (*made, workload, *autoscaler(place, model, workload))


def rollout_s(model: Model, launch: Launch, replicas: int) -> int:
    """How long apply waits for a roll-out: pods come one after the other."""
    return deadline_s(model, launch) * max(replicas, 1) + APPLY_S


def deadline_s(model: Model, launch: Launch) -> int:
    """progressDeadlineSeconds: pulling and starting. The startup probe bounds the start alone, so it ends earlier."""
    size_bytes = sum(file.size_bytes for file in model.files)
    return startup_s(launch) + PULL_S + -(-size_bytes // PULL_BYTES_PER_S)


def _deployment(place: Place[Any], model: Model, launch: Launch, pod_spec: Object, *, alone: bool) -> Object:
    """`alone`: a new pod cannot run beside an old one, wherever it goes."""
    name = name_of(place, model)
    rolling = {"type": "RollingUpdate", "rollingUpdate": dict(ROLLING)}
    spec = {
        "replicas": first_replicas(place),
        "progressDeadlineSeconds": deadline_s(model, launch),
        # an older ReplicaSet would name a ConfigMap that is gone: what is brought back is applied again
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": selector_of(name)},
        "strategy": {"type": "Recreate"} if alone else rolling,
        "template": {"metadata": {"labels": pod_labels(place, model)}, "spec": pod_spec},
    }
    return named(place, model, "apps/v1", "Deployment", name, spec=spec)


def _disruption_budget(place: Place[Any], model: Model) -> Object:
    """One pod at a time leaves a node that is drained; pods that are not ready hold nobody up."""
    name = name_of(place, model)
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector_of(name)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return named(place, model, "policy/v1", "PodDisruptionBudget", name, spec=spec)
