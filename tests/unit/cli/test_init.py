"""`mp init`: what it writes is valid, can be planned, is completed by editors, and nothing of the user's is overwritten."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from pipeline.cli.main import run
from pipeline.cli.views import json
from pipeline.core.model import Hardware
from pipeline.manifest.lock import Lock, engine_key, write_lock
from pipeline.manifest.schema import models_schema
from pipeline.resources.engine.pin import unpinned
from pipeline.templates import TEMPLATES
from pipeline.wiring import host_platform
from tests.fakes.hub import FakeHub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "My Models"
    folder.mkdir()
    return folder


def test_manifest_is_valid_and_written_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "-C", str(folder)]) == 0
    assert run(["validate", "-C", str(folder)]) == 0
    before = (folder / "models.yaml").read_text()
    assert run(["init", "-C", str(folder), "--project", "other"]) == 1

    assert "project: my-models" in before
    assert (folder / "models.yaml").read_text() == before
    assert "is there already" in capsys.readouterr().err


def test_editors_find_the_schema_beside_it(folder: Path) -> None:
    run(["init", "-C", str(folder)])

    text = (folder / "models.yaml").read_text()
    found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert found
    assert (folder / found[1]).read_text() == json.text(models_schema()) + "\n"
    jsonschema.validate(yaml.safe_load(text), models_schema())


def test_files_that_were_there_are_kept(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "models.schema.json").write_text("{}\n")

    assert run(["init", "-C", str(folder)]) == 0

    assert (folder / ".gitignore").read_text() == "*.log\n.mp/\n"
    assert (folder / "models.schema.json").read_text() == "{}\n"


def test_gitignore_that_leaves_it_out_already_is_not_touched(folder: Path) -> None:
    (folder / ".gitignore").write_text(".mp/\n*.log")

    run(["init", "-C", str(folder)])

    assert (folder / ".gitignore").read_text() == ".mp/\n*.log"


def test_manifest_can_be_planned(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["init", "-C", str(folder)])
    variant = TEMPLATES["transformers"].variant(None, Hardware("cpu", 0))
    engine = unpinned(variant, host_platform(), None)  # resolved: packages are not what is asked here
    write_lock(folder / "models.lock", Lock(engines={engine_key(engine, engine.platform): engine}))
    with FakeHub() as hub:
        hub.commit("Qwen/Qwen3-0.6B", {"config.json": b"{}", "model.safetensors": bytes(64)})
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("MP_CACHE", str(tmp_path / "cache"))

        assert run(["plan", "-C", str(folder)]) == 0

    assert "Plan: 3 to create" in capsys.readouterr().out


def test_what_cannot_be_written_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".gitignore").mkdir()

    assert run(["init", "-C", str(folder)]) == 1
    assert run(["init", "-C", str(folder / "absent")]) == 1

    told = " ".join(capsys.readouterr().err.split())
    assert ".gitignore cannot be written: is a directory" in told
    assert "models.yaml cannot be written: no such file" in told
    assert "hint: run it in a folder that you may write to" in told
