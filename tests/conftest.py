"""What every test may use: the real parts of this machine, each started once a session. Marks say what a test needs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.parts import capability, network
from tests.parts.base_image import BaseImage, import_base, push_base
from tests.parts.buckets import Buckets, running_buckets
from tests.parts.buildkit import RealBuilder, running_buildkit
from tests.parts.cluster import RealCluster, running_cluster
from tests.parts.registry import RealRegistry, running_registry


def pytest_configure(config: pytest.Config) -> None:
    network.block_outside()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A missing capability skips on a laptop and fails in CI: a green run cannot hide a missing part."""
    for mark in capability.MARKS:
        if item.get_closest_marker(mark) is None or (why := capability.missing(mark)) is None:
            continue
        if capability.in_ci() and mark != "gpu":
            pytest.fail(f"{mark}: {why} (in CI nothing may be missing)", pytrace=False)
        pytest.skip(f"{mark}: {why}")


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The address of the Docker engine: "unix:///var/run/docker.sock"."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """An open registry that all tests share; use names of your own. Tests that stop one start their own."""
    with running_registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry that asks for a user and a password (tests.parts.registry.USER, PASSWORD)."""
    with running_registry(tmp_path_factory.mktemp("locked-registry"), password=True) as started:
        yield started


@pytest.fixture(scope="session")
def buckets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    """An S3 store that all tests share; use buckets of your own."""
    with running_buckets(tmp_path_factory.mktemp("buckets")) as started:
        yield started


@pytest.fixture(scope="session")
def buildkit() -> Iterator[RealBuilder]:
    """A BuildKit that is no Docker engine's; it pulls from this machine's registries."""
    with running_buildkit() as started:
        yield started


@pytest.fixture(scope="session")
def cluster() -> Iterator[RealCluster]:
    """A Kubernetes whose node pulls from this machine's registries; use namespaces of your own."""
    with running_cluster() as started:
        yield started


@pytest.fixture(scope="session")
def base_image(docker_host: str, registry: RealRegistry) -> BaseImage:
    """Debian with Python in the Docker engine and, by digest, in `registry`."""
    client = docker.DockerClient(base_url=docker_host)
    try:
        return push_base(client, import_base(client, capability.CACHE), registry.host)
    finally:
        client.close()


@pytest.fixture(scope="session")
def engine_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    """A registry for the real engine images, which are large: whoever needs them first builds them, once a run.

    Pods reach it, too: by the address of their node.
    MP_TEST_REGISTRY names a folder in which it keeps them, so that the next run builds nothing.
    """
    kept = os.environ.get("MP_TEST_REGISTRY")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("engine-registry")
    folder.mkdir(parents=True, exist_ok=True)
    with running_registry(folder, everywhere=True) as started:
        yield started
    if not kept:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def engine_base(docker_host: str, engine_registry: RealRegistry) -> BaseImage:
    """The base of the real engine images, in their registry."""
    client = docker.DockerClient(base_url=docker_host)
    try:
        return push_base(client, import_base(client, capability.CACHE), engine_registry.host)
    finally:
        client.close()


@pytest.fixture(scope="session")
def transformers_python() -> Path:
    """The Python of the transformers engine's CPU environment."""
    from tests.parts.engines import engine_python

    return engine_python("transformers")


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of the vLLM engine's CPU environment."""
    from tests.parts.engines import engine_python

    return engine_python("vllm")
