"""This machine as a target: a supervised server process with an environment made by uv, found again after mp ends."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class LocalSpec(BaseModel):
    """A target that runs models as processes on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["local"]


class LocalOptions(BaseModel):
    """What a model says about a local target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        None,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        max_length=63,
        description="Name of the process and of its folder; the model's name when it is left out",
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port on 127.0.0.1; a free one is chosen and kept when it is left out",
    )
    weights: Literal["mount"] = Field("mount", description="The process reads the weights from the cache")
