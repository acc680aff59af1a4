"""Images against real parts: a registry that counts, stops and refuses, the Docker engine that pulls, skopeo that reads."""

import base64
import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import docker
import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import contents
from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.errors import Denied, Unreachable
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry, Hardware, Model, Overlay
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event, Progress
from pipeline.core.resource import Absent, Address, Mark, Observed, Resource, State, Transfer, Unreadable
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.sources.local import LocalSource
from tests.fakes import engine as tiny
from tests.parts import crane
from tests.parts.base_image import BaseImage
from tests.parts.ports import free_port
from tests.parts.proxy import counting
from tests.parts.registry import PASSWORD, USER, RealRegistry

pytestmark = pytest.mark.registry

SHARD_BYTES = 70 * 2**20
OVERHEAD_BYTES = 40_000  # of headers, configs and image manifests of one apply
OWNER = Mark("test", "default", Address(""))


def shard(seed: str, size_bytes: int = SHARD_BYTES) -> bytes:
    """Incompressible bytes, quickly."""
    return hashlib.shake_256(seed.encode()).digest(2**20) * (size_bytes // 2**20)


@dataclass
class Bench:
    """A model on disk, its cache, and one registry to publish to."""

    folder: Path
    registry: Registry
    environ: dict[str, str] = field(default_factory=dict)
    watch: Callable[[Event], None] = tiny.ignore

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")

    @property
    def driver(self) -> ImageDriver:
        return ImageDriver(self.cache, {}, Repositories(self.environ), OWNER)

    def model(self, **files: bytes) -> Model:
        """These files, verified in the cache."""
        weights = self.folder / f"weights-{uuid.uuid4().hex[:8]}"
        weights.mkdir()
        for name, content in files.items():
            (weights / name.replace("__", ".")).write_bytes(content)
        source = LocalSource(self.folder / "hashes")
        artifact = source.resolve(SourceSpec(f"file://{weights}", ""), None)
        self.cache.add(artifact, source, tiny.ignore, Address("tiny/artifact"))
        return Model("tiny", artifact, Hardware("cpu", 0), "transformers", tiny.ENGINE)

    def weights(self, model: Model) -> Resource[ImageState]:
        return image.weights_image(model, self.registry, "test")

    def look(self, wanted: Resource[ImageState]) -> Observed[ImageState] | Absent | Unreadable:
        return self.driver.observe([wanted], [])[wanted.address]

    def transfer(self, wanted: Resource[ImageState]) -> Transfer:
        answer = self.look(wanted)
        assert isinstance(answer, Observed | Absent)
        return answer.transfer

    def bring(
        self, wanted: Resource[ImageState], inputs: dict[Address, Observed[State]] | None = None
    ) -> Observed[ImageState]:
        change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
        made = self.driver.apply(change, inputs or {}, lambda event: self.watch(event))
        assert made is not None
        return made


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex[:8]


@pytest.fixture
def bench(tmp_path: Path, registry: RealRegistry, prefix: str) -> Bench:
    return Bench(tmp_path, Registry("main", url=f"{registry.host}/{prefix}"))


@pytest.fixture
def client(docker_host: str) -> Iterator[docker.DockerClient]:
    found = docker.DockerClient(base_url=docker_host)
    yield found
    found.close()


def skopeo(reference: str) -> dict[str, object]:
    tls = ["--tls-verify=false"] if reference.startswith("docker:") else []
    argv = ["skopeo", "inspect", *tls, reference]
    found: dict[str, object] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    return found


@pytest.mark.docker
@pytest.mark.parametrize("compression", ["", "gzip"])
def test_docker_pulls_a_model_image_and_finds_every_file_in_it(
    compression: str,
    tmp_path: Path,
    registry: RealRegistry,
    base_image: BaseImage,
    docker_host: str,
    client: docker.DockerClient,
) -> None:
    build = tiny.build(tmp_path / "runtime")
    name, made = tiny.push_image(docker_host, base_image.local, registry.host)
    bench = Bench(tmp_path, replace(name.registry, compression=compression))
    model = bench.model(config__json=b"{}", model__safetensors=shard("one"), notes__txt=b"hello")
    template = tmp_path / "chat_template.jinja"
    template.write_text("{{ messages }}")
    sha256 = hashlib.sha256(template.read_bytes()).hexdigest()
    model = replace(model, overlays=(Overlay("chat_template.jinja", sha256, 14, str(template)),))
    wanted = image.model_image(model, build, bench.registry, "test")
    needed = Address(f"@engine/{tiny.ENGINE.key}:main")

    pushed = bench.bring(wanted, {needed: Observed(State(), digest=made)})

    reference = f"{bench.registry.url}/tiny@{pushed.digest}"
    client.images.pull(reference)
    try:
        said = client.containers.run(
            reference,
            ["-c", "cd /models && sha256sum -- * && stat -c %a:%u:%Y config.json"],
            entrypoint="sh",
            remove=True,
            user="10001",
        )
    finally:
        client.images.remove(reference, force=True)
        tiny.remove_image(client, name)
    lines = bytes(said).decode().splitlines()
    expected = {entry.path: entry.sha256 for entry in model.artifact.files} | {"chat_template.jinja": sha256}
    assert {line.split()[1]: line.split()[0] for line in lines[:-1]} == expected
    assert lines[-1] == "644:0:0"
    seen = skopeo(f"docker://{bench.registry.url}/tiny:{image_tag(wanted.desired.fingerprint)}")
    assert seen["Digest"] == pushed.digest


@pytest.mark.parametrize("kind", ["registry", "layout"])
def test_skopeo_reads_the_weights_image(bench: Bench, kind: str) -> None:
    if kind == "layout":
        bench.registry = Registry("main", layout=str(bench.folder / "layouts"))
    model = bench.model(a__safetensors=shard("a"), config__json=b"{}")
    wanted = bench.weights(model)

    made = bench.bring(wanted)

    tag = image_tag(wanted.desired.fingerprint)
    place = f"docker://{bench.registry.url}/tiny.weights:{tag}"
    seen = skopeo(place if kind == "registry" else f"oci:{bench.registry.layout}/tiny.weights:{tag}")
    assert seen["Digest"] == made.digest
    assert (seen["Os"], seen["Architecture"], len(seen["Layers"])) == ("linux", "amd64", 2)  # type: ignore[arg-type]


@pytest.mark.crane
@pytest.mark.parametrize("compression", ["", "gzip"])
def test_crane_finds_every_byte_in_the_weights_image(bench: Bench, compression: str) -> None:
    bench.registry = replace(bench.registry, compression=compression)
    model = bench.model(a__safetensors=shard("a", 2**20), config__json=b"{}")

    made = bench.bring(bench.weights(model))

    reference = f"{bench.registry.url}/tiny.weights@{made.digest}"
    assert crane.files(reference) == {f"models/{entry.path}": entry.sha256 for entry in model.files}


def test_a_layout_that_skopeo_copied_from_the_registry_is_the_same_image(bench: Bench) -> None:
    wanted = bench.weights(bench.model(a__gguf=b"GGUF" * 1000))
    made = bench.bring(wanted)
    tag = image_tag(wanted.desired.fingerprint)
    layout = replace(bench, registry=Registry("main", layout=str(bench.folder / "layouts")))
    copied = bench.folder / "layouts" / "tiny.weights"
    copied.mkdir(parents=True)

    flags = ["--src-tls-verify=false", "--dest-oci-accept-uncompressed-layers"]
    places = [f"docker://{bench.registry.url}/tiny.weights:{tag}", f"oci:{copied}:{tag}"]
    subprocess.run(["skopeo", "copy", *flags, *places], check=True, capture_output=True)

    repository = Repositories({})(layout.registry, "tiny.weights")
    manifest = repository.manifest(tag)
    assert manifest is not None
    assert manifest.digest == made.digest
    for layer, size_bytes in contents(manifest)[1]:
        blob = repository.blob(layer)
        assert blob is not None
        assert len(blob) == size_bytes


def test_one_changed_shard_of_two_pushes_one_layer_as_the_plan_said(
    bench: Bench, registry: RealRegistry, prefix: str
) -> None:
    with counting(registry.host) as proxy:
        bench.registry = Registry("main", url=f"{proxy.host}/{prefix}")
        first = bench.weights(
            bench.model(a__safetensors=shard("a"), b__safetensors=shard("b"), c__json=b"{}")
        )
        planned = bench.transfer(first)
        bench.bring(first)
        assert planned.push_bytes < proxy.sent_bytes < planned.push_bytes + OVERHEAD_BYTES

        second = bench.weights(
            bench.model(a__safetensors=shard("a"), b__safetensors=shard("B"), c__json=b"{}")
        )
        planned, before = bench.transfer(second), proxy.sent_bytes
        bench.bring(second)
        sent = proxy.sent_bytes - before

    assert SHARD_BYTES < planned.push_bytes < SHARD_BYTES + 4096
    assert SHARD_BYTES < planned.reused_bytes < SHARD_BYTES + 8192
    assert planned.push_bytes < sent < planned.push_bytes + OVERHEAD_BYTES


def test_a_changed_chat_template_sends_one_small_layer(
    bench: Bench, registry: RealRegistry, prefix: str
) -> None:
    model = bench.model(a__safetensors=shard("a"))
    with counting(registry.host) as proxy:
        bench.registry = Registry("main", url=f"{proxy.host}/{prefix}")
        bench.bring(bench.weights(model))
        before = proxy.sent_bytes
        template = bench.folder / "t.jinja"
        template.write_text("{{ messages }}")
        sha256 = hashlib.sha256(template.read_bytes()).hexdigest()
        overlay = Overlay("chat_template.jinja", sha256, 14, str(template))
        changed = bench.weights(replace(model, overlays=(overlay,)))
        assert bench.transfer(changed).push_bytes == 3 * 512 + 1024

        bench.bring(changed)

        assert proxy.sent_bytes - before < OVERHEAD_BYTES


def test_a_second_apply_and_another_machine_send_no_layer(
    bench: Bench, registry: RealRegistry, prefix: str
) -> None:
    wanted = bench.weights(bench.model(a__safetensors=shard("a")))
    made = bench.bring(wanted)
    with counting(registry.host) as proxy:
        bench.registry = Registry("main", url=f"{proxy.host}/{prefix}")
        again = bench.weights(wanted.desired.recipe.model)  # type: ignore[union-attr]
        empty = replace(bench, folder=bench.folder / "other-machine")

        assert bench.transfer(again) == empty.transfer(again) == Transfer()
        assert bench.bring(again).digest == made.digest

        assert proxy.sent_bytes < OVERHEAD_BYTES


def test_a_registry_that_stops_half_way_names_no_incomplete_image_and_the_next_apply_finishes(
    tmp_path: Path,
) -> None:
    real = RealRegistry(tmp_path / "registry")
    real.start()
    bench = Bench(tmp_path, Registry("main", url=f"{real.host}/x"))

    def stop_in_the_middle(event: Event) -> None:
        if isinstance(event, Progress) and event.done_bytes > SHARD_BYTES and real.process:
            real.stop()

    wanted = bench.weights(bench.model(a__safetensors=shard("a"), b__safetensors=shard("b")))
    repository = Repositories({})(bench.registry, "tiny.weights")
    try:
        bench.watch = stop_in_the_middle
        with pytest.raises(Unreachable, match=real.host):
            bench.bring(wanted)
        real.start()
        assert repository.tags() == ()
        assert isinstance(bench.look(wanted), Absent)

        bench.watch = tiny.ignore
        made = bench.bring(wanted)

        assert repository.head(image_tag(wanted.desired.fingerprint)) is not None
        assert skopeo(f"docker://{bench.registry.url}/tiny.weights@{made.digest}")["Digest"] == made.digest
    finally:
        real.stop()


def test_a_registry_that_is_down_is_not_read_and_asked_only_once(bench: Bench) -> None:
    bench.registry = Registry("main", url=f"127.0.0.1:{free_port()}/x")
    model = bench.model(a__gguf=b"GGUF")
    wanted = [bench.weights(replace(model, name=f"tiny-{number}")) for number in range(60)]

    answers = bench.driver.observe(wanted, [])

    assert {type(answer) for answer in answers.values()} == {Unreadable}
    assert {answer.reason for answer in answers.values() if isinstance(answer, Unreadable)} == {
        f"{str(bench.registry.url).split('/')[0]}: connection refused"
    }


def login(folder: Path, host: str, password: str) -> dict[str, str]:
    folder.mkdir()
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(folder)}


