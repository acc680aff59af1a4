"""What every Source promises, asked of each of them; the Hugging Face one runs on the fake Hub."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.clients.hub import Hub
from pipeline.clients.oci.layout import LayoutRepository
from pipeline.clients.s3 import S3
from pipeline.clients.web import Web
from pipeline.core.digest import fingerprint
from pipeline.core.errors import Corrupt, Missing, MpError, Refused
from pipeline.core.model import Artifact, Filter
from pipeline.core.protocols import Source, SourceSpec
from pipeline.sources.https import HttpsSource
from pipeline.sources.huggingface import HuggingFaceSource
from pipeline.sources.local import LocalSource
from pipeline.sources.oci.source import OciSource
from pipeline.sources.s3 import S3Source
from tests.fakes.hub import FakeHub
from tests.fakes.memory import MemorySource
from tests.fakes.web import WebFolder
from tests.parts import packages
from tests.parts.absorbing import Absorbing
from tests.parts.buckets import Buckets
from tests.parts.faulty import faulty

CONFIG = b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64}'
FILES = {
    "config.json": CONFIG,
    "model.safetensors": bytes(range(256)) * 8,
    "sub dir/tokenizer.json": b"{}",
    ".gitattributes": b"* text",
}


class Stage(Protocol):
    """A source and the place it reads from. To join, write one and add it to STAGES."""

    source: Source

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        """Make exactly these files the newest version of one model."""
        ...

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        """The same, by a version that cannot move: a commit, a digest; itself where the source has no versions."""
        ...

    def withdraw(self) -> None:
        """The model is not there any more."""
        ...


class LocalStage:
    def __init__(self, root: Path) -> None:
        self.folder = root / "model"
        self.source: Source = LocalSource(root / "memo")

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        self.withdraw()
        for path, content in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(content)
        return SourceSpec(f"file://{self.folder}", "")

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        return spec

    def withdraw(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class HubStage:
    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.source: Source = HuggingFaceSource(Hub(hub.endpoint, token="hf_test", pause=lambda _: None))
        hub.tokens.add("hf_test")

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        self.hub.commit("acme/tiny", files)
        return SourceSpec("hf://acme/tiny", "main")

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        return replace(spec, version=self.hub.repositories["acme/tiny"].branches["main"])

    def withdraw(self) -> None:
        del self.hub.repositories["acme/tiny"]


class OciStage:
    """Registries are layouts in a folder here; tests/integration has a real one."""

    def __init__(self, root: Path, form: str) -> None:
        self.root = root
        self.form = form
        self.source: Source = OciSource(
            lambda registry, name: LayoutRepository(str(root), name), Absorbing(), lambda _: None
        )

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        repository = LayoutRepository(str(self.root), "tiny")
        if self.form == "raw":
            packages.put(repository, [packages.weight(path, content) for path, content in files.items()])
        else:
            members = [(f"models/{path}", content) for path, content in files.items()]
            packages.put_image(repository, [packages.image_layer(*members, compressed=self.form == "gzip")])
        return SourceSpec("oci://registry.test/acme/tiny", "v1")

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        found = LayoutRepository(str(self.root), "tiny").head("v1")
        assert found is not None
        return replace(spec, version=found[0])

    def withdraw(self) -> None:
        shutil.rmtree(self.root / "tiny")


class S3Stage:
    """A bucket of moto's real server."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets
        self.published: Mapping[str, bytes] = {}
        self.source: Source = S3Source(S3(), Absorbing())

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        self.buckets.publish("contract", {f"acme/tiny/{path}": content for path, content in files.items()})
        self.published = files
        return SourceSpec("s3://contract/acme/tiny", "")

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        listed = [
            [path, hashlib.sha256(content).hexdigest(), len(content)]
            for path, content in sorted(self.published.items())
            if not path.startswith(".")
        ]
        return replace(spec, version=f"sha256:{fingerprint(listed)}")

    def withdraw(self) -> None:
        self.buckets.clear("contract")


