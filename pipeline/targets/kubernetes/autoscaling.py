"""Replicas that follow the load: a HorizontalPodAutoscaler, KEDA's ScaledObject, or one of somebody else's. Pure.

Fields are those of autoscaling/v2 of Kubernetes 1.36 and of keda.sh/v1alpha1 of KEDA 2.20.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.clients.kube import Object
from pipeline.core.model import Model
from pipeline.core.protocols import Place
from pipeline.resources.cluster.pod import cores
from pipeline.resources.cluster.scalers import REPLICAS
from pipeline.targets.objects import name_of, named

_HINT = "such as {min: 1, max: 4}"
WAITING = (
    "vllm:num_requests_waiting"  # requests that no batch has taken yet (vLLM 0.32, v1/metrics/loggers.py)
)


class AutoscaleOptions(BaseModel):
    """Who sets the number of replicas, and by what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["hpa", "keda", "other"] = Field(
        default="hpa",
        description="`hpa`: a HorizontalPodAutoscaler; `keda`: a ScaledObject; `other`: somebody else's, mp only leaves replicas alone",
    )
    min: int = Field(default=1, ge=0, le=1000, description="Fewest replicas; 0 with `keda` alone")
    max: int | None = Field(default=None, ge=1, le=1000, description="Most replicas; needed but for `other`")
    metric: str = Field(
        default=WAITING,
        min_length=1,
        description="What is measured of each replica, as the metrics API (`hpa`) or Prometheus (`keda`) names it",
    )
    target: float = Field(
        default=5, gt=0, allow_inf_nan=False, description="How much of it one replica may have on average"
    )
    prometheus: str | None = Field(
        default=None, pattern=r"^https?://", description="Address of Prometheus, for `keda`"
    )
    query: str | None = Field(
        default=None,
        min_length=1,
        description="What `keda` asks Prometheus; the sum of `metric` over the model's pods when left out",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for problem in self._problems():
            raise PydanticCustomError("mp", "{summary}", {"summary": problem, "hint": _HINT})
        return self

    def _problems(self) -> Iterator[str]:
        if self.by != "other" and self.max is None:
            yield f'"max" is missing: the most replicas that {self.by} may make'
        if self.max is not None and self.max < self.min:
            yield f"max is {self.max}, and min is {self.min}"
        if self.min == 0 and (self.by != "keda" or self.query is None):
            yield "min is 0: only keda wakes a model that has no pod, by a query: that asks what others measure"
        if self.by == "keda" and self.prometheus is None:
            yield '"prometheus" is missing: the address that keda asks'
        if self.by != "keda" and (self.prometheus or self.query):
            yield "prometheus and query are for keda"


def left_alone(place: Place[Any]) -> tuple[str, ...]:
    """What of the workload is not mp's to set, as JSON pointers."""
    return (REPLICAS,) if place.options.autoscale else ()


def first_replicas(place: Place[Any]) -> int:
    """How many a workload is made with."""
    scale: AutoscaleOptions | None = place.options.autoscale
    return max(place.options.replicas, scale.min) if scale else int(place.options.replicas)


def most_replicas(place: Place[Any]) -> int:
    scale: AutoscaleOptions | None = place.options.autoscale
    return max(first_replicas(place), scale.max or 1) if scale else first_replicas(place)


def autoscaler(place: Place[Any], model: Model, workload: Object) -> tuple[Object, ...]:
    """What scales a workload; () where nothing of ours does."""
    scale: AutoscaleOptions | None = place.options.autoscale
    if scale is None or scale.by == "other":
        return ()
    target = {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": workload["metadata"]["name"],
    }
    make = _pod_autoscaler if scale.by == "hpa" else _scaled_object
    return (make(place, model, scale, target),)


def _pod_autoscaler(place: Place[Any], model: Model, scale: AutoscaleOptions, target: Object) -> Object:
    value = {"type": "AverageValue", "averageValue": cores(scale.target)}
    spec = {
        "scaleTargetRef": target,
        "minReplicas": scale.min,
        "maxReplicas": scale.max,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": scale.metric}, "target": value}}],
    }
    name = name_of(place, model)
    return named(place, model, "autoscaling/v2", "HorizontalPodAutoscaler", name, spec=spec)


def _scaled_object(place: Place[Any], model: Model, scale: AutoscaleOptions, target: Object) -> Object:
    labels = f'namespace="{place.spec.namespace}",model_name="{model.name}"'  # Prometheus', and vLLM's own
    query = scale.query or f"sum({scale.metric}{{{labels}}})"
    trigger = {"serverAddress": scale.prometheus, "query": query, "threshold": f"{scale.target:g}"}
    spec = {
        "scaleTargetRef": target,
        "minReplicaCount": scale.min,
        "maxReplicaCount": scale.max,
        "triggers": [{"type": "prometheus", "metricType": "AverageValue", "metadata": trigger}],
    }
    return named(place, model, "keda.sh/v1alpha1", "ScaledObject", name_of(place, model), spec=spec)
