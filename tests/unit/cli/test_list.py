"""`mp list`: one row a target; where a model answers, or the image that was published there."""

import json
from pathlib import Path

import pytest

from pipeline.cli.main import run
from pipeline.cli.status import rows
from pipeline.core.change import Action
from pipeline.manifest.lock import Lock
from pipeline.manifest.read import read
from tests.unit.cli.building import change, plan

MANIFEST = """\
version: 1
project: acme
defaults: {template: transformers}
registries: {here: {layout: registry}, there: {layout: other}}
targets:
  shelf: {kind: registry, registry: here, publish: [weights]}
  mirror: {kind: registry, registry: there, publish: [weights]}
models:
  tiny: {source: ./weights, targets: {shelf: {}, mirror: {}}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text("{}")
    (folder / "weights" / "model.safetensors").write_bytes(bytes(8) + b"{}")
    (folder / "models.yaml").write_text(MANIFEST)
    return folder


def test_registry_target_shows_the_image_of_its_own_registry(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["-C", str(project), "apply", "--yes"])
    capsys.readouterr()

    assert run(["-C", str(project), "list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert run(["-C", str(project), "list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["models"]

    assert head.endswith("URL OR IMAGE")
    assert [line.split()[:3] for line in lines] == [
        ["tiny", "shelf", "published"],
        ["tiny", "mirror", "published"],
    ]
    for line, row, folder in zip(lines, said, ("registry", "other"), strict=True):
        (image,) = row["images"]
        name, _, digest = image.removeprefix(f"layout:{project / folder}/").partition("@sha256:")
        index = json.loads((project / folder / "tiny.weights" / "index.json").read_text())
        assert digest == index["manifests"][0]["digest"].removeprefix("sha256:")
        assert name.startswith("tiny.weights:mp-")
        assert line.split()[-1] == name
        assert (row["source"], row["size_bytes"]) == ("./weights", 12)
        assert line.split()[4:8] == [row["pin"][:7], "12", "B", "./weights"]


def test_image_that_is_missing_is_said_of_its_target_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["-C", str(project), "apply", "--yes"])
    (project / "other" / "tiny.weights" / "index.json").unlink()
    capsys.readouterr()

    run(["-C", str(project), "list", "--json"])

    said = json.loads(capsys.readouterr().out)["models"]
    assert [(row["target"], row["state"], len(row["images"])) for row in said] == [
        ("shelf", "published", 1),
        ("mirror", "missing", 0),
    ]


def test_what_is_no_longer_declared_has_one_row_a_target(project: Path) -> None:
    text = MANIFEST.replace("targets:\n", "targets:\n  box: {kind: docker}\n", 1)
    text = text.replace("registries:", "hardware: {cpu: {gpus: 0}}\nregistries:")
    text = text.replace("{template: transformers}", "{template: transformers, hardware: cpu, registry: here}")
    (project / "models.yaml").write_text(text.replace("mirror: {}}}", "mirror: {}, box: {}}}"))
    manifest = read(project / "models.yaml").manifest
    assert manifest
    made = plan(
        change("tiny/docker:box", Action.CREATE),
        change("tiny/docker:box~previous", Action.DELETE),
        change("old/docker:box", Action.DELETE),
        change("old/local:laptop", Action.FORGET),
    )

    found = [(row.model, row.target, row.state) for row in rows(made, Lock(), manifest, (), "")]

    assert found == [
        ("tiny", "shelf", "not planned"),
        ("tiny", "mirror", "not planned"),
        ("tiny", "box", "not applied"),
        ("old", "box", "no longer declared"),
        ("old", "laptop", "no longer declared"),
    ]
