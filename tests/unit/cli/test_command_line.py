"""The command line on a real project: a folder of weights published into a layout registry. Exit codes, messages, order."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cli.main import COMMANDS, run

MANIFEST = """\
version: 1
project: acme
defaults: {template: transformers, hardware: cpu, registry: here}
hardware: {cpu: {gpus: 0}}
registries: {here: {layout: registry}}
targets: {shelf: {kind: registry, publish: [weights]}}
models:
  tiny: {source: ./weights, targets: {shelf: {}}}
  small: {source: ./weights, lifecycle: {protect: true}, targets: {shelf: {}}}
"""

Mp = Callable[..., int]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    folder = tmp_path / "project"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "weights" / "model.safetensors").write_bytes(bytes(8) + b"{}")
    (folder / "models.yaml").write_text(MANIFEST)
    return folder


@pytest.fixture
def mp(project: Path) -> Mp:
    return lambda *words: run(["-C", str(project), *words])


def test_plan_apply_plan_is_empty(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    assert mp("plan", "--detailed-exitcode") == 2
    assert mp("apply", "--yes") == 0
    capsys.readouterr()

    assert mp("plan", "--detailed-exitcode") == 0

    out, err = capsys.readouterr()
    assert out.splitlines()[-2:] == [
        "No changes.",
        "Plan: 0 to create, 0 to update, 0 to replace, 0 to delete, 4 unchanged.",
    ]
    assert err == ""


def test_apply_without_yes_and_without_a_terminal_changes_nothing(
    mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mp("apply") == 1

    assert "hint: look at mp plan, then run it with --yes" in capsys.readouterr().err
    assert not (project / ".mp").exists() and not (project / "models.lock").exists()


def test_apply_tells_progress_on_stderr_and_the_result_on_stdout(
    mp: Mp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mp("apply", "--yes", "tiny") == 0

    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "Applied 2, failed 0, skipped 0, unknown 0."
    assert "tiny/weights:here: create" in err and "small" not in out + err


def test_json_is_alone_on_stdout(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    assert mp("apply", "--yes", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert mp("plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)

    assert report["summary"]["applied"] == 4
    assert plan["summary"]["no-op"] == 4


def test_drift_exits_2_and_names_what_is_missing(
    mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mp("apply", "--yes")
    assert mp("drift") == 0
    shutil.rmtree(project / "registry" / "tiny.weights")
    capsys.readouterr()

    assert mp("drift") == 2

    lines = capsys.readouterr().out.splitlines()
    assert "- tiny/weights:here  was applied and is not there any more" in lines
    assert lines[-1] == "Drift: 0 changed, 1 missing, 3 as applied, 0 not read."
    assert mp("apply", "--yes") == 0
    assert mp("drift") == 0


def test_stale_lock_exits_3_only_when_it_is_asked_for(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    assert mp("lock", "--check") == 3
    assert mp("plan", "--locked") == 3
    assert "models.lock is stale" in capsys.readouterr().err

    assert mp("lock") == 0
    assert mp("lock", "--check") == 0
    assert mp("plan", "--locked") == 0


def test_list_and_show_say_what_is_there(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    mp("apply", "--yes", "tiny")
    capsys.readouterr()

    assert mp("list") == 0
    listed = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert mp("show", "tiny") == 0
    shown = capsys.readouterr().out

    assert listed[0] == ["MODEL", "TARGET", "STATE"]
    assert ["tiny", "shelf", "published"] in listed
    assert ["small", "shelf", "not"] in listed  # "not applied"
    assert "./weights" in shown and "model.safetensors" in shown


def test_unknown_model_is_an_error_with_a_suggestion(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    assert mp("plan", "smal", "tin*") == 1

    assert capsys.readouterr().err == 'error: there is no model "smal"\n  hint: did you mean "small"?\n'


def test_forget_leaves_the_world_alone(mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mp("apply", "--yes")

    assert mp("forget", "tiny/weights:here") == 0
    assert mp("forget", "tiny/weights:here") == 1

    assert (project / "registry" / "tiny.weights").is_dir()


def test_destroy_wants_models_or_all(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    assert mp("destroy") == 1
    assert mp("destroy", "tiny", "--all") == 1
    assert capsys.readouterr().err.count("say which models, or --all") == 2


def test_mistakes_are_shown_with_their_lines(
    mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "models.yaml").write_text(MANIFEST.replace("targets: {shelf: {}}", "target: {shelf: {}}", 1))

    assert mp("validate") == 1

    err = capsys.readouterr().err
    assert err.startswith("models.yaml:8:")
    assert "8 |   tiny: {source: ./weights, target: {shelf: {}}}" in err
    assert "^^^^^^" in err


def test_validate_says_what_it_read(mp: Mp, capsys: pytest.CaptureFixture[str]) -> None:
    assert mp("validate") == 0
    assert capsys.readouterr().out == "models.yaml is valid: 2 models, 1 target.\n"


def test_validate_as_json_has_every_mistake_on_stdout(
    mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mp("validate", "--json") == 0
    right = json.loads(capsys.readouterr().out)
    (project / "models.yaml").write_text(MANIFEST.replace("targets: {shelf: {}}", "target: {shelf: {}}"))
    assert mp("validate", "--json") == 1
    out, err = capsys.readouterr()
    wrong = json.loads(out)

    assert right == {"format_version": 1, "file": "models.yaml", "valid": True, "diagnostics": []}
    assert (wrong["valid"], err) == (False, "")
    places = [item["where"] for item in wrong["diagnostics"] if "unknown key" in item["summary"]]
    assert [where.split(":")[1] for where in places] == ["8", "9"]


def test_lock_as_json_says_what_changed(mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for words in (["--check"], [], ["--check"]):
        code = mp("lock", "--json", *words)
        said.append((code, json.loads(capsys.readouterr().out)))
    (project / "weights" / "model.safetensors").unlink()
    (project / "weights" / "config.json").unlink()
    (project / "models.lock").unlink()
    code = mp("lock", "--json")
    failed = json.loads(capsys.readouterr().out)

    reasons = ["tiny: not in models.lock", "small: not in models.lock"]
    assert [(code, each["changed"], each["written"]) for code, each in said] == [
        (3, reasons, False),
        (0, reasons, True),
        (0, [], False),
    ]
    assert (code, failed["written"]) == (1, False)
    assert {item["severity"] for item in failed["diagnostics"]} == {"error"}
    assert not (project / "models.lock").exists()


def test_missing_manifest_names_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", str(tmp_path), "plan"]) == 1
    assert "mp init" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["plan", "--nonsense"], ["show"], ["plan", "--max-deletes", "x"], ["--env"]]
)
def test_usage_error_exits_1_because_2_means_changes(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_unknown_command_is_an_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["aply"]) == 1
    assert capsys.readouterr().err == 'error: there is no command "aply"\n  hint: did you mean "apply"?\n'


def test_group_alone_says_what_there_is_and_unknown_words_get_a_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["cache"]) == 0
    told = capsys.readouterr().out
    assert run(["cache", "lst"]) == 1
    assert run(["cache", "list", "--nonsense"]) == 1

    assert all(member in told for member in COMMANDS["cache"].members)
    err = capsys.readouterr().err
    assert 'there is no command "lst"\n  hint: did you mean "list"?' in err
    assert "hint: see mp cache list --help" in err


def test_value_that_is_none_of_the_known_ones_is_named_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "hf://acme/tiny", "--format", "ggfu"]) == 1

    said = " ".join(capsys.readouterr().err.split())
    assert "error: invalid value for '--format': 'ggfu' is not one of 'auto', 'safetensors', 'gguf'" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: mp {name} ")


def test_global_options_may_stand_behind_the_command(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", "--no-color", f"--chdir={project}"]) == 0
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("mp ")


def test_colour_is_asked_for_or_left_out(
    mp: Mp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    mp("plan")
    assert "\x1b[" in capsys.readouterr().out

    mp("plan", "--no-color")
    monkeypatch.setenv("NO_COLOR", "1")
    mp("plan")
    assert "\x1b[" not in capsys.readouterr().out


def test_schema_names_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "plan"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "mp plan"
    assert run(["schema", "nonsense"]) == 1
    assert run(["schema", "--out", str(tmp_path / "schema")]) == 0

    written = sorted(file.name.partition(".")[0] for file in (tmp_path / "schema").iterdir())
    assert written == [
        "cached",
        "drift",
        "history",
        "imported",
        "launch",
        "list",
        "lock",
        "locked",
        "models",
        "outdated",
        "plan",
        "prune",
        "pruned",
        "pulled",
        "report",
        "show",
        "status",
        "validate",
        "verified",
    ]


def test_schemas_that_cannot_be_written_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")

    assert run(["schema", "--out", str(tmp_path / "file")]) == 1
    assert run(["schema", "--out", str(tmp_path / "file" / "below")]) == 1

    assert "cannot be written" in capsys.readouterr().err


def test_a_damaged_inventory_says_what_to_do(
    mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mp("apply", "--yes") == 0
    for file in (project / ".mp" / "inventory").rglob("*.json"):
        file.write_text("{ cut o")

    assert mp("plan") == 1

    told = capsys.readouterr().err
    assert "hint: " in told
    assert "Traceback" not in told


def test_a_checkpoint_beside_its_manifest_converges(
    mp: Mp, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (project / "weights").iterdir():
        file.rename(project / file.name)
    (project / "models.yaml").write_text(MANIFEST.replace("./weights", "."))
    (project / "models.schema.json").write_text("{}")
    assert mp("apply", "--yes") == 0
    (project / "models.yaml").write_text(f"# edited\n{(project / 'models.yaml').read_text()}")

    assert mp("apply", "--yes") == 0
    assert mp("plan", "--locked", "--detailed-exitcode") == 0

    lock = (project / "models.lock").read_text()
    assert "model.safetensors" in lock
    assert not any(
        name in lock for name in ("models.yaml", "models.lock", "models.schema.json", "oci-layout")
    )
