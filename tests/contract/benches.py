"""Drivers under contract: for each kind a thing to make, another wish for it, and a way to spoil it by hand.

A new driver joins the suite with one factory in BENCHES. Deployments run the tiny engine, tests.fakes.server.
"""

import contextlib
import hashlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from pipeline.clients import daemon
from pipeline.clients.buildkit import Builder
from pipeline.clients.docker import DockerHost
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import CONFIG, LAYER, MANIFEST, ImageManifest, Repository, held
from pipeline.core.digest import Digest, digest
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Registry
from pipeline.core.model import Secret
from pipeline.core.protocols import Driver
from pipeline.core.resource import Address, Mark, Observed, Resource, State
from pipeline.resources.cache import artifact
from pipeline.resources.cache.artifact import ArtifactDriver
from pipeline.resources.cache.store import Cache
from pipeline.resources.engine import environment
from pipeline.resources.engine import resource as engines
from pipeline.resources.engine.driver import EngineDriver
from pipeline.resources.engine.environment import EnvironmentDriver
from pipeline.resources.filler import resource as fillers
from pipeline.resources.filler.resource import FillerDriver
from pipeline.resources.image import resource as image
from pipeline.resources.image.recipe import engine_name, registry_of
from pipeline.resources.image.resource import ImageDriver
from pipeline.sources.local import LocalSource
from pipeline.targets.deployment import recipe_of
from pipeline.targets.docker.driver import DockerDriver
from pipeline.targets.docker.spec import DockerOptions, DockerRecipe
from pipeline.targets.docker.spec import state_of as docker_state
from pipeline.targets.local.driver import LocalDriver
from pipeline.targets.local.spec import state_of as local_state
from tests.fakes import engine
from tests.fakes.memory import MemoryDriver
from tests.fakes.project import memory_drivers
from tests.parts.packages import image_layer
from tests.parts.packages import put_image as put_packed

OWNER = Mark("test", "default", Address(""))


@frozen
class Bench:
    """One driver and what the suite does with it."""

    driver: Driver[Any]  # Any: every kind has a state of its own
    wanted: Resource[Any]
    changed: Resource[Any] | None = None  # the same address with another desired state
    spoil: Callable[[], None] | None = None  # what somebody does to it by hand
    inputs: Mapping[Address, Observed[Any]] | None = None
    marked: bool = True  # things of this kind carry our mark
    kept: bool = False  # a delete leaves it: images and weights are pruned, by another command
    findable: bool = True  # an inventory's entry is enough to find it


Factory = Callable[[pytest.FixtureRequest, Path], AbstractContextManager[Bench]]


def no_secret(secret: Secret) -> str:
    return f"value-of-{secret.name}"


