"""This machine as a target: what the user says, what is compared, and what one model becomes."""

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json, fingerprint
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Launch
from pipeline.core.model import Model, Stated
from pipeline.core.names import DNS_LABEL
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource, State, address
from pipeline.resources.cache.artifact import addresses
from pipeline.resources.cache.entries import content_of
from pipeline.resources.engine.environment import environment_name
from pipeline.targets.deployment import Recipe, cacheless, keeps_nothing, launch_of, one_machine, recipe_of

_INSTEAD = "publish it with a registry target instead"


class LocalSpec(BaseModel):
    """A target that runs models as processes on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"]


class LocalOptions(BaseModel):
    """What a model says about a local target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        default=None,
        pattern=DNS_LABEL,
        max_length=63,
        description="Name of the process and of its folder; the model's name when it is left out",
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on 127.0.0.1; a free one is chosen and kept when it is left out",
    )
    weights: Literal["mount"] = Field(
        default="mount", description="The process reads the weights from the cache"
    )


@frozen
class LocalRecipe(Recipe):
    """What the driver needs besides: the file to run in the environment, and what it may load."""

    serve: str  # absolute path of runtime/<template>/serve.py
    root: str  # absolute path of runtime/
    runtime: tuple[tuple[str, str], ...]  # path below it and sha256 of each file


@frozen
class LocalState(State):
    """A server process as it is compared; what was started is remembered in its process.json."""

    content: str  # 12 hex of the files served
    environment: str  # "transformers-5.19.0-cpu/<12 hex>"
    runtime: str  # 12 hex of the files that start it
    launch: Mapping[str, Json]
    port: int | str  # declared, or "auto"
    running: bool = True
    recipe: LocalRecipe | None = field(default=None, compare=False)


class LocalTarget:
    """Expands a model into one process on this machine. Raises UserError for a model that is not kept here."""

    def mistakes(self, place: Place[LocalSpec], stated: Stated) -> Iterable[Mistake]:
        yield from one_machine(place, stated)
        yield from cacheless(place, stated, _INSTEAD)

    def expand(
        self, place: Place[LocalSpec], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[LocalState]]:
        if not model.cached:
            raise UserError([keeps_nothing(place, model, _INSTEAD)])
        options: LocalOptions = place.options
        environment = address("@environment", model.engine.key)
        yield Resource(
            address(model.name, "local", place.name),
            "local",
            {"name": _name(place, options.name or model.name)},
            state_of(model, launch, options.port, build),
            needs=(*addresses(model), environment),
            lifecycle=model.lifecycle,
            where=place.where,
        )


def state_of(model: Model, launch: Launch, port: int | None, build: Build) -> LocalState:
    """The desired state; the base image and the Dockerfile do not matter to a process."""
    engine, recipe = model.engine, recipe_of(model, launch)
    files = tuple(pair for pair in build.files if not pair[0].endswith("Dockerfile"))
    return LocalState(
        content=content_of(model.files, model.overlays),
        environment=environment_name(engine),
        runtime=fingerprint([list(pair) for pair in files])[:12],
        launch=launch_of(launch),
        port="auto" if port is None else port,
        recipe=LocalRecipe(
            **vars(recipe),
            serve=str(Path(build.root, model.template, "serve.py")),
            root=build.root,
            runtime=files,
        ),
    )


def _name(place: Place[LocalSpec], name: str) -> str:
    return name if place.environment == "default" else f"{name}.{place.environment}"
