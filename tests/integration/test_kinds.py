"""Every kind of image and artifact in a real registry and in a folder, read by skopeo, Docker and mp itself."""

import hashlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pytest

from pipeline.clients.buildkit import Builder
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    ImageManifest,
    Repository,
    blobs,
    contents,
    held,
)
from pipeline.core.change import Action, Change
from pipeline.core.digest import canonical, digest, image_tag
from pipeline.core.errors import BackendError, Missing
from pipeline.core.image import Build, Engine, Registry
from pipeline.core.model import Hardware, Model
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event, Progress
from pipeline.core.resource import Absent, Address, Entry, Mark, Observed, Resource, Transfer, fields_of
from pipeline.resources.cache.store import Cache
from pipeline.resources.engine import resource as engines
from pipeline.resources.engine.driver import EngineDriver
from pipeline.resources.engine.resource import EngineState
from pipeline.resources.image import resource as image
from pipeline.resources.image.index import images, index, parts
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.sources.local import LocalSource
from pipeline.sources.oci.source import OciSource
from tests.fakes import engine as tiny
from tests.parts import crane, packages
from tests.parts.bulk import Bulk
from tests.parts.proxy import counting
from tests.parts.registry import RealRegistry

pytestmark = pytest.mark.registry

OVERHEAD_BYTES = 40_000  # of headers, configs and image manifests of one apply
OWNER = Mark("test", "default", Address(""))


@dataclass
class Bench:
    """A model on disk, its cache, and a registry to publish to."""

    folder: Path
    registry: Registry

    def __post_init__(self) -> None:
        self.cache = Cache(self.folder / "cache")
        self.driver = ImageDriver(self.cache, {}, Repositories({}), OWNER)

    def model(self, **files: bytes | Bulk) -> Model:
        """These files, verified in the cache."""
        weights = self.folder / f"weights-{uuid.uuid4().hex[:8]}"
        weights.mkdir()
        for name, content in files.items():
            with (weights / name.replace("__", ".")).open("wb") as file:
                file.writelines(content.blocks() if isinstance(content, Bulk) else [content])
        source = LocalSource(self.folder / "hashes")
        artifact = source.resolve(SourceSpec(f"file://{weights}", ""), None)
        self.cache.add(artifact, source, tiny.ignore, Address("tiny/artifact"))
        return Model("tiny", artifact, Hardware("cpu", 0), "transformers", tiny.ENGINE)

    def transfer(self, wanted: Resource[ImageState]) -> Transfer:
        answer = self.driver.observe([wanted], [])[wanted.address]
        assert isinstance(answer, Observed | Absent)
        return answer.transfer

    def bring(self, wanted: Resource[ImageState]) -> Observed[ImageState]:
        change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
        made = self.driver.apply(change, {}, tiny.ignore)
        assert made is not None
        return made

    def read_back(self, host: str, path: str, version: str) -> tuple[object, ...]:
        """The files of a published model, through the source oci:// into a cache of its own."""
        cache = Cache(self.folder / f"other-{uuid.uuid4().hex[:8]}")
        source = OciSource(Repositories({}), cache.absorb)
        found = source.resolve(SourceSpec(f"oci://{host}/{path}", version), None)
        cache.add(found, source, tiny.ignore, Address("tiny/artifact"))
        assert cache.complete(found)
        return found.files


@pytest.fixture
def bench(tmp_path: Path, registry: RealRegistry) -> Bench:
    return Bench(tmp_path, Registry("main", url=f"{registry.host}/{uuid.uuid4().hex[:8]}"))


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def copied(source: str, target: str) -> None:
    flags = ["--src-tls-verify=false"] if source.startswith("docker:") else []
    flags += ["--dest-tls-verify=false"] if target.startswith("docker:") else []
    flags += ["--dest-oci-accept-uncompressed-layers"] if target.startswith("oci:") else []
    skopeo("copy", "--all", "--preserve-digests", *flags, source, target)


