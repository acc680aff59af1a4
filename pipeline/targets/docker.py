"""A Docker engine as a target: one container a model, compared field by field with what `docker inspect` says."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DockerSpec(BaseModel):
    """A target that runs models as containers of one Docker engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["docker"]
    host: str | None = Field(
        None,
        pattern=r"^(unix|tcp|ssh|https?)://",
        description='The engine, such as "ssh://gpu1" or "tcp://10.0.0.7:2376"; DOCKER_HOST or this machine when it is left out',
    )
    optional: bool = Field(
        False, description="An engine that does not answer is named and skipped; the plan stays complete"
    )


class DockerOptions(BaseModel):
    """What a model says about a docker target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$",
        max_length=63,
        description="The container's name; project and model's name when it is left out",
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Published port; the engine chooses a free one when it is left out"
    )
    bind: str = Field("127.0.0.1", description="Address of the host on which the port is published")
    weights: Literal["mount", "baked"] = Field(
        "mount",
        description="`mount`: the cache, read-only, into the engine image; `baked`: the model image, which holds them",
    )
    memory: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)?([KMGT]i?B?|B)?$",
        description='Memory limit, such as "8Gi"; the hardware class\'s memory when it is left out',
    )
