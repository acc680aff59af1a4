"""A Docker engine as a target: what the user says, what is compared, and what one model becomes."""

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from pipeline.clients.loopback import is_loopback
from pipeline.core.diagnostic import Diagnostic, Mistake, error
from pipeline.core.digest import Digest, Json
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, ImageName, Launch
from pipeline.core.model import Model, Stated
from pipeline.core.protocols import Place
from pipeline.core.resource import Address, Resource, State, address
from pipeline.core.settings import DOCKER_HOST
from pipeline.core.size import PATTERN as SIZE
from pipeline.core.size import size_bytes
from pipeline.resources.cache.artifact import addresses
from pipeline.resources.cache.entries import content_of
from pipeline.resources.image.recipe import engine_name, image_name
from pipeline.targets.deployment import (
    Recipe,
    cacheless,
    keeps_nothing,
    launch_of,
    one_machine,
    option,
    recipe_of,
)
from pipeline.targets.rollouts import WavesSpec

COMMAND = ("python3", "/opt/mp/serve.py")
DEFAULT_SHM_BYTES = 64 * 2**20  # what Docker gives when nothing is said
RESTART = "unless-stopped"
_INSTEAD = "use weights: baked"


class DockerSpec(BaseModel):
    """A target that runs models as containers of one Docker engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["docker"]
    host: str | None = Field(
        default=None,
        pattern=r"^(unix|tcp|ssh|https?)://",
        description='The engine, such as "ssh://gpu1" or "tcp://10.0.0.7:2376"; DOCKER_HOST or this machine when it is left out',
    )
    optional: bool = Field(
        default=False,
        description="An engine that does not answer is named and skipped; the plan stays complete",
    )
    rollout: WavesSpec = Field(
        default=WavesSpec(), description="How its deployments are changed when a plan changes several"
    )

    @field_validator("host")
    @classmethod
    def _is_address(cls, host: str | None) -> str | None:
        try:
            urlsplit(host or "")
        except ValueError:
            hint = 'such as "ssh://gpu1" or "tcp://10.0.0.7:2376"'
            raise PydanticCustomError(
                "mp", "{summary}", {"summary": f'"{host}" is no address', "hint": hint}
            ) from None
        return host


class DockerOptions(BaseModel):
    """What a model says about a docker target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$",
        max_length=63,
        description="The container's name; project and model's name when it is left out",
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Published port; the engine chooses a free one when it is left out",
    )
    bind: str = Field(default="127.0.0.1", description="Address of the host on which the port is published")
    weights: Literal["mount", "baked"] = Field(
        default="mount",
        description="`mount`: the cache, read-only, into the engine image; `baked`: the model image, which holds them",
    )
    memory: str | None = Field(
        default=None,
        pattern=SIZE,
        description='Memory limit, such as "8Gi"; the hardware class\'s memory when it is left out',
    )


@frozen
class DockerRecipe(Recipe):
    """What the driver needs besides: the image's name, complete but for the digest."""

    image: ImageName
    image_address: Address  # whose Observed has the digest
    digest: Digest | None = None  # where no Observed has it


# How a changed field is brought about: False by `docker update` or `docker start`, True by another container.
_REPLACES = {"replace": True}


@frozen
class DockerState(State):
    """A container as it is compared; every field is read from `docker inspect`."""

    image: str = field(metadata=_REPLACES)  # "mp-<12 hex>"
    command: tuple[str, ...] = field(metadata=_REPLACES)
    launch: Mapping[str, Json] = field(metadata=_REPLACES)
    weights: str = field(metadata=_REPLACES)  # "mount" or "baked"
    content: str = field(metadata=_REPLACES)  # 12 hex of the files mounted; "" when they are in the image
    gpus: int = field(metadata=_REPLACES)
    cpus: float | None  # cores; None is no limit
    memory_bytes: int | None  # None is no limit
    shm_bytes: int = field(metadata=_REPLACES)
    bind: str = field(metadata=_REPLACES)  # address of the host
    port: int | str = field(metadata=_REPLACES)  # of the host: declared, or "auto"
    restart: str = RESTART
    running: bool = True
    recipe: DockerRecipe | None = field(default=None, compare=False)


