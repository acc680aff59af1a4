"""Engine images of the cuda variants, which nothing here can run: the real Dockerfiles and runtime files over a base of
our own, with a placeholder for the environment; and, apart from them, the requirements of every declared variant.
"""

import contextlib
import json
import re
from collections.abc import Iterator

import docker
import docker.errors
import pytest

from pipeline.clients import uv
from pipeline.clients.buildkit import Builder
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, contents
from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Registry, Variant
from pipeline.core.model import Hardware
from pipeline.core.resource import Address, Mark
from pipeline.resources.engine import resource as engine
from pipeline.resources.engine.driver import EngineDriver
from pipeline.resources.engine.pin import unpinned
from pipeline.templates import TEMPLATES
from pipeline.templates.release import releases
from tests.parts.base_image import BaseImage
from tests.parts.registry import RealRegistry

PLATFORM = "linux/amd64"
GPU = Hardware("l40s", 1, "L40S")
FILES_BYTES = 2**20  # far more than all runtime files, far less than any weights
ENVIRONMENT = {  # top-level packages that runtime files may import: what the environment brings
    "transformers": {"torch", "transformers", "starlette", "uvicorn"},
    "vllm": {"vllm"},
}
LOOK = """\
import ast, json, os, pathlib, py_compile, sys
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = "/tmp/compiled"
files = sorted(pathlib.Path("/opt/mp").rglob("*.py"))
needed = set()
for file in files:
    py_compile.compile(str(file), doraise=True)
    tree = ast.parse(file.read_text())
    checked_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in checked_only:
            continue
        if isinstance(node, ast.Import):
            needed |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            needed.add((node.module or "").split(".")[0])
own = {file.stem for file in files}
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "files": {str(file): oct(file.stat().st_mode & 0o777) for file in pathlib.Path("/opt/mp").rglob("*")},
    "elsewhere": sorted(needed - own - sys.stdlib_module_names),
    "models": os.path.exists("/models"),
}))
"""


@frozen
class Made:
    """An engine image that was built and pushed, then pulled by its digest."""

    build: Build
    base: BaseImage
    manifest: ImageManifest
    base_manifest: ImageManifest
    reference: str
    client: docker.DockerClient

    def run(self, *command: str, entrypoint: str | None = None) -> str:
        said = self.client.containers.run(
            self.reference, list(command), entrypoint=entrypoint, remove=True, network_mode="none"
        )
        return bytes(said).decode().strip()


def cuda(template: str) -> Variant:
    return TEMPLATES[template].variant(None, GPU)


@pytest.fixture(scope="module", params=TEMPLATES)
def made(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    base_image: BaseImage,
    docker_host: str,
    registry: RealRegistry,
) -> Iterator[Made]:
    template: str = request.param
    pinned = unpinned(cuda(template), PLATFORM, f"{base_image.name}:bookworm@{base_image.digest}")
    build = TEMPLATES[template].build(pinned)  # no requirements: the placeholder
    place = Registry("main", url=f"{registry.host}/cuda")
    wanted = engine.resource(build, place)
    owner = Mark("test", "default", Address(""))
    driver = EngineDriver(Builder(docker_host), tmp_path_factory.mktemp("cache"), Repositories({}), owner)
    observed = driver.apply(
        Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None), {}, lambda _: None
    )
    assert observed
    manifest = Repositories({})(place, f"{template}.engine").manifest(image_tag(build.fingerprint))
    home = Repositories({})(Registry("base", url=registry.host), "debian").manifest(base_image.digest)
    assert manifest and home
    reference = f"{place.url}/{template}.engine@{observed.digest}"
    client = docker.DockerClient(base_url=docker_host)
    try:
        client.images.pull(reference)
        yield Made(build, base_image, manifest, home, reference, client)
    finally:
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.remove(reference, force=True)
        client.close()


@pytest.mark.docker
@pytest.mark.registry
def test_cuda_image_has_its_files_and_nothing_that_it_lacks(made: Made) -> None:
    template = made.build.engine.template
    seen = json.loads(made.run("-c", LOOK, entrypoint="python3"))

    names = {path.removeprefix(f"{template}/") for path, _ in made.build.files} - {"Dockerfile"}
    assert seen["files"] == {f"/opt/mp/{name}": "0o644" for name in names}
    assert {"serve.py", "launch.py"} <= names
    assert set(seen["elsewhere"]) <= ENVIRONMENT[template]
    assert (seen["uid"], seen["gid"]) == (10001, 10001)
    assert seen["models"] is False


@pytest.mark.docker
@pytest.mark.registry
def test_cuda_image_says_how_it_starts_and_what_it_is(made: Made) -> None:
    config = made.client.images.get(made.reference).attrs["Config"]

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python3", "/opt/mp/serve.py"]
    assert config["Labels"] == {
        "dev.mp.fingerprint": made.build.fingerprint,
        "dev.mp.engine": made.build.engine.key,
    }
    assert made.build.engine.key.endswith("-cuda")
    assert "PYTHONPATH=/opt/app" in config["Env"]
    assert "8000/tcp" in config["ExposedPorts"]
    with pytest.raises(docker.errors.ContainerError, match=r"no launch: name a launch\.json"):
        made.run()


@pytest.mark.docker
@pytest.mark.registry
def test_cuda_image_is_its_base_and_small_files_without_weights(made: Made) -> None:
    layers, base_layers = contents(made.manifest)[1], contents(made.base_manifest)[1]
    base_count = len(base_layers)
    assert len(layers) > base_count
    assert sum(size for _, size in layers[base_count:]) < FILES_BYTES
    rooted = made.client.images.get(made.reference).attrs["RootFS"]["Layers"]
    assert rooted[:base_count] == made.client.images.get(made.base.local).attrs["RootFS"]["Layers"]


VARIANTS = [v for name in TEMPLATES for release in releases(name) for v in release.variants.values()]


@pytest.mark.slow  # asks the package index
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.key)
def test_requirements_of_every_variant_resolve_with_hashes(variant: Variant) -> None:
    index, lines = uv.resolve(variant, PLATFORM, print)

    assert index.startswith("https://")
    pinned = [re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==\S+", line) for line in lines]
    assert all(found and " --hash=sha256:" in line for found, line in zip(pinned, lines, strict=True))
    names = {found[1].lower() for found in pinned if found}
    assert "torch" in names
    assert {re.split(r"[=<>\[ ]", wanted)[0] for wanted in variant.requirements} <= names
