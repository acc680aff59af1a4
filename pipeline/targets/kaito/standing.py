"""A Workspace or InferenceSet that mp did not make, as its entry describes it: only the fields that the entry says are written. Pure.

KAITO changes none of them but an InferenceSet's replicas (see objects.py): what differs is made anew, by the driver.
"""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.clients.kube import INFERENCE_SET, WORKSPACE, Object
from pipeline.core.diagnostic import Mistake
from pipeline.core.model import Secret, Standing, Stated
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource
from pipeline.resources.cluster.state import ClusterState
from pipeline.targets.deployment import option
from pipeline.targets.kaito.objects import kind_of, replica_mistakes, scaled
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
    """The object of an entry."""
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


def standing_mistakes(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    """What the words allow and an object that others made does not."""
    runs, options = place.options.runs, place.options
    if runs is not None and runs.preset is not None:
        for name in (*stated.env, *stated.secret_env):
            if name != TOKEN or not _is_token(stated.secret_env.get(name)):
                text = (
                    f'env: a preset takes {TOKEN} alone, from the key {TOKEN_KEY} of a Secret, not "{name}"'
                )
                yield Mistake((*stated.path, "env", name), text, "remove it")
    yield from replica_mistakes(place, stated)
    for key in ("preset", "image"):
        if getattr(options, key) is not None:
            hint = f"write runs: {{preset: …}} instead of {key}"
            yield Mistake(option(place, stated, key), "what runs there already is said by runs:", hint)


def _is_token(secret: Secret | None) -> bool:
    """What KAITO can take; a secret without a place in a cluster is told of as such."""
    return secret is not None and (secret.kubernetes is None or secret.kubernetes[1] == TOKEN_KEY)


def _filled(said: Object) -> Object:
    return {key: value for key, value in said.items() if value}


def _mistake(summary: str) -> PydanticCustomError:
    hint = "runs: {preset: phi-4, config: …}, or runs: {container: …, image: …, args: […]}"
    return PydanticCustomError("mp", "{summary}", {"summary": summary, "hint": hint})