class DockerTarget:
    """Expands a model into one container. Raises UserError for what a Docker engine cannot do."""

    def __init__(self, default_host: str = DOCKER_HOST) -> None:
        self._default_host = default_host  # of targets that name none: DOCKER_HOST's, once it is read

    def mistakes(self, place: Place[DockerSpec], stated: Stated) -> Iterable[Mistake]:
        options: DockerOptions = place.options
        yield from one_machine(place, stated)
        if options.weights == "mount":
            yield from cacheless(place, stated, _INSTEAD)
        elif place.registry.layout is not None:
            yield Mistake(
                option(place, stated, "weights"),
                f'a Docker engine cannot pull "{place.registry.name}", which is a layout folder',
                "use weights: mount, or a registry with a url",
            )
        if place.spec.host:
            for key, summary, hint in _far(place.spec.host, options):
                yield Mistake(option(place, stated, key), summary, hint)

    def expand(
        self, place: Place[DockerSpec], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[DockerState]]:
        options: DockerOptions = place.options
        host = place.spec.host or self._default_host
        if problems := tuple(_problems(place, host, model)):
            raise UserError(problems)
        mounted = options.weights == "mount"
        if mounted:
            image = engine_name(build, place.registry)
            image_address = address("@engine", model.engine.key, place.registry.name)
        else:
            image = image_name(model, build, place.registry)
            image_address = address(model.name, "image", place.registry.name)
        yield Resource(
            address(model.name, "docker", place.name),
            "docker",
            {"host": host, "name": options.name or _name(place, model)},
            state_of(
                options,
                model,
                launch,
                DockerRecipe(**vars(recipe_of(model, launch)), image=image, image_address=image_address),
            ),
            needs=(*addresses(model), image_address) if mounted else (image_address,),
            optional=place.spec.optional,
            lifecycle=model.lifecycle,
            where=place.where,
        )


def state_of(options: DockerOptions, model: Model, launch: Launch, recipe: DockerRecipe) -> DockerState:
    hardware = model.hardware
    return DockerState(
        image=recipe.image.tag,
        command=COMMAND,
        launch=launch_of(launch),
        weights=options.weights,
        content=content_of(model.files, model.overlays) if options.weights == "mount" else "",
        gpus=hardware.gpus,
        cpus=None if hardware.cpus is None else float(hardware.cpus),
        memory_bytes=hardware.memory_bytes if options.memory is None else size_bytes(options.memory),
        shm_bytes=launch.shm_bytes or DEFAULT_SHM_BYTES,
        bind=options.bind,
        port="auto" if options.port is None else options.port,
        recipe=recipe,
    )


def _problems(place: Place[DockerSpec], host: str, model: Model) -> Iterable[Diagnostic]:
    """What models.yaml does not tell: what DOCKER_HOST means, and what this run keeps."""
    if place.options.weights == "mount" and not model.cached:
        yield keeps_nothing(place, model, _INSTEAD)
    if not place.spec.host:
        for _, summary, hint in _far(host, place.options):
            yield error(f"{model.name}: {summary}", place.where, hint, model.name)


def _far(host: str, options: DockerOptions) -> Iterable[tuple[str, str, str]]:
    """What an engine elsewhere cannot do: the option, what is wrong with it, a hint."""
    if is_here(host):
        return
    if options.weights == "mount":
        text = f'weights: mount needs a Docker engine on this machine, not "{host}"'
        yield "weights", text, _INSTEAD
    if is_loopback(options.bind):
        text = f'port bound to {options.bind} of "{host}" cannot be reached from here'
        yield "bind", text, "set bind to an address of that host that this machine reaches"


def is_here(host: str) -> bool:
    """The engine is on this machine; what is no address is nowhere."""
    try:
        parts = urlsplit(host)
    except ValueError:
        return False
    return parts.scheme == "unix" or (parts.scheme != "ssh" and is_loopback(parts.hostname or ""))


def _name(place: Place[DockerSpec], model: Model) -> str:
    environment = () if place.environment == "default" else (place.environment,)
    return "-".join((place.project, *environment, model.name))