def test_a_model_pack_sends_what_the_plan_said_and_other_tools_carry_it_on(
    bench: Bench, registry: RealRegistry
) -> None:
    prefix = str(bench.registry.url).partition("/")[2]
    model = bench.model(
        a__safetensors=Bulk(1, 3 * 2**20), b__safetensors=Bulk(1, 3 * 2**20), config__json=b'{"a": 1}'
    )
    with counting(registry.host) as proxy:
        bench.registry = Registry("main", url=f"{proxy.host}/{prefix}")
        wanted = image.model_artifact(model, bench.registry, "test")
        planned = bench.transfer(wanted)
        made = bench.bring(wanted)
        assert planned == Transfer(push_bytes=3 * 2**20 + 8)
        assert planned.push_bytes < proxy.sent_bytes < planned.push_bytes + OVERHEAD_BYTES

    tag = image_tag(wanted.desired.fingerprint)
    place = f"{registry.host}/{prefix}/tiny.modelpack"
    assert bench.read_back(registry.host, f"{prefix}/tiny.modelpack", tag) == model.files

    copied(f"docker://{place}:{tag}", f"oci:{bench.folder / 'layout'}:v1")
    copied(f"oci:{bench.folder / 'layout'}:v1", f"docker://{registry.host}/{prefix}/carried:v1")
    assert bench.read_back(registry.host, f"{prefix}/carried", str(made.digest)) == model.files
    raw = json.loads(
        skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{prefix}/carried:v1")
    )
    assert raw["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"


def test_a_folder_of_layouts_is_copied_into_a_registry_with_every_tag(
    bench: Bench, registry: RealRegistry
) -> None:
    host, prefix = str(bench.registry.url).split("/")
    bench.registry = Registry("main", layout=str(bench.folder / "layouts"))
    models = [bench.model(a__gguf=b"GGUF" + seed) for seed in (b"1", b"2")]
    for model in models:
        for wanted in (
            image.weights_image(model, bench.registry, "test"),
            image.model_artifact(model, bench.registry, "test"),
        ):
            made = bench.bring(wanted)
            repository, tag = wanted.locator["repository"], image_tag(wanted.desired.fingerprint)
            layout = f"oci:{bench.folder}/layouts/{repository}:{tag}"
            there = f"docker://{host}/{prefix}/{repository}:{tag}"

            assert f"sha256:{_sha256(skopeo('inspect', '--raw', layout))}" == made.digest
            copied(layout, there)

            assert bench.read_back(host, f"{prefix}/{repository}", tag) == model.files
            copy = skopeo("inspect", "--raw", "--tls-verify=false", there)
            assert f"sha256:{_sha256(copy)}" == made.digest
    for repository in ("tiny.weights", "tiny.modelpack"):
        index = json.loads((bench.folder / "layouts" / repository / "index.json").read_text())
        names = [one["annotations"]["org.opencontainers.image.ref.name"] for one in index["manifests"]]
        assert (len(names), index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
        assert json.loads((bench.folder / "layouts" / repository / "oci-layout").read_text()) == {
            "imageLayoutVersion": "1.0.0"
        }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ARM, AMD = "linux/arm64", "linux/amd64"
DOCKERFILE = "ARG BASE\nFROM ${BASE}\nCOPY app /opt/app\nCOPY mp /opt/mp\nUSER 10001:10001\n"


@dataclass
class Yard:
    """What an engine of two platforms is made of: a base index made by hand, in a registry and with nothing to run."""

    folder: Path
    registry: Registry
    docker_host: str

    def __post_init__(self) -> None:
        self.base = f"{self.registry.url}/base"
        repository = Repositories({})(self.registry, "base")
        self.images = {platform: put_base(repository, platform) for platform in (AMD, ARM)}
        self.base_digest = repository.put_manifest("v1", index(self.images, {}))

    def driver(self) -> EngineDriver:
        return EngineDriver(Builder(self.docker_host), self.folder / "cache", Repositories({}), OWNER)

    def build(self, *platforms: str, dockerfile: str = DOCKERFILE) -> Build:
        """A build without packages."""
        files = {"tiny/Dockerfile": dockerfile, "tiny/serve.py": "print('serve')\n"}
        for path, text in files.items():
            (self.folder / "runtime" / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "runtime" / path).write_text(text)
        hashes = tuple(sorted((path, _sha256(text.encode())) for path, text in files.items()))
        first, *others = (
            Build(replace(self.engine, platform=platform), hashes, str(self.folder / "runtime"))
            for platform in platforms
        )
        return replace(first, others=tuple(others))

    @property
    def engine(self) -> Engine:
        index_url = "https://pypi.org/simple"
        return Engine(
            "tiny", "1.0", "cpu", AMD, "3.11", f"{self.base}:v1", str(self.base_digest), index_url, ()
        )

    def bring(self, build: Build, entry: Entry | None = None) -> tuple[Observed[EngineState], list[str]]:
        """The engine image, and what was done for it."""
        wanted = engines.resource(build, self.registry)
        events: list[Event] = []
        change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, entry)
        made = self.driver().apply(change, {}, events.append)
        assert made is not None
        return made, [
            event.doing for event in events if isinstance(event, Progress) if event.doing == "build"
        ]


def put_base(repository: Repository, platform: str) -> ImageManifest:
    """An image with one file that says its platform."""
    layer = packages.tar(("platform", platform.encode()))
    config = canonical(
        {
            "os": "linux",
            "architecture": platform.removeprefix("linux/"),
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [{"created_by": "by hand"}],
        }
    )
    for body in (config, layer):
        repository.push(digest(body), len(body), held(body))
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": digest(layer), "size": len(layer)}],
    }
    made = ImageManifest(canonical(document), MANIFEST)
    repository.put_manifest(made.digest, made)
    return made


