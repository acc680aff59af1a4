"""What others made and an entry describes: one object, of which mp writes only the fields that the entry says. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.clients.kube import Kind, Object
from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError
from pipeline.core.model import Secret, Standing
from pipeline.core.protocols import Place
from pipeline.core.resource import Mark, Resource, address
from pipeline.resources.cluster.ignoring import unknown
from pipeline.resources.cluster.marks import annotations_of
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState

START_S = 1800  # for pods that nothing is known of; the object's own deadline may end it earlier


def stood(
    place: Place[Any],
    entry: Standing,
    kind: Kind,
    body: Object,
    annotations: Mapping[str, str] | None = None,
) -> Resource[ClusterState]:
    """The object of an entry, with `body` in it. Raises UserError for fields to leave alone that mp does not write."""
    options, spec = place.options, place.spec
    name, watched = options.name or entry.name, options.manage == "observe"
    where, key = address(entry.name, spec.kind, place.name), f"{kind.name}/{options.name or entry.name}"
    marks = {} if watched else annotations_of(Mark(place.project, place.environment, where), key)
    metadata: Object = {"name": name, "namespace": spec.namespace}
    if said := {**marks, **(annotations or {})}:
        metadata["annotations"] = said
    made: Object = {"apiVersion": kind.api, "kind": kind.name, "metadata": metadata, **body}
    refuse_unknown(place, entry.name, {key: made}, entry.lifecycle.ignore_drift)
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
        ClusterState({key: made}, recipe),
        tracked=not watched,
        watched=watched,
        optional=spec.optional,
        lifecycle=entry.lifecycle,
        where=place.where,
    )


def container_of(runs: Any, entry: Standing) -> Object:
    """What the entry says of a container; Any: each kind of target has words of its own for what runs."""
    said = {"image": runs.image, "command": runs.command, "args": runs.args}
    container: Object = {"name": runs.container}
    container |= {key: list(v) if isinstance(v, tuple) else v for key, v in said.items() if v is not None}
    if entry.env:
        container["env"] = [_variable(name, value) for name, value in entry.env]
    return container


def _variable(name: str, value: str | Secret) -> Object:
    """As the server has it: nothing where a text is empty."""
    if isinstance(value, str):
        return {"name": name, "value": value} if value else {"name": name}
    assert value.kubernetes is not None, "secrets without a place are refused"
    secret, key = value.kubernetes
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def refuse_unknown(place: Place[Any], name: str, objects: Mapping[str, Any], pointers: Sequence[str]) -> None:
    """Raises UserError for fields to be left alone which mp does not write: most likely a slip."""
    if strange := unknown(objects, pointers):
        summary = f"{name}: ignore_drift: mp writes nothing at {', '.join(strange)}"
        hint = "what mp does not write is left alone anyway: remove it"
        raise UserError([error(summary, place.where, hint, name)])
