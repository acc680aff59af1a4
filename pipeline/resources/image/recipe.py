"""Names and fingerprints of images, and the recipe of one: everything that determines it. Pure; used by images and engines."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from pipeline.core.digest import Digest, Json, fingerprint, image_tag
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, ImageName, Registry
from pipeline.core.mark import ADDRESS, PROJECT
from pipeline.core.model import Model
from pipeline.core.resource import Address, Locator
from pipeline.resources.image import modelpack
from pipeline.resources.image.assembly import (
    FINGERPRINT,
    Assembled,
    EngineParts,
    Placed,
    assemble,
)
from pipeline.resources.image.layers import LAYOUT_VERSION, Layer, layers
from pipeline.resources.image.trust.annotations import of_model

_OWN_TAG = re.compile(r"mp-[0-9a-f]{12}\Z")


@frozen
class Recipe:
    """How one image or artifact of a model is made."""

    address: Address
    name: ImageName
    model: Model
    build: Build | None  # None: no engine inside
    project: str
    fingerprint: str
    packed: bool = False  # a ModelPack artifact

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """What has to be in the repository, each once."""
        return (
            modelpack.distinct(self.model)
            if self.packed
            else layers(self.model.files, self.model.overlays, self.name.registry.compression)
        )

    @property
    def engine(self) -> ImageName | None:
        return engine_name(self.build, self.name.registry) if self.build else None

    @property
    def sibling(self) -> str | None:
        """The repository that has the same layers: the model's for its weights image, and the other way round."""
        own = self.model.name
        if self.packed:
            return None
        return own if self.name.repository != own else f"{own}.weights"

    @property
    def parts(self) -> tuple["Recipe", ...]:
        """The images of one platform each that this one is made of: itself, where there is but one."""
        if self.packed or not self.model.other_engines:
            return (self,)
        return tuple(self._on(platform) for platform in self.model.platforms)

    def _on(self, platform: str) -> "Recipe":
        engines = (self.model.engine, *self.model.other_engines)
        first = next(engine for engine in engines if engine.platform == platform)
        others = tuple(engine for engine in engines if engine is not first)
        model = replace(self.model, engine=first, other_engines=others)
        return replace(self, model=model, build=self.build.on(platform) if self.build else None)

    def assembled(
        self, placed: Sequence[Placed], engine: EngineParts | None, engine_digest: Digest | None
    ) -> Assembled:
        """Config and manifest of one platform, once the layers are placed."""
        annotations = self.annotations(engine_digest)
        if self.packed:
            return modelpack.artifact(self.model, annotations)
        return assemble(placed, engine, self.model.engine.platform, annotations)

    def annotations(self, engine_digest: Digest | None) -> dict[str, str]:
        own = {FINGERPRINT: self.fingerprint, PROJECT: self.project, ADDRESS: self.address}
        return own | of_model(self.model.name, self.model.artifact, self.engine, engine_digest)


def image_name(model: Model, build: Build, registry: Registry) -> ImageName:
    return ImageName(registry, model.name, image_tag(image_fingerprint(model, build, registry)))


def weights_name(model: Model, registry: Registry) -> ImageName:
    return ImageName(registry, f"{model.name}.weights", image_tag(weights_fingerprint(model, registry)))


def modelpack_name(model: Model, registry: Registry) -> ImageName:
    return ImageName(registry, f"{model.name}.modelpack", image_tag(modelpack.artifact_fingerprint(model)))


def engine_name(build: Build, registry: Registry) -> ImageName:
    return ImageName(registry, f"{build.engine.template}.engine", image_tag(build.fingerprint))


def image_fingerprint(model: Model, build: Build, registry: Registry) -> str:
    return fingerprint({"engine": build.fingerprint, **_contents(model, registry)})


def weights_fingerprint(model: Model, registry: Registry) -> str:
    one: dict[str, Json] = {"platform": model.engine.platform}
    several: dict[str, Json] = {"platforms": list(model.platforms)}
    return fingerprint({**(several if model.other_engines else one), **_contents(model, registry)})


def version_tag(version: str) -> str:
    """The human version as a tag, or nothing where there is none (or it looks like one of ours)."""
    tag = re.sub(r"[^A-Za-z0-9_.-]", "-", version).lstrip(".-")[:128]
    return "" if _OWN_TAG.match(tag) else tag


def locator(name: ImageName) -> Locator:
    """Where a repository is found without the manifest. No tag: it is the fingerprint's."""
    found = {"registry": name.registry.location, "repository": name.repository}
    return {**found, "insecure": "true"} if name.registry.insecure else found


def registry_of(where: Mapping[str, str]) -> Registry:
    """The registry of a locator."""
    place = where["registry"]
    if place.startswith("layout:"):
        return Registry(place, layout=place.removeprefix("layout:"))
    return Registry(place, url=place, insecure=where.get("insecure") == "true")


def _contents(model: Model, registry: Registry) -> dict[str, Json]:
    """What is inside; of a registry only what it makes of the layers."""
    form: dict[str, Json] = {"compression": registry.compression} if registry.compression else {}
    return {
        **form,
        "layout": LAYOUT_VERSION,
        "files": [[entry.path, entry.sha256] for entry in model.files],
        "overlays": [[overlay.path, overlay.sha256] for overlay in model.overlays],
    }
