"""Engine images on a real Docker engine and a real registry: a tiny template, one tiny package, seconds."""

import contextlib
import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from pipeline.clients.archive import docker_archive
from pipeline.clients.buildctl import RemoteBuilder
from pipeline.clients.buildkit import Builder, Builds
from pipeline.clients.docker import DockerHost
from pipeline.clients.oci.closure import closure
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import contents, held
from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, image_tag
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, Registry
from pipeline.core.report import Event, Line, Progress
from pipeline.core.resource import Absent, Address, Entry, Mark, Observed, Resource, fields_of
from pipeline.resources.engine import resource as engine
from pipeline.resources.engine.driver import EngineDriver
from pipeline.resources.engine.resource import EngineState
from tests.parts.base_image import BaseImage
from tests.parts.buildkit import RealBuilder
from tests.parts.ports import free_port
from tests.parts.registry import RealRegistry

pytestmark = [pytest.mark.docker, pytest.mark.registry]

SIX = (
    "six==1.17.0 "
    "--hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 "
    "--hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81"
)
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY app /opt/app
COPY mp /opt/mp
ENV PYTHONPATH=/opt/app
USER 10001:10001
ENTRYPOINT ["python3", "/opt/mp/serve.py"]
"""
SERVE = """\
import os, pathlib, six, launch
compiled = list(pathlib.Path(six.__file__).parent.glob("__pycache__/six*.pyc"))
print("six", six.__version__, "uid", os.getuid(), "compiled", len(compiled), launch.WORD)
"""
OWNER = Mark("test", "default", Address(""))


@frozen
class Yard:
    """A driver with what it builds from and into; everything it makes is removed afterwards."""

    folder: Path
    base: BaseImage
    docker_host: str
    client: docker.DockerClient
    events: list[Event]

    def driver(self, builder: Builds | None = None) -> EngineDriver:
        made = builder or Builder(self.docker_host)
        return EngineDriver(made, self.folder / "cache", Repositories({}), OWNER)

    def build(self, word: str = "ready") -> Build:
        files = {"launch.py": f"WORD = {word!r}\n", "tiny/serve.py": SERVE, "tiny/Dockerfile": DOCKERFILE}
        for path, text in files.items():
            (self.folder / "runtime" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "runtime" / path).write_text(text)
        hashes = ((path, hashlib.sha256(text.encode()).hexdigest()) for path, text in files.items())
        made = Engine(
            template="tiny",
            version=f"1.0.{self.folder.name}",
            variant="cpu",
            platform="linux/amd64",
            python="3.11",
            base=f"{self.base.name}:bookworm",
            base_digest=self.base.digest,
            index="https://pypi.org/simple",
            requirements=(SIX,),
        )
        return Build(made, tuple(sorted(hashes)), str(self.folder / "runtime"))

    def bring(
        self, wanted: Resource[EngineState], entry: Entry | None = None, builder: Builds | None = None
    ) -> Observed[EngineState]:
        change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, entry)
        made = self.driver(builder).apply(change, {}, self.events.append)
        assert made is not None
        return made

    def said(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Line))

    def did(self) -> list[str]:
        return [event.doing for event in self.events if isinstance(event, Progress)]

    def run(self, image: str) -> str:
        return bytes(self.client.containers.run(image, remove=True)).decode().strip()


@pytest.fixture
def yard(tmp_path: Path, base_image: BaseImage, docker_host: str) -> Iterator[Yard]:
    client = docker.DockerClient(base_url=docker_host)
    before = set(names(client))
    try:
        yield Yard(tmp_path, base_image, docker_host, client, [])
    finally:
        for name in names(client):
            if name not in before and (".engine" in name or "/loaded" in name):
                with contextlib.suppress(docker.errors.ImageNotFound):  # it went with another of its names
                    client.images.remove(name, force=True)
        client.close()


def names(client: docker.DockerClient) -> list[str]:
    """Every image by all of its names, digests too: what was pulled by digest has no other."""
    images = client.images.list()
    return [name for image in images for name in (*image.tags, *(image.attrs.get("RepoDigests") or ()))]


@pytest.fixture
def main(registry: RealRegistry) -> Registry:
    return Registry("main", url=f"{registry.host}/{uuid.uuid4().hex[:8]}")


def test_an_engine_is_built_pushed_and_found_again(yard: Yard, main: Registry) -> None:
    wanted = engine.resource(yard.build(), main)
    assert isinstance(yard.driver().observe([wanted], [])[wanted.address], Absent)

    made = yard.bring(wanted)

    seen = yard.driver().observe([wanted], [])[wanted.address]
    assert isinstance(seen, Observed)
    assert fields_of(seen.state) == fields_of(wanted.desired)
    assert seen.digest == made.digest
    assert seen.mark == replace(OWNER, address=wanted.address)
    image = f"{main.url}/tiny.engine@{made.digest}"
    yard.client.images.pull(f"{main.url}/tiny.engine@{made.digest}")
    assert yard.run(image) == "six 1.17.0 uid 10001 compiled 1 ready"


def test_an_image_that_is_there_is_not_built_again(yard: Yard, main: Registry) -> None:
    wanted = engine.resource(yard.build(), main)
    first = yard.bring(wanted)
    yard.events.clear()

    again = yard.bring(wanted)

    assert again.digest == first.digest
    assert yard.did() == []


def test_a_changed_runtime_file_is_another_image_with_the_same_environment(
    yard: Yard, main: Registry
) -> None:
    first = yard.bring(engine.resource(yard.build("old"), main))
    yard.events.clear()
    wanted = engine.resource(yard.build("new"), main)

    second = yard.bring(wanted)

    repository = Repositories({})(main, "tiny.engine")
    one, other = (repository.manifest(str(made.digest)) for made in (first, second))
    assert one is not None
    assert other is not None
    layers, others = contents(one)[1], contents(other)[1]
    assert layers[:-1] == others[:-1]  # base and environment
    assert layers[-1] != others[-1]
    assert "cached" in yard.said().lower()


def test_an_engine_that_was_pruned_is_made_again_from_what_is_cached(yard: Yard) -> None:
    layout = Registry("here", layout=str(yard.folder / "layouts"))
    wanted = engine.resource(yard.build(), layout)
    first = yard.bring(wanted)
    repository = Repositories({})(layout, "tiny.engine")
    assert repository.remove(closure(repository, Digest(str(first.digest))).manifests) > 0
    assert repository.tags() == ()
    environments = yard.folder / "cache" / "engine-environments"
    (marker,) = environments.glob("*.complete")
    before = marker.stat().st_mtime_ns
    yard.events.clear()

    again = yard.bring(wanted)

    assert again.digest == first.digest
    assert marker.stat().st_mtime_ns == before, "its packages are not installed again"
    assert "cached" in yard.said().lower(), "nor are the steps of its Dockerfile run again"


@pytest.mark.buildkit
def test_another_builder_makes_an_image_that_runs_the_same(
    yard: Yard, main: Registry, buildkit: RealBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", buildkit.environ["PATH"])
    remote = RemoteBuilder(buildkit.tcp, os.environ)
    wanted = engine.resource(yard.build(), main)

    yard.bring(wanted, builder=remote)

    name = f"{main.url}/tiny.engine:{image_tag(wanted.desired.fingerprint)}"
    assert yard.run(name) == "six 1.17.0 uid 10001 compiled 1 ready"
    yard.events.clear()
    yard.bring(engine.resource(yard.build("other"), main), builder=remote)
    assert "cached" in yard.said().lower()


def test_an_engine_in_a_layout_can_be_loaded_and_run(yard: Yard) -> None:
    layout = Registry("here", layout=str(yard.folder / "layouts"))
    wanted = engine.resource(yard.build(), layout)

    made = yard.bring(wanted)

    repository = Repositories({})(layout, "tiny.engine")
    tag = image_tag(wanted.desired.fingerprint)
    assert repository.head(tag) is not None
    seen = yard.driver().observe([wanted], [])[wanted.address]
    assert isinstance(seen, Observed)
    assert (fields_of(seen.state), seen.digest) == (fields_of(wanted.desired), made.digest)
    folder = yard.folder / "layouts" / "tiny.engine"
    said = subprocess.run(
        ["skopeo", "inspect", f"oci:{folder}:{tag}"], capture_output=True, check=True, text=True
    )
    assert json.loads(said.stdout)["Labels"]["dev.mp.fingerprint"] == wanted.desired.fingerprint
    name = f"mp/loaded-{yard.folder.name}:{tag}"
    DockerHost(yard.docker_host).load(docker_archive(repository, tag, name), name)
    assert yard.run(name) == "six 1.17.0 uid 10001 compiled 1 ready"


def test_a_moved_tag_is_seen_and_put_back_without_a_build(yard: Yard, main: Registry) -> None:
    wanted = engine.resource(yard.build(), main)
    made = yard.bring(wanted)
    repository = Repositories({})(main, "tiny.engine")
    foreign = Repositories({})(Registry("main", url=yard.base.name.rpartition("/")[0]), "debian")
    image = foreign.manifest(yard.base.digest)
    assert image is not None
    blobs = [contents(image)[0], *(layer for layer, _ in contents(image)[1])]
    for blob in blobs:
        body = foreign.blob(blob)
        assert body is not None
        repository.push(blob, len(body), held(body))
    tag = image_tag(wanted.desired.fingerprint)
    repository.put_manifest(tag, image)

    seen = yard.driver().observe([wanted], [])[wanted.address]
    assert isinstance(seen, Observed)
    assert (seen.state.fingerprint, seen.digest) == ("", yard.base.digest)
    state = fields_of(wanted.desired)
    entry = Entry(wanted.address, wanted.kind, wanted.locator, None, made.digest, state, state)
    yard.events.clear()
    yard.bring(wanted, entry)

    assert yard.did() == []
    back = repository.head(tag)
    assert back is not None
    assert back[0] == made.digest


def test_without_a_base_digest_nothing_is_built(yard: Yard, main: Registry) -> None:
    build = yard.build()
    unknown = replace(build, engine=replace(build.engine, base_digest=None))

    with pytest.raises(BackendError, match="digest of base") as refused:
        yard.bring(engine.resource(unknown, main))

    assert "engines:" in str(refused.value.hint)
    assert yard.did() == []


def test_a_build_that_fails_says_which_step(yard: Yard, main: Registry) -> None:
    build = yard.build()
    text = DOCKERFILE + "COPY absent /opt/absent\n"
    (yard.folder / "runtime" / "tiny" / "Dockerfile").write_text(text)
    files = dict(build.files) | {"tiny/Dockerfile": hashlib.sha256(text.encode()).hexdigest()}
    broken = replace(build, files=tuple(sorted(files.items())))

    with pytest.raises(BackendError, match="absent"):
        yard.bring(engine.resource(broken, main))


def test_a_registry_that_does_not_answer_is_named(yard: Yard) -> None:
    nowhere = Registry("main", url=f"127.0.0.1:{free_port()}/x")
    wanted = engine.resource(yard.build(), nowhere)

    answer: Any = yard.driver().observe([wanted], [])[wanted.address]

    assert str(nowhere.url).split("/")[0] in answer.reason
    assert "connection refused" in answer.reason
