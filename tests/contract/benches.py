"""Drivers under contract: for each kind a thing to make, another wish for it, and a way to spoil it by hand.

A new driver joins the suite with one factory in BENCHES. Deployments run the tiny engine, tests.fakes.server.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from pipeline.clients import daemon
from pipeline.clients.docker import DockerHost
from pipeline.clients.oci import Repositories
from pipeline.core.model import Secret
from pipeline.core.protocols import Driver
from pipeline.core.resource import Address, Mark, Observed, Resource, State
from pipeline.resources import environment
from pipeline.resources.cache import Cache
from pipeline.resources.environment import EnvironmentDriver
from pipeline.targets.deployment import recipe_of
from pipeline.targets.docker.driver import DockerDriver
from pipeline.targets.docker.spec import DockerOptions, DockerRecipe
from pipeline.targets.docker.spec import state_of as docker_state
from pipeline.targets.local.driver import LocalDriver
from pipeline.targets.local.spec import state_of as local_state
from tests.fakes import engine

OWNER = Mark("test", "default", Address(""))


@dataclass(frozen=True)
class Bench:
    """One driver and what the suite does with it."""

    driver: Driver[Any]  # Any: every kind has a state of its own
    wanted: Resource[Any]
    changed: Resource[Any] | None = None  # the same address with another desired state
    spoil: Callable[[], None] | None = None  # what somebody does to it by hand
    inputs: Mapping[Address, Observed[Any]] | None = None
    marked: bool = True  # things of this kind carry our mark


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


BENCHES: Mapping[str, Factory] = {
    "environment": environment_bench,
    "local": local_bench,
    "docker": docker_bench,
}
MARKS: Mapping[str, tuple[pytest.MarkDecorator, ...]] = {"docker": (pytest.mark.docker, pytest.mark.registry)}


def parameters() -> list[Any]:  # Any: pytest's parameter sets have no public type
    return [pytest.param(factory, id=kind, marks=MARKS.get(kind, ())) for kind, factory in BENCHES.items()]
