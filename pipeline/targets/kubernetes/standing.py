"""A Deployment that mp did not make, as its entry describes it: only the fields that the entry says are written. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.clients.kube import Object
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.model import Secret, Standing
from pipeline.core.protocols import Place
from pipeline.core.resource import Mark, Resource, address
from pipeline.core.size import size_bytes
from pipeline.resources.cluster.ignoring import unknown
from pipeline.resources.cluster.marks import annotations_of, key_of
from pipeline.resources.cluster.pod import quantity
from pipeline.resources.cluster.products import GPU
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState
from pipeline.targets.objects import unplaced

START_S = 1800  # for pods that nothing is known of; the Deployment's own deadline may end it earlier


class RunsOptions(BaseModel):
    """What runs in a Deployment that mp did not make. What is left out stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    container: str = Field(min_length=1, max_length=63, description="Name of the container that serves")
    image: str | None = Field(default=None, min_length=1, description="Its image, as it is written there")
    command: tuple[str, ...] | None = Field(default=None, description="Its command")
    args: tuple[str, ...] | None = Field(default=None, description="Its arguments")


def standing(place: Place[Any], entry: Standing) -> Resource[ClusterState]:
    """The Deployment of an entry. Raises UserError for secrets without a place in a cluster."""
    options, spec = place.options, place.spec
    name = options.name or entry.name
    if problems := tuple(_unplaced(place, entry)):
        raise UserError(problems)
    watched = options.manage == "observe"
    where = address(entry.name, spec.kind, place.name)
    metadata: Object = {"name": name, "namespace": spec.namespace}
    if not watched:
        mark = Mark(place.project, place.environment, where)
        metadata["annotations"] = annotations_of(mark, f"Deployment/{name}")
    body: Object = {"replicas": options.replicas}
    if (container := _container(options, entry)).keys() > {"name"}:
        body["template"] = {"spec": {"containers": [container]}}
    made: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": body}
    objects: dict[str, Json] = {key_of(made): made}
    refuse_unknown(place, entry.name, objects, entry.lifecycle.ignore_drift)
    recipe = ClusterRecipe(
        images={},
        namespace=spec.namespace,
        context=spec.context,
        name=name,
        served_name=entry.name,
        port=None,
        questions=(),
        api_key=None,
        prove="skip",
        on_failure=options.rollout.on_failure,
        start_timeout_s=START_S,
        ignored=entry.lifecycle.ignore_drift,
        standing=True,
    )
    return Resource(
        where,
        spec.kind,
        {"context": spec.context or "", "namespace": spec.namespace, "name": name},
        ClusterState(objects, recipe),
        tracked=not watched,
        watched=watched,
        optional=spec.optional,
        lifecycle=entry.lifecycle,
        where=place.where,
    )


def _container(options: Any, entry: Standing) -> Object:
    """Any: the options of a kind of target. A container whose name is not said cannot be told from its neighbours."""
    if options.runs is None:
        return {}
    runs = options.runs
    said = {"image": runs.image, "command": runs.command, "args": runs.args}
    container: Object = {"name": runs.container}
    container |= {key: list(v) if isinstance(v, tuple) else v for key, v in said.items() if v is not None}
    if entry.env:
        container["env"] = [_variable(name, value) for name, value in entry.env]
    limits: Object = {}
    if options.memory is not None:
        limits["memory"] = quantity(size_bytes(options.memory))
    if entry.hardware is not None and entry.hardware.gpus:
        limits[GPU] = str(entry.hardware.gpus)
    if limits:
        container["resources"] = {"limits": limits}
    return container


def _variable(name: str, value: str | Secret) -> Object:
    """As the server has it: nothing where a text is empty."""
    if isinstance(value, str):
        return {"name": name, "value": value} if value else {"name": name}
    assert value.kubernetes is not None, "secrets without a place are refused"
    secret, key = value.kubernetes
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _unplaced(place: Place[Any], entry: Standing) -> Iterable[Diagnostic]:
    for _, value in entry.env:
        if isinstance(value, Secret) and value.kubernetes is None:
            summary, hint = unplaced(value)
            yield error(f"{entry.name}: {summary}", place.where, hint, entry.name)


def refuse_unknown(place: Place[Any], name: str, objects: Mapping[str, Any], pointers: Sequence[str]) -> None:
    """Raises UserError for fields to be left alone which mp does not write: most likely a slip."""
    if strange := unknown(objects, pointers):
        summary = f"{name}: ignore_drift: mp writes nothing at {', '.join(strange)}"
        hint = "what mp does not write is left alone anyway: remove it"
        raise UserError([error(summary, place.where, hint, name)])