class WebStage:
    """A web server's folder, of which one file is the model."""

    def __init__(self, folder: WebFolder, url: str) -> None:
        self.folder = folder
        self.url = url
        self.source: Source = HttpsSource(Web({}), Absorbing())

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        self.folder.files = {"/tiny/model.safetensors": files["model.safetensors"]}
        return SourceSpec(f"{self.url}/tiny/model.safetensors", "")

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        content = self.folder.files["/tiny/model.safetensors"]
        return replace(spec, version=f"sha256:{hashlib.sha256(content).hexdigest()}")

    def withdraw(self) -> None:
        self.folder.files = {}


class MemoryStage:
    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.source: Source = MemorySource(self.repositories)

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        self.repositories["hf://acme/tiny"] = {"main": files, "c" * 40: files}
        return SourceSpec("hf://acme/tiny", "main")

    def fixed(self, spec: SourceSpec) -> SourceSpec:
        return replace(spec, version="c" * 40)

    def withdraw(self) -> None:
        del self.repositories["hf://acme/tiny"]


@contextmanager
def local(root: Path) -> Iterator[Stage]:
    yield LocalStage(root)


@contextmanager
def huggingface(root: Path) -> Iterator[Stage]:
    with FakeHub() as hub:
        yield HubStage(hub)


@contextmanager
def memory(root: Path) -> Iterator[Stage]:
    yield MemoryStage()


@contextmanager
def oci(form: str, root: Path) -> Iterator[Stage]:
    yield OciStage(root, form)


# Each takes an empty folder of its own.
STAGES: Mapping[str, Callable[[Path], AbstractContextManager[Stage]]] = {
    "local": local,
    "huggingface": huggingface,
    "memory": memory,
    "oci artifact": partial(oci, "raw"),
    "oci image": partial(oci, "tar"),
    "oci image, compressed": partial(oci, "gzip"),
}


@contextmanager
def s3(buckets: Buckets, root: Path) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in buckets.environ(root).items():
            patch.setenv(name, value)
        yield S3Stage(buckets)


@pytest.fixture(params=[*STAGES, "s3"])  # all tests share one store of buckets: its server starts in seconds
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    make = STAGES.get(request.param)
    with make(tmp_path) if make else s3(request.getfixturevalue("buckets"), tmp_path) as made:
        yield made


def read(source: Source, artifact: Artifact, path: str, start: int = 0) -> bytes:
    entry = next(entry for entry in artifact.files if entry.path == path)
    with source.open(artifact, entry, start) as stream:
        return stream.read()


def test_resolving_twice_gives_the_same(stage: Stage) -> None:
    spec = stage.publish(FILES)
    assert stage.source.resolve(spec, None) == stage.source.resolve(spec, None)


def test_known_artifact_gives_the_same(stage: Stage) -> None:
    spec = stage.publish(FILES)
    known = stage.source.resolve(spec, None)
    assert stage.source.resolve(spec, known) == known


def test_files_are_sorted_and_without_dot_files(stage: Stage) -> None:
    artifact = stage.source.resolve(stage.publish(FILES), None)
    assert [entry.path for entry in artifact.files] == [
        "config.json",
        "model.safetensors",
        "sub dir/tokenizer.json",
    ]


def test_bytes_are_the_declared_ones(stage: Stage) -> None:
    artifact = stage.source.resolve(stage.publish(FILES), None)
    for entry in artifact.files:
        content = read(stage.source, artifact, entry.path)
        assert content == FILES[entry.path]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size_bytes, entry.sha256)


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_open_at_an_offset_gives_the_tail(stage: Stage, path: str) -> None:
    artifact = stage.source.resolve(stage.publish(FILES), None)
    assert read(stage.source, artifact, path, start=50) == FILES[path][50:]


def test_changed_content_changes_the_pin(stage: Stage) -> None:
    before = stage.source.resolve(stage.publish(FILES), None)
    after = stage.source.resolve(stage.publish(FILES | {"model.safetensors": b"other"}), before)
    assert before.pin != after.pin
    assert before.source == after.source


def test_filter_chooses_files(stage: Stage) -> None:
    spec = replace(stage.publish(FILES), filter=Filter(("*.safetensors", "*.json"), ("sub dir/*",)))
    artifact = stage.source.resolve(spec, None)
    assert [entry.path for entry in artifact.files] == ["config.json", "model.safetensors"]


