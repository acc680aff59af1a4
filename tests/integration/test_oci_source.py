"""Models from a real registry into the cache: every form, through skopeo, with a password, and with faults on the way."""

import base64
import gzip
import hashlib
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import INDEX, ImageManifest, Repository
from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Unreachable
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, Filter, Hardware, Model
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Address, Mark
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.resource import ImageDriver
from pipeline.sources.local import LocalSource
from pipeline.sources.oci.source import OciSource
from tests.fakes import engine as tiny
from tests.fakes.hub import Fault
from tests.parts import packages
from tests.parts.faulty import FaultyServer, faulty, forwarding
from tests.parts.packages import Layer, image_layer, put, put_image, weight
from tests.parts.registry import PASSWORD, USER, RealRegistry

pytestmark = pytest.mark.registry

ADDRESS = Address("tiny/artifact")
CONFIG = b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}'
WEIGHTS = hashlib.shake_256(b"weights").digest(3_000_000)
GGUF = b"GGUF" + WEIGHTS
TINY = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "sub dir/tokenizer.json": b"{}"}


@dataclass
class Bench:
    """A repository of a real registry, read by a source that keeps what it learns in a cache."""

    folder: Path
    host: str  # the source's
    name: str
    repository: Repository  # written to directly
    environ: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = Cache(self.folder / "cache", pause=lambda seconds: None)
        self.source = self.anew()

    def anew(self) -> OciSource:
        return OciSource(Repositories(self.environ), self.cache.absorb, lambda seconds: None)

    @property
    def spec(self) -> SourceSpec:
        return SourceSpec(f"oci://{self.host}/{self.name}", "v1")

    def pull(self, spec: SourceSpec | None = None) -> dict[str, bytes]:
        """Resolve, fetch into the cache, and read what is there."""
        return self.fetched(self.source.resolve(spec or self.spec, None))

    def fetched(self, artifact: Artifact) -> dict[str, bytes]:
        self.cache.add(artifact, self.source, tiny.ignore, ADDRESS)
        assert self.cache.complete(artifact)
        return {
            entry.path: (self.cache.folder(artifact) / entry.path).read_bytes() for entry in artifact.files
        }


@pytest.fixture
def bench(tmp_path: Path, registry: RealRegistry) -> Bench:
    name = f"{uuid.uuid4().hex}/tiny"
    return Bench(tmp_path, registry.host, name, repository(registry, name))


def repository(registry: RealRegistry, name: str, environ: Mapping[str, str] | None = None) -> Repository:
    prefix, _, last = name.partition("/")
    return Repositories(environ or {})(Registry("main", url=f"{registry.host}/{prefix}"), last)


def files_of_model_pack(kind: str = "raw") -> list[Layer]:
    if kind == "raw":
        return [weight(path, content) for path, content in TINY.items()]
    body = packages.tar(*TINY.items())
    body = gzip.compress(body) if kind == "tar+gzip" else body
    return [Layer(body, f"application/vnd.cncf.model.weight.v1.{kind}")]


def put_model_kit(repository: Repository) -> None:
    layers = [
        Layer(
            gzip.compress(packages.tar((path, content))),
            "application/vnd.kitops.modelkit.model.v1.tar+gzip",
            {packages.FILEPATH: path},
        )
        for path, content in TINY.items()
    ]
    kitfile = {"manifestVersion": "1.0.0", "model": {"path": "model.safetensors"}}
    put(
        repository,
        layers,
        config=kitfile,
        config_type=packages.MODEL_KIT_CONFIG,
        artifact_type=packages.MODEL_KIT,
    )


def put_rootfs(repository: Repository, *, compressed: bool) -> None:
    base = image_layer(
        ("bin/sh", b"#!"), ("models/old.gguf", GGUF), ("etc/passwd", b"root"), compressed=compressed
    )
    model = image_layer(
        ("models/.wh.old.gguf", b""), *((f"models/{p}", c) for p, c in TINY.items()), compressed=compressed
    )
    put_image(repository, [base, model])