@contextlib.contextmanager
def environment_bench(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    wanted = environment.resource(engine.ENGINE)
    driver = EnvironmentDriver(folder, engine.make_environment)
    marker = environment.environment_path(folder, engine.ENGINE) / ".complete"
    yield Bench(driver, wanted, spoil=marker.unlink, marked=False)


@contextlib.contextmanager
def local_bench(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    cache = Cache(folder / "cache")
    model = engine.model(folder, cache)
    engine.make_environment(engine.ENGINE, environment.environment_path(cache.root, engine.ENGINE), print)
    driver = LocalDriver(folder / "local", cache, OWNER, no_secret, os.environ)
    build = engine.build(folder / "runtime")

    def resource(*argv: str) -> Resource[Any]:
        state = local_state(model, engine.launch(model, *argv), None, build)
        return Resource(Address("tiny/local:here"), "local", {"name": "tiny"}, state)

    def kill() -> None:
        answer = driver.observe([resource()], [])[Address("tiny/local:here")]
        assert isinstance(answer, Observed)
        assert answer.remote_id is not None
        os.killpg(int(answer.remote_id), signal.SIGKILL)
        found = daemon.find(folder / "local" / "tiny")
        while found is not None and found.supervisor.alive:
            time.sleep(0.01)

    try:
        yield Bench(driver, resource(), resource("--no-chat"), kill)
    finally:
        with contextlib.suppress(ProcessLookupError, AssertionError):
            kill()


@contextlib.contextmanager
def docker_bench(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    host = request.getfixturevalue("docker_host")
    base, registry = request.getfixturevalue("base_image"), request.getfixturevalue("registry")
    image, digest = engine.push_image(host, base.local, registry.host)
    cache = Cache(folder / "cache")
    model = engine.model(folder, cache)
    needed, name = Address("@engine/tiny:main"), f"mp-contract-{os.getpid()}"
    driver = DockerDriver(DockerHost, Repositories({}), cache, OWNER, no_secret, folder / "docker")

    def resource(*argv: str) -> Resource[Any]:
        launch = engine.launch(model, *argv)
        recipe = DockerRecipe(**vars(recipe_of(model, launch)), image=image, image_address=needed)
        state = docker_state(DockerOptions(memory="256Mi"), model, launch, recipe)
        return Resource(
            Address("tiny/docker:box"), "docker", {"host": host, "name": name}, state, needs=(needed,)
        )

    client = docker.DockerClient(base_url=host)
    try:
        yield Bench(
            driver,
            resource(),
            resource("--no-chat"),
            lambda: client.containers.get(name).kill(),
            {needed: Observed(State(), digest=digest)},
        )
    finally:
        for left in client.containers.list(all=True, filters={"name": name}):
            left.remove(force=True)
        engine.remove_image(client, image)
        client.close()


@contextlib.contextmanager
def artifact_bench(request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    source, cache = LocalSource(folder / "hashes"), Cache(folder / "cache")
    aside = Cache(folder / "aside")  # the sources are on disk; this driver's cache is empty
    first, second = engine.model(folder, aside), engine.model(folder / "other", aside, "the sky is grey")
    wanted, changed = artifact.resource(first), artifact.resource(second)

    def spoil() -> None:
        blob = cache.blob(first.artifact.files[0].sha256)
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[::-1])

    driver = ArtifactDriver(cache, {"file": source})
    yield Bench(driver, wanted, changed, spoil, marked=False, kept=True, findable=False)


def layout_place(request: pytest.FixtureRequest, folder: Path) -> Registry:
    return Registry("main", layout=str(folder / "layouts"))


def registry_place(request: pytest.FixtureRequest, folder: Path) -> Registry:
    return Registry("main", url=f"{request.getfixturevalue('registry').host}/{uuid.uuid4().hex[:8]}")


Where = Callable[[pytest.FixtureRequest, Path], Registry]


@contextlib.contextmanager
def weights_bench(where: Where, request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    registry, cache = where(request, folder), Cache(folder / "cache")
    wanted = image.weights_image(engine.model(folder, cache), registry, OWNER.project)
    changed = image.weights_image(engine.model(folder / "other", cache, "grey"), registry, OWNER.project)
    driver = ImageDriver(cache, {}, Repositories({}), OWNER)
    yield Bench(driver, wanted, changed, partial(move_tag, wanted), kept=True)


@contextlib.contextmanager
def modelpack_bench(where: Where, request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    registry, cache = where(request, folder), Cache(folder / "cache")
    wanted = image.model_artifact(engine.model(folder, cache), registry, OWNER.project)
    changed = image.model_artifact(engine.model(folder / "other", cache, "grey"), registry, OWNER.project)
    driver = ImageDriver(cache, {}, Repositories({}), OWNER)
    yield Bench(driver, wanted, changed, partial(move_tag, wanted), kept=True)


@contextlib.contextmanager
def image_bench(where: Where, request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    registry, cache, build = where(request, folder), Cache(folder / "cache"), engine.build(folder / "runtime")
    wanted = image.model_image(engine.model(folder, cache), build, registry, OWNER.project)
    grey = engine.model(folder / "other", cache, "grey")
    changed = image.model_image(grey, build, registry, OWNER.project)
    base = engine_name(build, registry)
    made = put_image(Repositories({})(registry, base.repository), base.tag, b"engine" * 100)
    inputs = {need: Observed(State(), digest=made) for need in wanted.needs}
    driver = ImageDriver(cache, {}, Repositories({}), OWNER)
    yield Bench(driver, wanted, changed, partial(move_tag, wanted), inputs, kept=True)


@contextlib.contextmanager
def engine_bench(where: Where, request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    base, host = request.getfixturevalue("base_image"), request.getfixturevalue("docker_host")
    registry = where(request, folder)
    version = f"0.0.{uuid.uuid4().int % 10**9}"
    made = replace(engine.ENGINE, version=version, base=f"{base.name}:bookworm", base_digest=base.digest)

    def wanted(word: str) -> Resource[Any]:
        """The same engine; its runtime files say another word."""
        files = {"transformers/Dockerfile": DOCKERFILE, "transformers/serve.py": f"print({word!r})\n"}
        root = folder / word
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        hashes = sorted((path, hashlib.sha256(text.encode()).hexdigest()) for path, text in files.items())
        return engines.resource(Build(made, tuple(hashes), str(root)), registry)

    client = docker.DockerClient(base_url=host)
    first, second = wanted("one"), wanted("two")
    driver = EngineDriver(Builder(host), folder / "cache", Repositories({}), OWNER)
    try:
        yield Bench(driver, first, second, partial(move_tag, first), kept=True)
    finally:
        for one in (first, second):
            if (name := one.desired.name) is not None:
                for built in client.images.list():
                    for tag in (tag for tag in built.tags if tag.endswith(f"{name.repository}:{name.tag}")):
                        client.images.remove(tag, force=True)
        client.close()


@contextlib.contextmanager
def filler_bench(where: Where, request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    registry = where(request, folder)
    version = f"0.0.{uuid.uuid4().int % 10**9}"

    def wanted(word: str) -> Resource[Any]:
        """Of one engine, whose image is there; its runtime files say another word."""
        sha256 = hashlib.sha256(word.encode()).hexdigest()
        build = Build(replace(engine.ENGINE, version=version), (("serve.py", sha256),), str(folder))
        name = engine_name(build, registry)
        put_packed(
            Repositories({})(registry, name.repository), [image_layer(("word", word.encode()))], name.tag
        )
        return fillers.resource(build, registry)

    first, second = wanted("one"), wanted("two")
    driver = FillerDriver(Repositories({}), OWNER)
    yield Bench(driver, first, second, partial(move_tag, first), kept=True)


DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY app /opt/app
COPY mp /opt/mp
ENTRYPOINT ["python3", "/opt/mp/serve.py"]
"""


def put_image(repository: Repository, tag: str, layer: bytes) -> Digest:
    """A small whole image that mp did not make."""
    bodies = {CONFIG: json.dumps({"os": "linux", "architecture": "amd64"}).encode(), LAYER: layer}
    blobs = [{"mediaType": kind, "digest": digest(b), "size": len(b)} for kind, b in bodies.items()]
    for body in bodies.values():
        repository.push(digest(body), len(body), held(body))
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blobs[0], "layers": blobs[1:]}
    return repository.put_manifest(tag, ImageManifest(json.dumps(document).encode(), MANIFEST))


def move_tag(wanted: Resource[Any]) -> None:
    """Somebody pushes another image under our tag."""
    repository = Repositories({})(registry_of(wanted.locator), wanted.locator["repository"])
    for tag in repository.tags():
        put_image(repository, tag, b"somebody else's")


@frozen
class Word(State):
    """The state of a thing in memory."""

    word: str


@contextlib.contextmanager
def memory_bench(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Bench]:
    """The fake that cases and engine tests run on, as each kind that it stands for."""
    driver: MemoryDriver = memory_drivers(OWNER.project)[kind]
    whole = Resource(Address(f"tiny/{kind}:here"), kind, {"name": "tiny"}, Word("blue"))
    tracked = kind not in ("artifact", "environment")
    whole = replace(whole, tracked=tracked, keep=kind in ("engine", "filler", "image"))

    def spoil() -> None:
        for key, thing in driver.things.items():
            driver.things[key] = replace(thing, state=Word("spoilt"))

    changed = replace(whole, desired=Word("grey"))
    kept = kind in ("artifact", "engine", "filler", "image")
    yield Bench(driver, whole, changed, spoil, marked=tracked, kept=kept, findable=kind != "artifact")


BENCHES: Mapping[str, Factory] = {
    "artifact": artifact_bench,
    "environment": environment_bench,
    "weights image in a layout": partial(weights_bench, layout_place),
    "weights image in a registry": partial(weights_bench, registry_place),
    "ModelPack in a layout": partial(modelpack_bench, layout_place),
    "ModelPack in a registry": partial(modelpack_bench, registry_place),
    "model image in a layout": partial(image_bench, layout_place),
    "model image in a registry": partial(image_bench, registry_place),
    "engine image in a layout": partial(engine_bench, layout_place),
    "engine image in a registry": partial(engine_bench, registry_place),
    "filler image in a layout": partial(filler_bench, layout_place),
    "filler image in a registry": partial(filler_bench, registry_place),
    "local": local_bench,
    "docker": docker_bench,
    **{f"{kind} in memory": partial(memory_bench, kind) for kind in memory_drivers(OWNER.project)},
}


def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """What a bench needs of this machine."""
    if name == "docker" or name.startswith("engine image"):
        return (pytest.mark.docker, pytest.mark.registry)
    return (pytest.mark.registry,) if name.endswith("in a registry") else ()


def parameters() -> list[Any]:  # Any: pytest's parameter sets have no public type
    return [pytest.param(factory, id=name, marks=marks(name)) for name, factory in BENCHES.items()]
