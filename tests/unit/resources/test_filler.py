"""The filler image: what is below an engine's environment, and mp's own files; made from a registry alone."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import CONFIG, ImageManifest, Repository, contents
from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Missing
from pipeline.core.image import Build, Registry
from pipeline.core.resource import Absent, Address, Mark, Observed, Resource
from pipeline.resources.filler import resource as fillers
from pipeline.resources.filler.content import MODULE, ROOT, layer
from pipeline.resources.filler.resource import FillerDriver, FillerState
from pipeline.resources.image.index import images, index
from pipeline.resources.image.recipe import engine_name
from tests.fakes.engine import ENGINE
from tests.parts.packages import LAYER_TAR, Layer, put, tar

BUILD = Build(ENGINE, (("serve.py", "a" * 64),), "/runtime")
ARM = replace(BUILD, engine=replace(ENGINE, platform="linux/arm64"))
OWNER = Mark("acme", "default", Address(""))
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def opened(registry: Registry, build: Build = BUILD) -> Repository:
    return Repositories({})(registry, engine_name(build, registry).repository)


def push_engine(registry: Registry, architecture: str = "amd64", *, told: bool = True) -> ImageManifest:
    """As the workshop makes one: a base, an empty app folder, packages, our files."""
    words = ["base", "COPY app /opt/app # buildkit", "mp: torch", "COPY mp /opt/mp"]
    layers = [Layer(tar((f"{architecture}-{word}", word.encode())), LAYER_TAR) for word in words]
    layers[0] = replace(layers[0], media_type=DOCKER_LAYER)
    empty = {"created_by": "ENV A=1", "empty_layer": True}
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "PYTHONPATH=/opt/app"], "User": "10001:10001", "WorkingDir": "/tmp"},
        "rootfs": {"type": "layers", "diff_ids": [digest(one.content) for one in layers]},
        **({"history": [empty, *({"created_by": word} for word in words), empty]} if told else {}),
    }
    tag = engine_name(BUILD, registry).tag
    return put(opened(registry), layers, tag, config, CONFIG, artifact_type=None)


def bring(registry: Registry, build: Build = BUILD) -> Observed[FillerState]:
    wanted = fillers.resource(build, registry)
    change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
    made = FillerDriver(Repositories({}), OWNER).apply(change, {}, lambda event: None)
    assert made is not None
    return made


def held(registry: Registry, made: Observed[FillerState]) -> tuple[ImageManifest, dict[str, Any]]:
    """The image that was made, and its config."""
    repository = Repositories({})(registry, "transformers.filler")
    image = repository.manifest(str(made.digest))
    assert image is not None
    config = repository.blob(contents(image)[0])
    assert config is not None
    return image, json.loads(config)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry("main", layout=str(tmp_path / "registry"))


def test_it_is_the_base_and_one_layer_and_neither_packages_nor_runtime(registry: Registry) -> None:
    engine = push_engine(registry)
    image, config = held(registry, bring(registry))
    layers = [name for name, _ in contents(image)[1]]
    assert layers == [contents(engine)[1][0][0], digest(layer())]
    assert config["rootfs"]["diff_ids"][-1] == digest(layer())
    assert len(config["rootfs"]["diff_ids"]) == 2
    types = [str(one["mediaType"]) for one in image.document()["layers"]]  # type: ignore[union-attr,index,call-overload]
    assert types == [f"{LAYER_TAR}+gzip", LAYER_TAR]


def test_engine_that_tells_no_history_is_taken_whole(registry: Registry) -> None:
    push_engine(registry, told=False)
    image, _ = held(registry, bring(registry))
    assert len(contents(image)[1]) == 5


def test_it_runs_the_program_as_the_engines_user_with_our_files_alone(registry: Registry) -> None:
    push_engine(registry)
    _, config = held(registry, bring(registry))
    settings = config["config"]
    assert settings["Env"] == ["PATH=/bin", f"PYTHONPATH=/{ROOT}"]
    assert settings["Entrypoint"] == ["python3", "-m", MODULE]
    assert settings["User"] == "10001:10001"


def test_layer_has_the_program_what_it_needs_and_the_licences(registry: Registry) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer())) as archive:
        names = {name.removeprefix(f"{ROOT}/") for name in archive.getnames()}
    assert {"pipeline/cli/filling.py", "urllib3/__init__.py", "yaml/__init__.py"} <= names
    assert any(name.startswith("urllib3") and "LICENSE" in name for name in names)
    assert not any(name.endswith((".pyc", ".so")) or "__pycache__" in name for name in names)
    assert len(layer()) < 4 * 2**20


def test_image_that_stands_is_observed_and_another_engine_is_another_image(registry: Registry) -> None:
    wanted = fillers.resource(BUILD, registry)
    driver = FillerDriver(Repositories({}), OWNER)
    assert isinstance(driver.observe([wanted], [])[wanted.address], Absent)
    push_engine(registry)
    made = bring(registry)
    seen = driver.observe([wanted], [])[wanted.address]
    assert isinstance(seen, Observed)
    assert (seen.state, seen.digest) == (wanted.desired, made.digest)
    other: Resource[FillerState] = fillers.resource(replace(BUILD, files=(("serve.py", "b" * 64),)), registry)
    assert other.desired != wanted.desired
    assert other.address == wanted.address


def test_image_is_made_for_every_platform_of_its_engine(registry: Registry) -> None:
    build = replace(BUILD, others=(ARM,))
    found = {f"linux/{name}": push_engine(registry, name) for name in ("amd64", "arm64")}
    repository = opened(registry)
    for one in found.values():
        repository.put_manifest(one.digest, one)
    repository.put_manifest(engine_name(build, registry).tag, index(found, {}))
    made = bring(registry, build)
    fillers_there = Repositories({})(registry, "transformers.filler")
    whole = fillers_there.manifest(str(made.digest))
    assert whole is not None
    assert sorted(platform for platform, _ in images(fillers_there, whole)) == ["linux/amd64", "linux/arm64"]


def test_engine_image_that_is_gone_is_named(registry: Registry) -> None:
    with pytest.raises(Missing, match="engine image"):
        bring(registry)


def test_same_inputs_make_the_same_image(registry: Registry, tmp_path: Path) -> None:
    other = Registry("main", layout=str(tmp_path / "other"))
    digests: set[Digest | None] = set()
    for place in (registry, other):
        push_engine(place)
        digests.add(bring(place).digest)
    assert len(digests) == 1