def put_index(repository: Repository) -> None:
    put_rootfs(repository, compressed=True)
    found = repository.manifest("v1")
    assert found is not None
    platforms = [{"os": "linux", "architecture": "amd64"}, {"os": "unknown", "architecture": "unknown"}]
    listed = [
        {"mediaType": found.media_type, "digest": found.digest, "size": len(found.body), "platform": platform}
        for platform in platforms
    ]
    body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    repository.put_manifest("v1", ImageManifest(json.dumps(body).encode(), INDEX))


def put_titled(repository: Repository) -> None:
    layers = [
        Layer(content, "application/octet-stream", {packages.TITLE: path}) for path, content in TINY.items()
    ]
    put(repository, layers, config_type=packages.EMPTY_CONFIG, artifact_type="application/x-mlmodel")


FORMS: Mapping[str, Callable[[Repository], object]] = {
    "model pack, raw": lambda r: put(r, files_of_model_pack()),
    "model pack, tar": lambda r: put(r, files_of_model_pack("tar")),
    "model pack, tar+gzip": lambda r: put(r, files_of_model_pack("tar+gzip")),
    "model kit": put_model_kit,
    "image": lambda r: put_rootfs(r, compressed=False),
    "image, compressed": lambda r: put_rootfs(r, compressed=True),
    "index": put_index,
    "titled layers": put_titled,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_arrives_whole_and_is_known_without_a_request(
    bench: Bench, registry: RealRegistry, form: str
) -> None:
    FORMS[form](bench.repository)

    artifact = bench.source.resolve(bench.spec, None)

    assert bench.fetched(artifact) == TINY
    head = bench.repository.head("v1")
    assert head is not None
    assert artifact.pin == head[0].replace(":", "-")
    by_digest = replace(bench.spec, version=head[0])
    before = len(registry.requests())
    assert bench.anew().resolve(by_digest, artifact) == replace(artifact, version=head[0])
    assert registry.requests()[before:] == []
    assert bench.anew().resolve(bench.spec, artifact) == artifact
    assert registry.requests()[before:] == [f"HEAD /v2/{bench.name}/manifests/v1"]


@pytest.mark.parametrize("form", FORMS)
def test_a_machine_that_has_only_the_lock_gets_the_same_bytes(
    bench: Bench, tmp_path: Path, form: str
) -> None:
    FORMS[form](bench.repository)
    locked = bench.source.resolve(bench.spec, None)
    other = Bench(tmp_path / "other", bench.host, bench.name, bench.repository)

    assert other.fetched(locked) == TINY


def test_ollamas_layers_arrive(bench: Bench) -> None:
    kinds = {"model": GGUF, "template": b"{{ .Prompt }}", "license": b"MIT"}
    layers = [Layer(content, f"application/vnd.ollama.image.{kind}") for kind, content in kinds.items()]
    put(
        bench.repository,
        layers,
        config_type="application/vnd.docker.container.image.v1+json",
        artifact_type=None,
    )

    assert bench.pull() == {"LICENSE": b"MIT", "model.gguf": GGUF, "template": b"{{ .Prompt }}"}


def skopeo(*words: str) -> None:
    subprocess.run(["skopeo", "copy", *words], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("options", [[], ["--format", "v2s2"]])
def test_an_image_that_skopeo_copied_is_the_same_model(bench: Bench, options: Sequence[str]) -> None:
    """Docker's schema 2 has other media types for the same layers."""
    put_rootfs(bench.repository, compressed=True)
    place = f"docker://{bench.host}/{bench.name}"

    skopeo("--src-tls-verify=false", "--dest-tls-verify=false", *options, f"{place}:v1", f"{place}-copy:v1")

    assert bench.pull(replace(bench.spec, reference=f"{bench.spec.reference}-copy")) == TINY


def published(bench: Bench, artifact: Artifact, cache: Cache, *, cached: bool = True) -> SourceSpec:
    """A weights image by the real publisher."""
    prefix = f"{bench.host}/{bench.name}"
    model = Model("tiny", artifact, Hardware("cpu", 0), "transformers", tiny.ENGINE, cached=cached)
    wanted = image.weights_image(model, Registry("main", url=prefix), "test")
    owner = Mark("test", "default", Address(""))
    driver = ImageDriver(cache, {"oci": bench.source}, Repositories({}), owner)
    made = driver.apply(
        Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None), {}, tiny.ignore
    )
    assert made is not None
    return SourceSpec(f"oci://{prefix}/tiny.weights", str(made.digest))


def test_what_mp_publishes_is_a_source_again_with_identical_files(
    bench: Bench, registry: RealRegistry, tmp_path: Path
) -> None:
    large = hashlib.shake_256(b"large").digest(2**20) * 65  # a layer of its own
    checkpoint = tmp_path / "checkpoint"
    for path, content in {**TINY, "model-2.safetensors": large}.items():
        (checkpoint / path).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / path).write_bytes(content)
    local = LocalSource(tmp_path / "hashes")
    original = local.resolve(SourceSpec(f"file://{checkpoint}", ""), None)
    cache = Cache(tmp_path / "publisher")
    cache.add(original, local, tiny.ignore, ADDRESS)
    spec = published(bench, original, cache)

    again = bench.source.resolve(spec, None)

    assert again.files == original.files
    assert again.facts == original.facts
    assert not list((bench.folder / "cache").rglob("*")), "nothing had to be read for its hash"
    assert bench.fetched(again) == {**TINY, "model-2.safetensors": large}
    republished = published(replace(bench, name=f"{bench.name}/again"), again, bench.cache)
    one, other = (layers_of(registry, each) for each in (spec, republished))
    assert one == other