@pytest.fixture
def yard(tmp_path: Path, registry: RealRegistry, docker_host: str) -> Iterator[Yard]:
    yard = Yard(tmp_path, Registry("main", url=f"{registry.host}/{uuid.uuid4().hex[:8]}"), docker_host)
    yield yard
    client = docker.DockerClient(base_url=docker_host)
    for each in client.images.list():
        names = [*each.tags, *each.attrs.get("RepoDigests", ())]
        if any(str(yard.registry.url) in name for name in names):
            client.images.remove(str(each.id), force=True)
    client.close()


@pytest.mark.docker
def test_an_engine_of_two_platforms_is_built_for_both_and_carried_on_whole(yard: Yard) -> None:
    build = yard.build(AMD, ARM)

    made, built = yard.bring(build)

    assert len(built) == 2
    place = f"docker://{yard.registry.url}/tiny.engine:{image_tag(build.fingerprint)}"
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", place))
    assert raw["mediaType"] == INDEX
    named = {
        f"{one['platform']['os']}/{one['platform']['architecture']}": one["digest"]
        for one in raw["manifests"]
    }
    assert sorted(named) == [AMD, ARM]
    for platform in (AMD, ARM):
        seen = json.loads(
            skopeo(
                "inspect",
                "--config",
                "--tls-verify=false",
                f"docker://{yard.registry.url}/tiny.engine@{named[platform]}",
            )
        )
        assert f"{seen['os']}/{seen['architecture']}" == platform
        assert seen["rootfs"]["diff_ids"][0] == _config(yard, platform)["rootfs"]["diff_ids"][0]
    copied(place, f"oci:{yard.folder / 'layout'}:v1")
    layout = json.loads((yard.folder / "layout" / "index.json").read_text())
    assert [one["digest"] for one in layout["manifests"]] == [made.digest]
    assert all((yard.folder / "layout" / "blobs" / one.replace(":", "/")).exists() for one in named.values())
    assert yard.bring(build)[1] == []


