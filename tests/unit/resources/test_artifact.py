"""The artifact driver: what the cache holds is what is observed, and no source is asked for it."""

import contextlib
import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError
from pipeline.core.image import Engine
from pipeline.core.model import Artifact, FileEntry, Hardware, Model
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Absent, Observed, Resource, Transfer
from pipeline.resources.cache.artifact import ArtifactDriver, ArtifactState, resource
from pipeline.resources.cache.store import Cache

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 1000}
ENGINE = Engine(
    "transformers", "5", "cpu", "linux/amd64", "3.11", "debian", None, "https://pypi.org/simple", ()
)


class Memory:
    def __init__(self) -> None:
        self.opened: list[str] = []

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        return ARTIFACT

    @contextlib.contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        self.opened.append(entry.path)
        yield io.BytesIO(FILES[entry.path][start:])


ARTIFACT = Artifact(
    "hf://acme/tiny",
    "main",
    "a" * 40,
    tuple(
        FileEntry(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in FILES.items()
    ),
)
MODEL = Model("tiny", ARTIFACT, Hardware("cpu", 0), "transformers", ENGINE)


def create(wanted: Resource[ArtifactState]) -> Change[ArtifactState]:
    return Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_address_kind_and_no_inventory() -> None:
    made = resource(MODEL)
    assert (made.address, made.kind, made.tracked) == ("tiny/artifact", "artifact", False)


def test_content_is_the_files_and_not_where_they_come_from() -> None:
    moved = replace(ARTIFACT, source="file:///else", pin="b" * 40)
    assert resource(MODEL).desired == resource(replace(MODEL, artifact=moved)).desired
    changed = replace(ARTIFACT, files=ARTIFACT.files[:1])
    assert resource(MODEL).desired != resource(replace(MODEL, artifact=changed)).desired


def test_absent_artifact_tells_its_bytes(cache: Cache) -> None:
    wanted = resource(MODEL)
    assert ArtifactDriver(cache, {}).observe([wanted], []) == {
        wanted.address: Absent(Transfer(download_bytes=1002))
    }


def test_applied_artifact_is_observed_without_its_source(cache: Cache) -> None:
    wanted, source = resource(MODEL), Memory()

    applied = ArtifactDriver(cache, {"hf": source}).apply(create(wanted), {}, lambda event: None)

    assert applied == Observed(wanted.desired)
    assert sorted(source.opened) == ["config.json", "model.safetensors"]
    assert ArtifactDriver(Cache(cache.root), {}).observe([wanted], []) == {wanted.address: applied}


def test_damaged_artifact_is_absent_with_the_bytes_of_the_damaged_file_only(cache: Cache) -> None:
    wanted = resource(MODEL)
    driver = ArtifactDriver(cache, {"hf": Memory()})
    driver.apply(create(wanted), {}, lambda event: None)
    blob = cache.blob(ARTIFACT.files[1].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"x" * 1000)

    answer = ArtifactDriver(Cache(cache.root), {}).observe([wanted], [])[wanted.address]

    assert answer == Absent(Transfer(download_bytes=1000, reused_bytes=2))


def test_delete_leaves_the_cache_alone(cache: Cache) -> None:
    wanted = resource(MODEL)
    driver = ArtifactDriver(cache, {"hf": Memory()})
    driver.apply(create(wanted), {}, lambda event: None)

    assert driver.apply(replace(create(wanted), action=Action.DELETE, resource=None), {}, print) is None

    assert cache.complete(ARTIFACT)


def test_reference_that_no_source_reads_is_an_error(cache: Cache) -> None:
    with pytest.raises(BackendError, match='nothing here reads "hf://"'):
        ArtifactDriver(cache, {}).apply(create(resource(MODEL)), {}, lambda event: None)