def test_a_registry_with_a_password_takes_what_docker_login_left(
    tmp_path: Path, locked_registry: RealRegistry, prefix: str
) -> None:
    bench = Bench(tmp_path, Registry("main", url=f"{locked_registry.host}/{prefix}"))
    wanted = bench.weights(bench.model(a__safetensors=shard("a"), config__json=b"{}"))
    refused = bench.look(wanted)
    assert isinstance(refused, Unreadable)
    assert refused.hint == f"docker login {locked_registry.host}"

    bench.environ = login(tmp_path / "right", locked_registry.host, PASSWORD)
    made = bench.bring(wanted)
    seen = bench.look(wanted)
    assert isinstance(seen, Observed)
    assert seen.digest == made.digest

    bench.environ = login(tmp_path / "wrong", locked_registry.host, "guess")
    with pytest.raises(Denied) as denied:
        bench.bring(wanted)
    assert "guess" not in f"{denied.value} {denied.value.hint}"


def test_two_images_with_the_same_weights_send_them_once(
    bench: Bench, registry: RealRegistry, prefix: str
) -> None:
    model = bench.model(a__safetensors=shard("a"))
    with counting(registry.host) as proxy:
        bench.registry = Registry("main", url=f"{proxy.host}/{prefix}")
        driver = bench.driver
        wanted = [bench.weights(replace(model, name=name)) for name in ("one", "two")]
        changes = [Change(w.address, w.kind, Action.CREATE, w, None, None) for w in wanted]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda change: driver.apply(change, {}, tiny.ignore), changes))

    assert SHARD_BYTES < proxy.sent_bytes < SHARD_BYTES + OVERHEAD_BYTES


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.integration.test_images import sparse_push
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sparse_push(Path({folder!r}), {url!r}, {size})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def sparse_push(folder: Path, url: str, size_bytes: int) -> None:
    """Publish one file of zeros."""
    hasher = hashlib.sha256()
    for _ in range(size_bytes // 2**20):
        hasher.update(bytes(2**20))
    entry = FileEntry("zeros.safetensors", size_bytes, hasher.hexdigest())
    bench = Bench(folder, Registry("main", url=url))
    blob = bench.cache.blob(entry.sha256)
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as handle:
        handle.truncate(size_bytes)
    artifact = Artifact("file:///zeros", "", f"sha256-{entry.sha256}", (entry,))
    model = Model("zeros", artifact, Hardware("cpu", 0), "transformers", tiny.ENGINE)
    bench.bring(bench.weights(model))


@pytest.mark.slow
def test_memory_stays_flat_while_three_hundred_megabytes_are_pushed(bench: Bench) -> None:
    folder = bench.folder / "push"
    script = MEMORY.format(
        root=str(Path(__file__).parents[2]), folder=str(folder), url=bench.registry.url, size=300 * 2**20
    )

    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert int(said.stdout) * 1024 < 30 * 2**20