@pytest.mark.parametrize("form", ["model pack, raw", "model pack, tar", "image, compressed"])
def test_a_model_goes_from_registry_to_registry_without_a_file_on_this_disk(bench: Bench, form: str) -> None:
    FORMS[form](bench.repository)
    artifact = bench.source.resolve(replace(bench.spec, kept=False), None)

    spec = published(bench, artifact, bench.cache, cached=False)

    assert not [file for file in (bench.folder / "cache").rglob("*") if len(file.name) == 64]
    assert bench.pull(spec) == TINY


def layers_of(registry: RealRegistry, spec: SourceSpec) -> object:
    name = spec.reference.removeprefix(f"oci://{registry.host}/")
    found = repository(registry, name).manifest(spec.version)
    assert found is not None
    return found.document()["layers"]


def login(folder: Path, host: str, password: str) -> dict[str, str]:
    folder.mkdir()
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(folder)}


def test_a_registry_with_a_password_wants_docker_login(tmp_path: Path, locked_registry: RealRegistry) -> None:
    name = f"{uuid.uuid4().hex}/tiny"
    right = login(tmp_path / "right", locked_registry.host, PASSWORD)
    target = repository(locked_registry, name, right)
    put(target, files_of_model_pack("tar+gzip"))

    assert Bench(tmp_path / "in", locked_registry.host, name, target, right).pull() == TINY
    for environ in ({}, login(tmp_path / "wrong", locked_registry.host, "guess")):
        outside = Bench(tmp_path / "out", locked_registry.host, name, target, environ)
        with pytest.raises(Denied) as denied:
            outside.pull()
        assert denied.value.hint == f"docker login {locked_registry.host}"
        assert "guess" not in f"{denied.value}"


@contextmanager
def behind(bench: Bench) -> Iterator[tuple[Bench, FaultyServer]]:
    """The same repository, read through a server that can be told to fail."""
    with faulty(forwarding(f"http://{bench.host}")) as server:
        yield Bench(bench.folder / "faulty", f"127.0.0.1:{server.port}", bench.name, bench.repository), server


PASSING = {
    "manifest 500": Fault("GET .*/manifests/", times=2, status=500),
    "manifest 429": Fault("GET .*/manifests/", times=1, status=429),
    "blob 500": Fault("GET .*/blobs/", times=3, status=500),
    "blob 503": Fault("GET .*/blobs/", times=3, status=503),
    "cut": Fault("GET .*/blobs/", times=3, cut_after_bytes=1_000_000),
    "no ranges": Fault("GET .*/blobs/", times=100, ignore_range=True),
}
SLOW_FORMS = ("model pack, raw", "model pack, tar", "model pack, tar+gzip", "image, compressed")


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("form", SLOW_FORMS)
def test_a_fault_that_passes_ends_in_the_right_bytes(bench: Bench, form: str, fault: str) -> None:
    FORMS[form](bench.repository)
    with behind(bench) as (reader, server):
        server.faults.append(replace(PASSING[fault]))

        assert reader.pull() == TINY

        assert server.faults[0].times < PASSING[fault].times


