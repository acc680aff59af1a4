"""What a project keeps in the cache: its lock's pins and the views of its inventories, of every environment."""

from pathlib import Path

import pytest

from pipeline.cli.cache.roots import roots
from pipeline.cli.options import options_from
from pipeline.cli.project import read_project
from pipeline.core.change import Action
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.resource import Address, Entry
from pipeline.manifest.lock import Lock, write_lock
from pipeline.store.file import FileStore

MANIFEST = "version: 1\nproject: acme\n"
SHA256 = "ab" * 32
ARTIFACT = Artifact("hf://acme/tiny", "main", "9c0d2f7a" * 5, (FileEntry("model.safetensors", 12, SHA256),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(MANIFEST)
    write_lock(
        tmp_path / "models.lock", Lock({"tiny": {"weights": ARTIFACT}, "other": {"tokenizer": ARTIFACT}})
    )
    for environment, content in (("default", "0123456789ab"), ("prod", "ba9876543210")):
        store = FileStore(tmp_path / ".mp" / "inventory" / environment, "acme", environment)
        where = Address("tiny/local:laptop")
        good: dict[str, Json] = {"content": "aaaaaaaaaaaa", "launch": {"argv": ["x"]}}
        entry = Entry(where, "local", {"name": "tiny"}, None, None, {"content": content}, good)
        run = store.run(store.load())
        run.begin(where, Action.CREATE, entry)
        run.end(where, entry)
        run.close(None)
    return tmp_path


def test_lock_and_every_environments_deployments_are_roots(folder: Path) -> None:
    found = roots(read_project(options_from(folder, "default", colour=False)))

    assert found.pins == {(ARTIFACT.source, ARTIFACT.pin): ["other tokenizer", "tiny"]}
    assert found.contents == {SHA256}
    assert {"0123456789ab", "ba9876543210", "aaaaaaaaaaaa"} <= found.views


def test_lock_that_cannot_be_read_is_no_empty_one(folder: Path) -> None:
    (folder / "models.lock").write_text("{ cut o")
    with pytest.raises(UserError):
        roots(read_project(options_from(folder, "default", colour=False)))
