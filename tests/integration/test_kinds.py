"""Every kind of image and artifact in a real registry and in a folder, read by skopeo, Docker and mp itself."""

import hashlib
import json
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.clients.oci import Repositories
from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.image import Registry
from pipeline.core.model import Hardware, Model
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Absent, Address, Mark, Observed, Resource, Transfer
from pipeline.resources import image
from pipeline.resources.cache import Cache
from pipeline.resources.image import ImageDriver, ImageState
from pipeline.sources.local import LocalSource
from pipeline.sources.oci import OciSource
from tests.fakes import engine as tiny
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