LASTING: Mapping[str, tuple[Fault, type[BackendError]]] = {
    "manifest 500": (Fault("GET .*/manifests/", times=1000, status=500), Unreachable),
    "blob 500": (Fault("GET .*/blobs/", times=1000, status=500), Unreachable),
    "blob 401": (Fault("GET .*/blobs/", times=1000, status=401), Denied),
    "blob 403": (Fault("GET .*/blobs/", times=1000, status=403), Denied),
    "blob 404": (Fault("GET .*/blobs/", times=1000, status=404), Missing),
    "flipped bit": (Fault("GET .*/blobs/", times=1000, corrupt_at=-1), Corrupt),
    "cut again and again": (Fault("GET .*/blobs/", times=1000, cut_after_bytes=0), Unreachable),
}


@pytest.mark.parametrize("fault", LASTING)
@pytest.mark.parametrize("form", SLOW_FORMS)
def test_a_fault_that_stays_is_a_clear_error_and_no_wrong_entry(bench: Bench, form: str, fault: str) -> None:
    FORMS[form](bench.repository)
    locked = bench.source.resolve(bench.spec, None)
    with behind(bench) as (reader, server):
        injected, expected = LASTING[fault]
        server.faults.append(replace(injected))

        with pytest.raises(expected) as raised:
            reader.pull()

        assert raised.value.system
        assert not reader.cache.complete(replace(locked, source=reader.spec.reference))
        server.faults.clear()
        assert reader.pull() == TINY


def data(registry: RealRegistry, digest: str) -> Path:
    """Where the registry keeps a blob."""
    root = registry.storage / "docker" / "registry" / "v2" / "blobs" / "sha256"
    return root / digest[7:9] / digest[7:] / "data"


@pytest.mark.parametrize("form", ["model pack, raw", "model pack, tar", "image, compressed"])
@pytest.mark.parametrize("damage", ["cut", "longer", "other bytes", "gone"])
def test_a_layer_that_is_damaged_in_the_registry_is_never_taken(
    bench: Bench, registry: RealRegistry, form: str, damage: str
) -> None:
    FORMS[form](bench.repository)
    found = bench.repository.manifest("v1")
    assert found is not None
    listed: list[dict[str, object]] = json.loads(found.body)["layers"]
    largest = max(listed, key=lambda layer: int(str(layer["size"])))
    blob = data(registry, str(largest["digest"]))
    whole = blob.read_bytes()
    match damage:
        case "cut":
            blob.write_bytes(whole[:-100_000])
        case "longer":
            blob.write_bytes(b"\1" + whole)
        case "other bytes":
            blob.write_bytes(whole[:1_500_000] + b"\1" + whole[1_500_001:])
        case "gone":
            blob.unlink()

    with pytest.raises((Corrupt, Missing)):
        bench.pull()

    for stored in (bench.folder / "cache").rglob("blobs/*/*"):
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == stored.name
    blob.write_bytes(whole)
    assert bench.anew().resolve(bench.spec, None).files
    assert bench.pull() == TINY


def test_a_tag_that_moves_while_it_is_pulled_gives_the_bytes_that_were_locked(bench: Bench) -> None:
    put(bench.repository, files_of_model_pack())
    locked = bench.source.resolve(bench.spec, None)
    put(bench.repository, [weight("model.gguf", GGUF)])

    assert bench.fetched(locked) == TINY
    assert bench.anew().resolve(bench.spec, locked).pin != locked.pin
    assert (
        bench.anew().resolve(replace(bench.spec, filter=Filter(format="gguf")), locked).files[0].path
        == "model.gguf"
    )


def test_a_model_that_is_deleted_after_it_was_locked_is_missing(bench: Bench, registry: RealRegistry) -> None:
    found = put(bench.repository, files_of_model_pack())
    locked = bench.source.resolve(bench.spec, None)
    subprocess.run(
        ["curl", "-sfX", "DELETE", f"http://{bench.host}/v2/{bench.name}/manifests/{found.digest}"],
        check=True,
    )
    bench.source = bench.anew()

    with pytest.raises(Missing):
        bench.fetched(locked)
    with pytest.raises(Missing, match="has no v1"):
        bench.anew().resolve(bench.spec, None)
