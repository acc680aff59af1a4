"""The tiny engine as an engine image in a registry, made without a Docker engine: Debian with Python, and server.py."""

from pathlib import Path

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import CONFIG
from pipeline.core.digest import digest
from pipeline.core.image import Build, Engine, Registry
from pipeline.core.model import Hardware
from pipeline.resources.image.assembly import FINGERPRINT
from pipeline.resources.image.recipe import engine_name
from pipeline.templates import TEMPLATES
from tests.fakes.engine import CPU, SERVER
from tests.parts.base_image import PATH_LINE, debian_tar
from tests.parts.capability import CACHE
from tests.parts.packages import LAYER_TAR, Layer, put, tar

TEMPLATE, PLATFORM = "transformers", "linux/amd64"
PATH_VARIABLE = PATH_LINE.removeprefix("ENV ")


def tiny_engine(hardware: Hardware = CPU) -> Engine:
    """What a lock says of an engine that needs no packages."""
    variant = TEMPLATES[TEMPLATE].variant(None, hardware)
    return Engine(
        TEMPLATE,
        variant.version,
        variant.name,
        PLATFORM,
        variant.python,
        "debian:bookworm",
        "sha256:" + "0" * 64,
        "https://pypi.org/simple",
        (),
    )


def push_tiny_engine(registry: Registry, engine: Engine, server: Path = SERVER) -> Build:
    """The image that `mp` finds by the engine's fingerprint, so that it builds none."""
    build = TEMPLATES[TEMPLATE].build(engine)
    name = engine_name(build, registry)
    repository = Repositories({})(registry, name.repository)
    if repository.manifest(name.tag) is None:
        layers = [Layer(debian_tar(CACHE).read_bytes(), LAYER_TAR), _server(server)]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [PATH_VARIABLE]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer.content) for layer in layers]},
        }
        marks = {FINGERPRINT: build.fingerprint}
        put(repository, layers, name.tag, config, CONFIG, artifact_type=None, annotations=marks)
    return build


def _server(file: Path) -> Layer:
    return Layer(tar(("opt/mp/serve.py", file.read_bytes())), LAYER_TAR)
