"""A Deployment that mp did not make, as its entry describes it: only the fields that the entry says are written. Pure."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.clients.kube import DEPLOYMENT, Object
from pipeline.core.model import Standing
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource
from pipeline.core.size import size_bytes
from pipeline.resources.cluster.pod import quantity
from pipeline.resources.cluster.products import GPU
from pipeline.resources.cluster.state import ClusterState
from pipeline.targets.standing import container_of, stood


class RunsOptions(BaseModel):
    """What runs in a Deployment that mp did not make. What is left out stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    container: str = Field(min_length=1, max_length=63, description="Name of the container that serves")
    image: str | None = Field(default=None, min_length=1, description="Its image, as it is written there")
    command: tuple[str, ...] | None = Field(default=None, description="Its command")
    args: tuple[str, ...] | None = Field(default=None, description="Its arguments")


def standing(place: Place[Any], entry: Standing) -> Resource[ClusterState]:
    """The Deployment of an entry. Raises UserError for secrets without a place in a cluster."""
    body: Object = {"replicas": place.options.replicas}
    if (container := _container(place.options, entry)).keys() > {"name"}:
        body["template"] = {"spec": {"containers": [container]}}
    return stood(place, entry, DEPLOYMENT, {"spec": body})


def _container(options: Any, entry: Standing) -> Object:
    """Any: the options of a kind of target. A container whose name is not said cannot be told from its neighbours."""
    if options.runs is None:
        return {}
    container = container_of(options.runs, entry)
    limits: Object = {}
    if options.memory is not None:
        limits["memory"] = quantity(size_bytes(options.memory))
    if entry.hardware is not None and entry.hardware.gpus:
        limits[GPU] = str(entry.hardware.gpus)
    if limits:
        container["resources"] = {"limits": limits}
    return container
