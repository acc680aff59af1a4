"""ModelPack artifacts: what their manifest and config say, which bytes they push, and that the source reads the same model back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, Repository
from pipeline.core import modelpack as words
from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, digest
from pipeline.core.image import Registry
from pipeline.core.model import Facts, FileEntry, Filter, Model, Overlay, Part
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event, Progress
from pipeline.core.resource import Absent, Address, Mark, Observed, Resource, Transfer
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.modelpack import artifact
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.sources.kinds import Kind, kind_of
from pipeline.sources.local import LocalSource
from pipeline.sources.oci.source import OciSource
from tests.fakes import engine
from tests.parts.absorbing import Absorbing

OWNER = Mark("test", "default", Address(""))
FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "config.json": b'{"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"}',
    "model-1.safetensors": b"weights" * 1000,
    "model-2.safetensors": b"weights" * 1000,  # the same bytes
    "sub/tokenizer.json": b"{}",
}
# Every property that schema/config-schema.json of modelpack/model-spec 0.0.7 knows; others are refused by it.
DESCRIPTOR = {
    "createdAt", "authors", "vendor", "family", "name", "version", "title", "description", "docURL", "sourceURL",
    "datasetsURL", "revision", "licenses",
}  # fmt: skip
CONFIG = {"architecture", "format", "paramSize", "precision", "quantization", "capabilities"}


def model_of(folder: Path, cache: Cache, files: dict[str, bytes]) -> Model:
    """These files, verified in the cache."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    source = LocalSource(folder.parent / "hashes")
    found = source.resolve(SourceSpec(f"file://{folder}", ""), None)
    cache.add(found, source, engine.ignore, Address("tiny/artifact"))
    return Model("tiny", found, engine.CPU, engine.ENGINE.template, engine.ENGINE)


class Desk:
    """A model in the cache and a folder of layouts to publish it to."""

    def __init__(self, folder: Path) -> None:
        self.cache = Cache(folder / "cache")
        self.model = model_of(folder / "weights", self.cache, FILES)
        self.registry = Registry("main", layout=str(folder / "layouts"))
        self.events: list[Event] = []
        self.driver = ImageDriver(self.cache, {}, Repositories({}), OWNER)

    @property
    def repository(self) -> Repository:
        return Repositories({})(self.registry, "tiny.modelpack")

    def wanted(self, model: Model | None = None) -> Resource[ImageState]:
        return image.model_artifact(model or self.model, self.registry, "acme")

    def transfer(self, model: Model | None = None) -> Transfer:
        answer = self.driver.observe([self.wanted(model)], [])[Address("tiny/modelpack:main")]
        assert isinstance(answer, Observed | Absent)
        return answer.transfer

    def bring(self, model: Model | None = None) -> ImageManifest:
        wanted = self.wanted(model)
        made = self.driver.apply(
            Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None), {}, self.events.append
        )
        assert made is not None
        found = self.repository.manifest(str(made.digest))
        assert found is not None
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def layers_of(manifest: ImageManifest) -> list[tuple[str, str, str]]:
    """Media type, path and digest of every layer."""
    layers = json.loads(manifest.body)["layers"]
    return [
        (one["mediaType"], one["annotations"]["org.cncf.model.filepath"], one["digest"]) for one in layers
    ]


