"""A Workspace or InferenceSet that mp did not make, as its entry describes it: only the fields that the entry says are written. Pure.

KAITO changes none of them but an InferenceSet's replicas (see objects.py): what differs is made anew, by the driver.
"""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.clients.kube import INFERENCE_SET, WORKSPACE, Object
from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError
from pipeline.core.model import Secret, Standing
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource
from pipeline.resources.cluster.state import ClusterState
from pipeline.targets.kaito.objects import kind_of, scaled
from pipeline.targets.kaito.preset import TOKEN, TOKEN_KEY, adapters_of
from pipeline.targets.standing import container_of, stood

_WORDS = (("container", "command", "args"), ("preset", "config"))


class KaitoRuns(BaseModel):
    """What runs in a Workspace or an InferenceSet that mp did not make: a preset, or a container. What is left out stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = Field(default=None, min_length=1, description="Its preset, as it is written there")
    config: str | None = Field(
        default=None, min_length=1, description="ConfigMap with settings of the preset's server"
    )
    container: str | None = Field(
        default=None, min_length=1, max_length=63, description="Of a pod template: the container that serves"
    )
    image: str | None = Field(
        default=None, min_length=1, description="Image of the container, or a preset's private image"
    )
    command: tuple[str, ...] | None = Field(default=None, description="Command of the container")
    args: tuple[str, ...] | None = Field(default=None, description="Arguments of the container")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.preset is None) == (self.container is None):
            raise _mistake("runs: names a preset, or a container")
        others = _WORDS[0] if self.preset else _WORDS[1]
        if strange := [word for word in others if getattr(self, word) is not None]:
            what = "preset" if self.preset else "container"
            raise _mistake(f"runs: a {what} has no {', '.join(strange)}")
        return self


def standing(place: Place[Any], entry: Standing) -> Resource[ClusterState]:
    """The object of an entry. Raises UserError for secrets that KAITO takes from nowhere."""
    if problems := tuple(_problems(place, entry)):
        raise UserError(
            [error(f"{entry.name}: {text}", place.where, hint, entry.name) for text, hint in problems]
        )
    options = place.options
    resource, inference = _resource(place, entry), _inference(place, entry)
    nodes = {"labelSelector": {"matchLabels": dict(options.node_labels)}} if options.node_labels else {}
    if kind_of(place) == "Workspace":
        said = {"resource": {**resource, **nodes}, "inference": inference}
        return stood(place, entry, WORKSPACE, _filled(said), options.annotations)
    counted = {} if scaled(place) else {"replicas": options.replicas}
    template = _filled({"resource": resource, "inference": inference})
    body = {"spec": {**counted, **nodes, **_filled({"template": template})}}
    return stood(place, entry, INFERENCE_SET, body, options.annotations)


def _resource(place: Place[Any], entry: Standing) -> Object:
    options, hardware = place.options, entry.hardware
    instance = hardware.instance_type if hardware else None
    counted = hardware is not None and hardware.nodes > 1 and kind_of(place) == "Workspace"
    return {
        **({"instanceType": instance} if instance else {}),
        **({"count": hardware.nodes} if hardware and counted else {}),
        **({"preferredNodes": list(options.preferred_nodes)} if options.preferred_nodes else {}),
        **({"partition": options.partition.model_dump(exclude_none=True)} if options.partition else {}),
    }


def _inference(place: Place[Any], entry: Standing) -> Object:
    runs, adapters = place.options.runs, adapters_of(place)
    said: Object = {"adapters": adapters} if adapters else {}
    if runs is None:
        return said
    if runs.container is not None:
        return {**said, "template": {"spec": {"containers": [container_of(runs, entry)]}}}
    token = dict(entry.env).get(TOKEN)
    secret = token.kubernetes[0] if isinstance(token, Secret) and token.kubernetes else None
    settings = {
        **({"image": runs.image} if runs.image else {}),
        **({"modelAccessSecret": secret} if secret else {}),
    }
    preset = {"name": runs.preset, **({"accessMode": "private"} if runs.image else {})}
    config = {"config": runs.config} if runs.config else {}
    return {**said, "preset": {**preset, **_filled({"presetOptions": settings})}, **config}


def _problems(place: Place[Any], entry: Standing) -> Iterator[tuple[str, str]]:
    runs, options = place.options.runs, place.options
    if runs is not None and runs.preset is not None:
        for name, value in entry.env:
            key = value.kubernetes[1] if isinstance(value, Secret) and value.kubernetes else None
            if name != TOKEN or key != TOKEN_KEY:
                yield (
                    f'env: a preset takes {TOKEN} alone, from the key {TOKEN_KEY} of a Secret, not "{name}"',
                    "remove it",
                )
    if options.object == "Workspace" and options.replicas != 1:
        yield f"a Workspace is one replica, not {options.replicas}", "leave replicas out"
    if options.preset is not None or options.image is not None:
        yield (
            "what runs there already is said by runs:",
            "write runs: {preset: …} instead of preset and image",
        )


def _filled(said: Object) -> Object:
    return {key: value for key, value in said.items() if value}


def _mistake(summary: str) -> PydanticCustomError:
    hint = "runs: {preset: phi-4, config: …}, or runs: {container: …, image: …, args: […]}"
    return PydanticCustomError("mp", "{summary}", {"summary": summary, "hint": hint})