def test_another_filter_is_noticed_beside_a_known_artifact(stage: Stage) -> None:
    spec = stage.publish(FILES)
    known = stage.source.resolve(replace(spec, filter=Filter(("*.safetensors",))), None)
    assert len(stage.source.resolve(spec, known).files) == 3


def test_source_that_is_gone_is_missing(stage: Stage) -> None:
    spec = stage.publish(FILES)
    stage.withdraw()
    with pytest.raises(Missing):
        stage.source.resolve(spec, None)


def test_file_that_is_gone_is_missing(stage: Stage) -> None:
    artifact = stage.source.resolve(stage.publish(FILES), None)
    gone = replace(artifact.files[1], path="model-00002.safetensors")
    with pytest.raises(Missing), stage.source.open(artifact, gone, 0):
        pass


def test_facts_are_read(stage: Stage) -> None:
    facts = stage.source.resolve(stage.publish(FILES), None).facts
    assert (facts.architecture, facts.layers, facts.hidden_size) == ("LlamaForCausalLM", 2, 64)


def names(artifact: Artifact) -> list[str]:
    return [entry.path for entry in artifact.files]


def test_duplicates_are_left_out_and_their_bytes_counted(stage: Stage) -> None:
    duplicates = {"pytorch_model.bin": b"x" * 300, "original/consolidated.00.pth": b"x" * 4_000}
    artifact = stage.source.resolve(stage.publish(FILES | duplicates), None)
    assert names(artifact) == ["config.json", "model.safetensors", "sub dir/tokenizer.json"]
    assert artifact.left_out_bytes == 4_300


@pytest.mark.parametrize(
    ("format", "paths"),
    [
        ("auto", ["config.json", "model.safetensors", "sub dir/tokenizer.json"]),
        ("safetensors", ["config.json", "model.safetensors", "sub dir/tokenizer.json"]),
        ("gguf", ["config.json", "sub dir/tokenizer.json", "tiny.gguf"]),
        ("text", ["config.json", "sub dir/tokenizer.json"]),
    ],
)
def test_format_chooses_the_weights(stage: Stage, format: str, paths: list[str]) -> None:
    spec = stage.publish(FILES | {"tiny.gguf": b"GGUF" * 8})
    assert names(stage.source.resolve(replace(spec, filter=Filter(format=format)), None)) == paths


def test_format_that_is_not_there_is_missing(stage: Stage) -> None:
    spec = replace(stage.publish(FILES), filter=Filter(format="gguf"))
    with pytest.raises(Missing, match="no GGUF file is chosen"):
        stage.source.resolve(spec, None)


def test_several_quantisations_are_not_guessed_among(stage: Stage) -> None:
    spec = stage.publish({"config.json": CONFIG, "tiny-Q4.gguf": b"4" * 9, "tiny-Q8.gguf": b"8" * 9})
    with pytest.raises(MpError, match="2 GGUF files to choose from"):
        stage.source.resolve(spec, None)
    chosen = replace(spec, filter=Filter(("*Q8*",)))
    assert names(stage.source.resolve(chosen, None)) == ["tiny-Q8.gguf"]


def test_filter_is_echoed(stage: Stage) -> None:
    spec = replace(stage.publish(FILES), filter=Filter(("*.safetensors",), ("x",), "safetensors"))
    assert stage.source.resolve(spec, None).filter == spec.filter


def test_pickle_alone_is_refused_by_name(stage: Stage) -> None:
    spec = stage.publish({"config.json": CONFIG, "pytorch_model.bin": b"x"})
    with pytest.raises(Refused, match=r'"pytorch_model.bin" may run code'):
        stage.source.resolve(spec, None)


def test_everything_that_runs_code_is_refused_at_once(stage: Stage) -> None:
    config = b'{"vision_config": {"auto_map": {"AutoModel": "modeling_acme.Model"}}}'
    unsafe = {"config.json": config, "modeling_acme.py": b"", "lib.so": b"", "odd.xyz": b""}
    with pytest.raises(Refused) as raised:
        stage.source.resolve(stage.publish(FILES | unsafe), None)
    for name in ('"config.json" has auto_map', '"lib.so"', '"modeling_acme.py"', '"odd.xyz"'):
        assert name in raised.value.message


