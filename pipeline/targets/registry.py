"""An image registry as a target: the model is published there and runs nowhere."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core.image import Build, Launch
from pipeline.core.model import Model
from pipeline.core.protocols import Place
from pipeline.core.resource import Resource
from pipeline.resources.image.resource import model_artifact, model_image, weights_image


class RegistrySpec(BaseModel):
    """A target that only publishes images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["registry"]
    registry: str | None = Field(
        default=None, description="A key of `registries:`; the model's registry when it is left out"
    )
    publish: tuple[Literal["model", "weights", "modelpack"], ...] = Field(
        default=("model",),
        min_length=1,
        description="`model`: engine and weights in one image; `weights`: only the files, under /models; "
        "`modelpack`: the files as a ModelPack artifact",
    )


class RegistryOptions(BaseModel):
    """What a model says about a registry target: nothing yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RegistryTarget:
    """Expands a model into the images that are published; nothing runs."""

    def expand(
        self, place: Place[RegistrySpec], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[Any]]:  # Any: images of all kinds share a driver
        if "model" in place.spec.publish:
            yield model_image(model, build, place.registry, place.project)
        if "weights" in place.spec.publish:
            yield weights_image(model, place.registry, place.project)
        if "modelpack" in place.spec.publish:
            yield model_artifact(model, place.registry, place.project)
