"""Workloads whose replicas an autoscaler sets, whoever made it: mp leaves them alone. Used by driver."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.clients.kube import AUTOSCALER, SCALED_OBJECT, Cluster, Object
from pipeline.core.errors import Denied
from pipeline.core.frozen import frozen
from pipeline.core.resource import Resource
from pipeline.resources.cluster.fields import is_leaving
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.marks import key_of, mark_of
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import workload_in

REPLICAS = "/spec/replicas"
CONTROLLER = "kube-controller-manager"  # field manager of replicas that a HorizontalPodAutoscaler set


@frozen
class Scalers:
    """The autoscalers of somebody else in one namespace."""

    targets: Mapping[str, str]  # "Deployment/qwen" → "HorizontalPodAutoscaler/keda-hpa-qwen"
    known: bool = True  # False: they may not be seen


def scalers_in(cluster: Cluster, namespace: str, wanted: Iterable[str]) -> Scalers:
    """One list a namespace. KEDA makes a HorizontalPodAutoscaler of each of its objects."""
    if workload_in(dict.fromkeys(wanted)) is None:
        return Scalers({})
    try:
        found = cluster.list(AUTOSCALER, namespace)
    except Denied:
        return Scalers({}, known=False)
    return Scalers(
        {_target(one): key_of(one) for one in found if mark_of(one) is None and not is_leaving(one)}
    )


def left_alone(resource: Resource[ClusterState], scalers: Scalers) -> Resource[ClusterState]:
    """The same resource, its replicas left to the autoscaler that sets them."""
    recipe = resource.desired.recipe
    if recipe is None or _scaler(resource, scalers) is None:
        return resource
    ignored = tuple(dict.fromkeys((*recipe.ignored, REPLICAS)))
    return replace(resource, desired=replace(resource.desired, recipe=replace(recipe, ignored=ignored)))


def remark(resource: Resource[ClusterState], scalers: Scalers) -> str:
    """What a plan says of it; "" where the entry says that its replicas are not mp's."""
    scaler, recipe = _scaler(resource, scalers), resource.desired.recipe
    if scaler is None or recipe is None or REPLICAS in recipe.ignored:
        return ""
    return f"{scaler} sets its replicas: they are left alone"


def freed(resource: Resource[ClusterState], scalers: Scalers) -> frozenset[str]:
    """Field managers whose fields are nobody's any more: replicas that an autoscaler set which is gone."""
    recipe = resource.desired.recipe
    left = recipe is None or REPLICAS in recipe.ignored
    return frozenset() if left or not scalers.known else frozenset((CONTROLLER,))


def obsolete(before: Live, wanted: Mapping[str, Any]) -> Live:
    """Autoscalers of ours that are not wanted any more: they go before replicas are set again."""
    names = (AUTOSCALER.name, SCALED_OBJECT.name)
    return {key: one for key, one in before.items() if key not in wanted and one["kind"] in names}


def _scaler(resource: Resource[ClusterState], scalers: Scalers) -> str | None:
    key = workload_in(resource.desired.objects)
    return scalers.targets.get(key) if key else None


def _target(one: Object) -> str:
    target = one["spec"]["scaleTargetRef"]
    return f"{target['kind']}/{target['name']}"