CODE = b"class Model: ..."
UNSAFE = FILES | {
    "config.json": b'{"num_hidden_layers": 2, "auto_map": {"AutoModel": "modeling_acme.Model"}}',
    "modeling_acme.py": CODE,
}


def allowing(sha256: str) -> Filter:
    return Filter(allow=(("modeling_acme.py", sha256),))


def test_code_is_taken_when_its_hash_is_listed_for_a_fixed_version(stage: Stage) -> None:
    spec = stage.fixed(stage.publish(UNSAFE))
    allowed = replace(spec, filter=allowing(hashlib.sha256(CODE).hexdigest()))
    artifact = stage.source.resolve(allowed, None)
    assert read(stage.source, artifact, "modeling_acme.py") == CODE
    with pytest.raises(Refused, match=f"files.allow lists {'0' * 64}"):
        stage.source.resolve(replace(spec, filter=allowing("0" * 64)), None)
    with pytest.raises(Refused, match="is code"):  # what was allowed once is not allowed for ever
        stage.source.resolve(spec, artifact)


def test_code_of_a_version_that_can_move_is_refused(stage: Stage) -> None:
    spec = stage.publish(UNSAFE)
    if stage.fixed(spec) == spec:
        pytest.skip("this source is pinned by its content")
    with pytest.raises(Refused, match="can move"):
        stage.source.resolve(replace(spec, filter=allowing(hashlib.sha256(CODE).hexdigest())), None)


@pytest.mark.parametrize("start", [0, 2047, 2048])
def test_reading_ends_where_the_file_ends(stage: Stage, start: int) -> None:
    artifact = stage.source.resolve(stage.publish(FILES), None)
    try:
        content = read(stage.source, artifact, "model.safetensors", start)
    except Corrupt:  # a server may say that there is nothing from there on
        content = b""
    assert content == FILES["model.safetensors"][start:]


def test_reading_beyond_the_end_gives_no_bytes(stage: Stage) -> None:
    artifact = stage.source.resolve(stage.publish(FILES), None)
    try:
        assert read(stage.source, artifact, "model.safetensors", start=9_999) == b""
    except Corrupt as problem:
        assert "shorter" in problem.message


def test_what_mp_writes_itself_is_never_a_file_of_a_model(stage: Stage) -> None:
    artifact = stage.source.resolve(stage.publish(FILES | {".metadata": b"{}", "sub/.metadata": b"{}"}), None)
    assert not any(".metadata" in path for path in names(artifact))


@pytest.mark.parametrize("name", ["../outside.json", "sub/../../outside.json", "back\\slash.json"])
def test_names_that_leave_their_folder_are_never_taken(stage: Stage, name: str) -> None:
    """Refused, or not even read as such a name by the source's own protocol."""
    try:
        artifact = stage.source.resolve(stage.publish(FILES | {name: b"{}"}), None)
    except Refused as problem:
        assert "leave their folder" in problem.message
    else:
        assert names(artifact) == ["config.json", "model.safetensors", "sub dir/tokenizer.json"]


def test_nothing_to_serve_is_missing(stage: Stage) -> None:
    with pytest.raises(Missing, match="no safetensors or GGUF file"):
        stage.source.resolve(stage.publish({"config.json": CONFIG}), None)


@pytest.mark.parametrize(
    "promise",
    [
        test_resolving_twice_gives_the_same,
        test_known_artifact_gives_the_same,
        test_bytes_are_the_declared_ones,
        test_changed_content_changes_the_pin,
        test_source_that_is_gone_is_missing,
        test_filter_is_echoed,
        test_reading_beyond_the_end_gives_no_bytes,
    ],
)
def test_source_of_one_file_keeps_what_is_promised_of_one(promise: Callable[[Stage], None]) -> None:
    """https has no folders: the promises about several files are none of its."""
    folder = WebFolder()
    with faulty(folder) as server:
        promise(WebStage(folder, server.url))
