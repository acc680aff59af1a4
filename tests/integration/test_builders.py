"""Who builds engine images: the BuildKit that models.yaml names for a template, by the command line. Mostly no Docker engine answers."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import contents
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.settings import default_docker_host
from pipeline.manifest.lock import Lock, engine_key, write_lock
from pipeline.resources.image.index import is_whole
from tests.parts.base_image import BaseImage
from tests.parts.buildkit import RealBuilder, published
from tests.parts.ports import free_port
from tests.parts.project import Project
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, tiny_engine

pytestmark = [pytest.mark.docker, pytest.mark.registry, pytest.mark.buildkit]  # Docker makes the base image

PARTLY = 5
NOWHERE = "unix:///nonexistent/docker.sock"
DOCKER = default_docker_host(os.environ)


@frozen
class Works:
    """A project of one model whose engine needs no packages: only its Dockerfile is built."""

    project: Project
    place: str  # its registry: "127.0.0.1:5000/name"

    def write(self, base: BaseImage, builder: str | None = None) -> None:
        engine = {"base": base.reference, **({"builder": builder} if builder else {})}
        self.project.write(published(self.place, engine))


@pytest.fixture
def works(tmp_path: Path, registry: RealRegistry, base_image: BaseImage, buildkit: RealBuilder) -> Works:
    folder = tmp_path / "project"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text("{}")
    (folder / "weights" / "model.safetensors").write_bytes(tmp_path.name.encode())
    engine = replace(tiny_engine(), base=base_image.name, base_digest=base_image.digest)
    write_lock(folder / "models.lock", Lock({}, {engine_key(engine, PLATFORM): engine}))
    environ = {**buildkit.environ, "DOCKER_HOST": NOWHERE, "NO_COLOR": "1", "COLUMNS": "200"}
    name = tmp_path.name.replace("_", "-").lower().strip("-")
    return Works(Project(folder, tmp_path / "cache", environ), f"{registry.host}/{name}")


@pytest.mark.parametrize("scheme", ["unix", "tcp"])
def test_the_builder_that_the_manifest_names_builds(
    works: Works, base_image: BaseImage, buildkit: RealBuilder, scheme: str
) -> None:
    works.write(base_image, getattr(buildkit, scheme))

    works.project.applied()

    repository = Repositories({})(Registry("main", url=works.place), "tiny")
    (tag,) = [tag for tag in repository.tags() if tag.startswith("mp-")]
    made = repository.manifest(tag)
    assert made is not None
    assert is_whole(repository, made)
    config = json.loads(repository.blob(contents(made)[0]) or b"")
    assert config["config"]["Entrypoint"][-1] == "/opt/mp/serve.py"
    assert works.project.mp("plan", "--detailed-exitcode").code == 0


def test_a_builder_in_the_environment_is_for_templates_that_name_none(
    works: Works, base_image: BaseImage, buildkit: RealBuilder
) -> None:
    works.write(base_image)
    works.project.applied(environ={"BUILDKIT_HOST": buildkit.tcp})


@pytest.mark.parametrize("context", ["desktop-linux", "default"])
def test_a_builder_that_only_buildx_can_use_leaves_the_docker_engine_to_build(
    works: Works, base_image: BaseImage, tmp_path: Path, context: str
) -> None:
    """buildx lists the contexts of Docker as builders, and has no file of them."""
    works.write(base_image)
    environ = {"BUILDX_BUILDER": context, "BUILDX_CONFIG": str(tmp_path), "DOCKER_HOST": DOCKER}

    planned = works.project.mp("plan", environ=environ)
    applied = works.project.applied(environ=environ)

    said = f'the Docker engine builds, and not "{context}" of BUILDX_BUILDER: buildx: no builder'
    assert planned.code == 0
    assert " ".join(planned.text.split()).count(said) == (context != "default"), planned.text
    assert "Docker engine builds" not in works.project.mp("plan", environ=environ).text, "nothing is built"
    assert applied.code == 0


def test_the_default_builder_of_buildx_is_the_docker_engines(works: Works, base_image: BaseImage) -> None:
    works.write(base_image, "buildx://default")
    works.project.applied(environ={"DOCKER_HOST": DOCKER})


def test_a_builder_that_does_not_answer_is_named_and_nothing_is_pushed(
    works: Works, base_image: BaseImage, buildkit: RealBuilder
) -> None:
    silent = f"tcp://127.0.0.1:{free_port()}"
    works.write(base_image, silent)

    result = works.project.mp("apply", "--yes", environ={"BUILDKIT_HOST": buildkit.tcp})

    assert result.code == PARTLY, result.text  # the weights are in the cache
    said = " ".join(result.text.split())
    assert f"the builder at {silent} does not answer" in said
    assert "builder: under engines" in said


def test_what_is_no_address_is_shown_with_its_line(works: Works, base_image: BaseImage) -> None:
    works.write(base_image, "builder:1234")
    result = works.project.mp("validate")
    assert result.code == 1
    assert "must be the address of a BuildKit" in result.text
    assert "models.yaml:" in result.text
