"""Engine images: environment and runtime files of one engine, without weights, built once and shared by all models. Pure."""

from dataclasses import field

from pipeline.core.frozen import frozen
from pipeline.core.image import Build, ImageName, Registry
from pipeline.core.resource import Resource, State, address
from pipeline.resources.image.recipe import engine_name, locator

KIND = "engine"


@frozen
class EngineState(State):
    fingerprint: str  # "": a tag of ours names an image that mp did not make
    build: Build | None = field(default=None, compare=False)
    name: ImageName | None = field(default=None, compare=False)
    signed: bool = False  # never where the registry's images are not to be signed


def resource(build: Build, registry: Registry) -> Resource[EngineState]:
    name = engine_name(build, registry)
    return Resource(
        address("@engine", build.engine.key, registry.name),
        KIND,
        locator(name),
        EngineState(build.fingerprint, build, name, registry.signed),
        keep=True,
    )