def test_every_file_is_a_layer_as_it_is_in_the_order_of_paths(desk: Desk) -> None:
    manifest = desk.bring()

    start = "application/vnd.cncf.model."
    assert layers_of(manifest) == [
        (f"{start}doc.v1.raw", "README.md", digest(FILES["README.md"])),
        (f"{start}weight.config.v1.raw", "config.json", digest(FILES["config.json"])),
        (f"{start}weight.v1.raw", "model-1.safetensors", digest(FILES["model-1.safetensors"])),
        (f"{start}weight.v1.raw", "model-2.safetensors", digest(FILES["model-2.safetensors"])),
        (f"{start}weight.config.v1.raw", "sub/tokenizer.json", digest(b"{}")),
    ]
    document = manifest.document()
    assert document["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert document["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert isinstance(document["config"], dict)
    assert document["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"


def test_bytes_to_push_are_exact_before_anything_is_read_and_equal_files_count_once(desk: Desk) -> None:
    distinct_bytes = sum(len(content) for content in set(FILES.values()))
    desk.cache.blob(desk.model.files[0].sha256).unlink()  # a machine that has not even fetched them

    assert desk.transfer() == Transfer(push_bytes=distinct_bytes)


def test_equal_files_are_sent_once_and_what_is_there_is_not_sent_again(desk: Desk) -> None:
    desk.bring()

    progress = [event for event in desk.events if isinstance(event, Progress)]
    assert progress[-1].done_bytes == sum(len(content) for content in set(FILES.values()))
    assert desk.transfer() == Transfer()

    told = replace(desk.model, artifact=replace(desk.model.artifact, version="v2"))
    distinct_bytes = sum(len(content) for content in set(FILES.values()))
    assert desk.transfer(told) == Transfer(reused_bytes=distinct_bytes)


def test_the_source_reads_the_same_model_back(desk: Desk) -> None:
    made = desk.bring()
    tag = desk.repository.tags()[0]
    source = OciSource(lambda registry, name: desk.repository, Absorbing(), lambda seconds: None)

    found = source.resolve(SourceSpec("oci://registry.test/tiny.modelpack", tag), None)

    assert found.files == desk.model.files
    assert found.facts.architecture == "LlamaForCausalLM"
    assert found.facts.license == "Apache-2.0"  # of the artifact's own annotations
    assert found.pin == made.digest.replace(":", "-")
    for entry in found.files:
        with source.open(found, entry, 0) as stream:
            assert stream.read() == FILES[entry.path]


def test_the_config_says_what_is_known_and_nothing_of_this_machine(desk: Desk) -> None:
    facts = Facts(architecture="LlamaForCausalLM", dtype="bfloat16", license="apache-2.0")
    known = replace(desk.model.artifact, source="hf://acme/tiny", version="main", pin="a" * 40, facts=facts)
    manifest = desk.bring(replace(desk.model, artifact=known))

    name = Digest(json.loads(manifest.body)["config"]["digest"])
    config = json.loads(desk.repository.blob(name) or b"")

    assert config == {
        "descriptor": {
            "name": "tiny",
            "version": "main",
            "revision": "a" * 40,
            "sourceURL": "https://huggingface.co/acme/tiny",
            "licenses": ["Apache-2.0"],
        },
        "config": {"architecture": "LlamaForCausalLM", "format": "safetensors", "precision": "bf16"},
        "modelfs": {"type": "layers", "diffIds": [digest(FILES[path]) for path in sorted(FILES)]},
    }
    assert config["descriptor"].keys() <= DESCRIPTOR
    assert config["config"].keys() <= CONFIG


def test_a_folder_of_this_machine_is_not_named(desk: Desk) -> None:
    made = artifact(desk.model, {})

    config = json.loads(made.config)
    assert "sourceURL" not in config["descriptor"]
    assert str(desk.cache.root.parent).encode() not in made.config + made.manifest.body


def test_a_chat_template_takes_the_place_of_the_file_below_it(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_bytes(b"{{ messages }}")
    entry = FileEntry("chat_template.jinja", 3, "0" * 64)
    below = replace(desk.model.artifact, files=tuple(sorted((*desk.model.artifact.files, entry))))
    overlay = Overlay("chat_template.jinja", digest(file.read_bytes())[7:], 14, str(file))

    made = desk.bring(replace(desk.model, artifact=below, overlays=(overlay,)))

    found = {path: name for _, path, name in layers_of(made)}
    assert found["chat_template.jinja"] == digest(b"{{ messages }}")


def test_files_of_an_adapter_are_in_its_folder(desk: Desk, tmp_path: Path) -> None:
    adapter = model_of(
        tmp_path / "fr",
        desk.cache,
        {"adapter_config.json": b'{"r": 8}', "adapter_model.safetensors": b"lora"},
    )
    made = desk.bring(replace(desk.model, parts=(Part("adapters.fr", adapter.artifact, "adapters/fr"),)))

    assert "adapters/fr/adapter_model.safetensors" in [path for _, path, _ in layers_of(made)]


@pytest.mark.parametrize("change", ["file", "version", "revision", "licence"])
def test_the_artifacts_name_changes_with_its_files_and_with_what_is_said_of_them(
    desk: Desk, change: str
) -> None:
    found = desk.model.artifact
    match change:
        case "file":
            found = replace(found, files=found.files[:-1])
        case "version":
            found = replace(found, version="v2")
        case "revision":
            found = replace(found, pin="b" * 40)
        case _:
            found = replace(found, facts=Facts(license="mit"))

    assert desk.wanted(replace(desk.model, artifact=found)).desired != desk.wanted().desired


def test_what_a_target_or_a_machine_adds_is_no_part_of_its_name(desk: Desk) -> None:
    elsewhere = replace(desk.model, args={"max-num-seqs": 4}, hardware=replace(desk.model.hardware, gpus=2))

    there = image.model_artifact(elsewhere, Registry("main", url="ghcr.io/acme"), "other")
    assert there.desired == desk.wanted().desired


@pytest.mark.parametrize("path", ["model.py", "a/b.so", "run.sh", "lib.js", "kernel.cu", "main.go"])
def test_what_is_packed_as_code_is_what_the_source_takes_only_where_it_is_allowed(path: str) -> None:
    assert kind_of(path) is Kind.CODE
    assert words.raw(path) == "application/vnd.cncf.model.code.v1.raw"


@pytest.mark.parametrize("path", ["LICENSE", "LICENSE.txt", "README.md", "USE_POLICY.md", "Notice", "a.png"])
def test_texts_for_people_are_documents(path: str) -> None:
    assert words.raw(path) == "application/vnd.cncf.model.doc.v1.raw"


@pytest.mark.parametrize(
    "path", ["tokenizer.model", "config.json", "merges.txt", "chat_template.jinja", "vocab", "x.unknown"]
)
def test_what_goes_with_the_weights_is_their_config(path: str) -> None:
    assert words.raw(path) == "application/vnd.cncf.model.weight.config.v1.raw"


def test_code_that_came_along_goes_along_and_comes_back_only_where_it_is_allowed(
    desk: Desk, tmp_path: Path
) -> None:
    code = b"class Tiny: ..."
    sha256 = digest(code)[7:]
    folder = tmp_path / "coded"
    folder.mkdir()
    (folder / "model.py").write_bytes(code)
    (folder / "model.safetensors").write_bytes(b"weights")
    allow = Filter(allow=(("model.py", sha256),))
    source = LocalSource(tmp_path / "hashes")
    found = source.resolve(SourceSpec(f"file://{folder}", "", allow), None)
    desk.cache.add(found, source, engine.ignore, Address("tiny/artifact"))
    made = desk.bring(replace(desk.model, artifact=found))
    reader = OciSource(lambda registry, name: desk.repository, Absorbing(), lambda seconds: None)
    where = SourceSpec("oci://registry.test/tiny.modelpack", made.digest)

    assert [entry.path for entry in reader.resolve(where, None).files] == ["model.safetensors"]
    assert reader.resolve(replace(where, filter=allow), None).files == found.files
