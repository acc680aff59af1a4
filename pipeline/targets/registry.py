"""An image registry as a target: the model is published there and runs nowhere."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RegistrySpec(BaseModel):
    """A target that only publishes images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["registry"]
    registry: str | None = Field(
        None, description="A key of `registries:`; the model's registry when it is left out"
    )
    publish: tuple[Literal["model", "weights"], ...] = Field(
        ("model",),
        min_length=1,
        description="`model`: engine and weights in one image; `weights`: only the files, under /models",
    )


class RegistryOptions(BaseModel):
    """What a model says about a registry target: nothing yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")
