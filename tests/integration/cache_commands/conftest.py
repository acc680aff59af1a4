"""A Hub with three models, and two who fetch from it: one without a project, one with a locked one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub import FakeHub
from tests.parts.cached import ADAPTER, FILES, ok
from tests.parts.project import Project


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.commit("acme/tiny", FILES)
        running.repositories["acme/tiny"].license = "apache-2.0"
        running.commit("acme/twin", FILES | {"tokenizer.json": b"[]"})
        running.commit("acme/fr-lora", ADAPTER, branch="v2")
        yield running


@pytest.fixture
def user(hub: FakeHub, tmp_path: Path) -> Project:
    """Somebody in a folder without models.yaml."""
    folder = tmp_path / "folder"
    folder.mkdir()
    environ = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": "",
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "HF_HUB_OFFLINE": "",
        "COLUMNS": "100",
    }
    return Project(folder, tmp_path / "cache", environ)


@pytest.fixture
def owner(user: Project) -> Project:
    """The same, with a locked project."""
    user.write(
        {
            "version": 1,
            "project": "acme",
            "defaults": {"template": "vllm", "hardware": "gpu"},
            "hardware": {"gpu": {"gpu": "L40S", "gpus": 1}},
            "registries": {"here": {"layout": "registry"}},
            "targets": {"shelf": {"kind": "registry", "publish": ["weights"]}},
            "aliases": {"little": "hf://acme/tiny"},
            "models": {
                "tiny": {
                    "source": "little",
                    "version": "main",
                    "adapters": {"fr": {"source": "hf://acme/fr-lora", "version": "v2"}},
                    "targets": {"shelf": {}},
                }
            },
        }
    )
    ok(user.mp("lock"))
    return user
