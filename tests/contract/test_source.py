"""What every Source promises, asked of each of them; the Hugging Face one runs on the fake Hub."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.clients.hub import Hub
from pipeline.core.errors import Missing, Refused
from pipeline.core.model import Artifact, Filter
from pipeline.core.protocols import Source, SourceSpec
from pipeline.sources.huggingface import HuggingFaceSource
from pipeline.sources.local import LocalSource
from tests.fakes.hub import FakeHub
from tests.fakes.memory import MemorySource

CONFIG = b'{"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "hidden_size": 64}'
FILES = {
    "config.json": CONFIG,
    "model.safetensors": bytes(range(256)) * 8,
    "sub dir/tokenizer.json": b"{}",
    ".gitattributes": b"* text",
}


class Stage(Protocol):
    """A source and the place it reads from."""

    source: Source

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec: ...

    def withdraw(self) -> None: ...


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

    def withdraw(self) -> None:
        del self.hub.repositories["acme/tiny"]


class MemoryStage:
    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.source: Source = MemorySource(self.repositories)

    def publish(self, files: Mapping[str, bytes]) -> SourceSpec:
        self.repositories["hf://acme/tiny"] = {"main": files}
        return SourceSpec("hf://acme/tiny", "main")

    def withdraw(self) -> None:
        del self.repositories["hf://acme/tiny"]


@pytest.fixture(params=["local", "huggingface", "memory"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    if request.param == "local":
        yield LocalStage(tmp_path)
        return
    if request.param == "memory":
        yield MemoryStage()
        return
    with FakeHub() as hub:
        yield HubStage(hub)


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


def test_pickle_beside_safetensors_is_left_out(stage: Stage) -> None:
    artifact = stage.source.resolve(stage.publish(FILES | {"pytorch_model.bin": b"x"}), None)
    assert "pytorch_model.bin" not in {entry.path for entry in artifact.files}


def test_pickle_alone_is_refused_by_name(stage: Stage) -> None:
    spec = stage.publish({"config.json": CONFIG, "pytorch_model.bin": b"x"})
    with pytest.raises(Refused, match=r'"pytorch_model.bin" may run code'):
        stage.source.resolve(spec, None)


def test_code_is_refused_by_name(stage: Stage) -> None:
    with pytest.raises(Refused, match=r'"modeling_acme.py" is code'):
        stage.source.resolve(stage.publish(FILES | {"modeling_acme.py": b""}), None)


def test_auto_map_is_refused(stage: Stage) -> None:
    config = b'{"auto_map": {"AutoModel": "modeling_acme.Model"}}'
    with pytest.raises(Refused, match=r'"config.json" has auto_map'):
        stage.source.resolve(stage.publish(FILES | {"config.json": config}), None)


def test_nothing_to_serve_is_missing(stage: Stage) -> None:
    with pytest.raises(Missing, match="no safetensors or GGUF file"):
        stage.source.resolve(stage.publish({"config.json": CONFIG}), None)