@pytest.mark.docker
@pytest.mark.crane
def test_crane_copies_an_engine_with_both_platforms_and_each_has_its_own_base(yard: Yard) -> None:
    made, _ = yard.bring(yard.build(AMD, ARM))
    place, copy = f"{yard.registry.url}/tiny.engine@{made.digest}", f"{yard.registry.url}/copied:v1"

    crane.run("copy", place, copy)

    assert crane.run("digest", copy) == made.digest
    repository = Repositories({})(yard.registry, "tiny.engine")
    found = repository.manifest(str(made.digest))
    assert found is not None
    named = {blob for _, image in images(repository, found) for blob, _ in blobs(image)}
    assert named < crane.pulled(copy, yard.folder / "pulled")
    for platform in (AMD, ARM):
        held = crane.files(copy, f"--platform={platform}")
        assert held["platform"] == _sha256(platform.encode())
        assert held["opt/mp/serve.py"] == _sha256(b"print('serve')\n")


@pytest.mark.docker
def test_docker_pulls_its_own_part_of_a_model_image_of_two_platforms(yard: Yard, bench: Bench) -> None:
    build = yard.build(AMD, ARM)
    made, _ = yard.bring(build)
    bench.registry = yard.registry
    model = bench.model(a__safetensors=Bulk(1, 3 * 2**20))
    arm = replace(yard.engine, platform=ARM)
    wanted = image.model_image(
        replace(model, engine=yard.engine, other_engines=(arm,)), build, bench.registry, "test"
    )
    change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
    planned = bench.transfer(wanted)
    pushed = bench.driver.apply(change, {Address("@engine/tiny-1.0-cpu:main"): made}, tiny.ignore)

    assert pushed is not None
    assert planned.push_bytes < 3 * 2**20 + 4096  # once
    client = docker.DockerClient(base_url=yard.docker_host)
    found = client.images.pull(f"{yard.registry.url}/tiny@{pushed.digest}")
    client.close()
    assert (found.attrs["Os"], found.attrs["Architecture"]) == ("linux", "amd64")
    assert len(found.attrs["RootFS"]["Layers"]) == 4  # base, mp's two copies, the weights and nothing twice


@pytest.mark.docker
def test_a_platform_more_builds_only_that_one(yard: Yard) -> None:
    alone = yard.build(AMD)
    first, _ = yard.bring(alone)
    wanted = engines.resource(alone, yard.registry)
    state = fields_of(wanted.desired)
    entry = Entry(wanted.address, wanted.kind, wanted.locator, None, first.digest, state, state)

    both, built = yard.bring(yard.build(AMD, ARM), entry)

    assert len(built) == 1
    repository = Repositories({})(yard.registry, "tiny.engine")
    found = repository.manifest(str(both.digest))
    assert found is not None
    assert {part.platform: part.digest for part in parts(found)}[AMD] == first.digest


@pytest.mark.docker
def test_a_base_that_lacks_a_platform_is_named_with_what_it_has(yard: Yard) -> None:
    yard.base_digest = yard.images[AMD].digest

    with pytest.raises(Missing, match="is for linux/amd64, not for linux/arm64") as problem:
        yard.bring(yard.build(AMD, ARM))
    assert problem.value.hint is not None
    assert "engines: tiny" in problem.value.hint
    assert Repositories({})(yard.registry, "tiny.engine").tags() == ()


@pytest.mark.docker
def test_a_dockerfile_that_runs_programs_of_another_platform_is_told_what_it_needs(yard: Yard) -> None:
    build = yard.build(AMD, ARM, dockerfile=DOCKERFILE + 'RUN ["/opt/mp/serve.py"]\n')

    with pytest.raises(BackendError) as problem:
        yard.bring(replace(build, others=(), engine=replace(build.engine, platform=ARM)))
    assert problem.value.hint is not None
    assert "binfmt" in problem.value.hint
    assert "linux/arm64" in problem.value.hint


def _config(yard: Yard, platform: str) -> dict[str, Any]:  # Any: JSON
    repository = Repositories({})(yard.registry, "base")
    body = repository.blob(contents(yard.images[platform])[0])
    found: dict[str, Any] = json.loads(body or b"")
    return found
