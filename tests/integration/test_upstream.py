"""What moves upstream, what a policy forbids, and a run without a network: by the command line, against the test Hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub import FakeHub
from tests.parts.project import Project, Result

CONFIG = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2, "rope_scaling": {"factor": 2.0}}
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": b"weights" * 1000,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
}
STALE, REFUSED = 3, 4


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.commit("acme/tiny", FILES)
        running.repositories["acme/tiny"].license = "apache-2.0"
        yield running


@pytest.fixture
def project(tmp_path: Path, hub: FakeHub) -> Project:
    (tmp_path / "project").mkdir()
    made = Project(
        tmp_path / "project", tmp_path / "cache", {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
    )
    made.write(manifest())
    return made


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "project": "acme",
        "registries": {"here": {"layout": "registry"}},
        "targets": {"shelf": {"kind": "registry", "publish": ["weights"]}},
        "models": {
            "tiny": {
                "source": "hf://acme/tiny",
                "version": "main",
                "template": "vllm",
                "targets": {"shelf": {}},
            }
        },
        **changes,
    }


def lock(project: Project, *args: str) -> None:
    result = project.mp("lock", *args)
    assert result.code == 0, result.text


def words(result: Result) -> str:
    """What was said, whatever the lines were broken at."""
    return " ".join(result.text.split())


def told(project: Project, *args: str, code: int = 0) -> dict[str, Any]:
    result = project.mp("outdated", "--json", *args)
    assert result.code == code, result.text
    found: dict[str, Any] = result.json()
    return found


def test_what_did_not_move_is_said_in_one_line_and_costs_one_request(project: Project, hub: FakeHub) -> None:
    lock(project)
    hub.log.clear()
    result = project.mp("outdated", "--detailed-exitcode")
    assert result.code == 0
    assert result.out.strip() == (
        "Outdated: 0 sources moved, 1 as pinned, 0 not known, 0 not pinned yet, 0 newer engines."
    )
    assert len(hub.asked("/api/models")) == 1


def test_every_kind_of_change_is_named_and_nothing_is_pinned(project: Project, hub: FakeHub) -> None:
    lock(project)
    before = (project.folder / "models.lock").read_bytes()
    config = {**CONFIG, "rope_scaling": {"factor": 4.0}, "rope_theta": 1e6}
    del config["num_hidden_layers"]
    hub.commit(
        "acme/tiny",
        FILES
        | {
            "config.json": json.dumps(config).encode(),
            "model.safetensors": b"better" * 1000,
            "tokenizer.json": b"[]",
            "chat_template.jinja": b"{{ other }}",
            "LICENSE": b"new terms",
        },
    )
    repository = hub.repositories["acme/tiny"]
    repository.license = "mit"
    repository.gated = True
    repository.readers = {"hf_reader"}
    hub.tokens.add("hf_reader")
    (source,) = project.mp("outdated", "--json", environ={"HF_TOKEN": "hf_reader"}).json()["sources"]
    assert [(c["subject"], c["text"], c["fetch_bytes"]) for c in source["changes"]] == [
        ("weights", "1 of 1 files", 6000),
        ("chat template", "changed", 0),
        ("licence", "apache-2.0 → mit", 0),
        ("gating", "its terms must be accepted now", 0),
        ("config.json", "num_hidden_layers 2 is gone", 0),
        ("config.json", "rope_scaling.factor 2.0 → 4.0", 0),
        ("config.json", "rope_theta 1000000.0 is new", 0),
        ("tokenizer", "tokenizer.json", 0),
        ("LICENSE", "new", 0),
    ]
    assert (project.folder / "models.lock").read_bytes() == before
    text = project.mp("outdated", "--detailed-exitcode", environ={"HF_TOKEN": "hf_reader"})
    assert text.code == 2
    assert "weights: 1 of 1 files, 6.00 kB to fetch" in text.out
    assert "mp lock --upgrade tiny" in text.out


def test_new_code_is_told_beside_what_else_changed_and_is_not_offered(project: Project, hub: FakeHub) -> None:
    lock(project)
    commit = hub.commit(
        "acme/tiny", FILES | {"modeling_tiny.py": b"import os", "model.safetensors": b"better" * 1000}
    )
    (found,) = told(project)["sources"]
    assert '"modeling_tiny.py" is code' in found["problem"]
    assert found["now"] == commit
    assert [(c["subject"], c["fetch_bytes"]) for c in found["changes"]] == [("weights", 6000)]
    text = project.mp("outdated", "--detailed-exitcode")
    assert text.code == 2
    assert "! refused:" in text.out
    assert "Outdated: 1 source moved, 0 as pinned, 0 not known" in text.out
    assert "Take it over" not in text.out


def test_a_config_that_names_code_is_told_to_have_moved(project: Project, hub: FakeHub) -> None:
    lock(project)
    config = json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling_tiny.Tiny"}}).encode()
    hub.commit("acme/tiny", FILES | {"config.json": config})
    (found,) = told(project)["sources"]
    assert "modeling_tiny" in found["problem"]
    assert (found["now"], found["changes"]) == (None, [])
    assert "Outdated: 1 source moved" in project.mp("outdated").out


def test_a_source_that_does_not_answer_is_not_known(project: Project, hub: FakeHub) -> None:
    lock(project)
    hub.repositories.clear()
    (found,) = told(project, code=1)["sources"]
    assert found["now"] is None
    assert "no repository" in found["problem"]


def test_what_moved_upstream_is_no_drift_and_changes_no_plan(project: Project, hub: FakeHub) -> None:
    project.applied()
    hub.commit("acme/tiny", FILES | {"model.safetensors": b"better" * 1000})
    hub.log.clear()
    assert project.mp("drift").code == 0
    assert project.mp("plan", "--detailed-exitcode").code == 0
    assert hub.asked() == []
    lock(project, "--upgrade", "tiny")
    assert project.mp("plan", "--detailed-exitcode").code == 2


def test_code_in_a_source_refuses_plan_and_lock_with_exit_4(project: Project, hub: FakeHub) -> None:
    hub.commit("acme/tiny", FILES | {"modeling_tiny.py": b"import os"})
    for command in ("plan", "lock"):
        result = project.mp(command)
        assert result.code == REFUSED, result.text
        assert '"modeling_tiny.py" is code' in words(result)
        assert "models.yaml:" in words(result)
    assert not (project.folder / "models.lock").exists()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"formats": ["gguf"]}, "tiny: weights as safetensors; policy allows gguf"),
        ({"licenses": {"allow": ["mit"]}}, 'tiny: licence "apache-2.0" is not one that policy allows: mit'),
        ({"licenses": {"deny": ["apache-*"]}}, 'tiny: licence "apache-2.0" is denied by policy'),
        ({"gated": "deny"}, "tiny: hf://acme/tiny is gated; policy denies that"),
    ],
)
def test_policy_refuses_a_plan_and_nothing_is_applied(
    project: Project, hub: FakeHub, policy: dict[str, Any], said: str
) -> None:
    repository = hub.repositories["acme/tiny"]
    repository.gated, repository.readers = "gated" in policy, {"hf_reader"}
    hub.tokens.add("hf_reader")
    environ = {"HF_TOKEN": "hf_reader"}
    project.write(manifest(policy=policy))
    planned = project.mp("plan", environ=environ)
    assert planned.code == REFUSED
    assert said in words(planned)
    assert project.mp("apply", "--yes", environ=environ).code == REFUSED
    assert not (project.folder / "registry").exists()


def test_policy_that_allows_by_glob_lets_a_plan_through(project: Project) -> None:
    project.write(manifest(policy={"formats": ["safetensors"], "licenses": {"allow": ["Apache-*"]}}))
    assert project.mp("plan").code == 0


def test_offline_works_from_lock_and_cache_and_asks_nobody(project: Project, hub: FakeHub) -> None:
    lock(project)
    hub.log.clear()
    planned = project.mp("plan", environ={"HF_HUB_OFFLINE": "1"})
    assert planned.code == 0
    assert "offline, and" in words(planned)
    failed = project.mp("apply", "--yes", "--offline")
    assert failed.code == 1
    assert "is not in the cache" in words(failed)
    assert "mp cache import" in words(failed)
    assert hub.asked() == []
    project.applied()
    hub.log.clear()
    (project.folder / ".mp").rename(project.folder / "lost")
    (project.folder / "registry").rename(project.folder / "old")
    project.applied("--offline")
    assert "No changes." in project.mp("plan", "--offline").out
    assert hub.asked() == []


def test_offline_says_what_the_lock_does_not_know(project: Project, hub: FakeHub) -> None:
    result = project.mp("plan", "--offline")
    assert result.code == 1
    assert "hf://acme/tiny main is not pinned in models.lock and cannot be resolved" in words(result)
    assert "run mp lock where there is a network" in words(result)
    assert project.mp("outdated", "--offline").code == 0
    lock(project)
    hub.log.clear()
    assert told(project, "--offline", code=1)["sources"][0]["now"] is None
    assert hub.asked() == []


def test_lock_of_one_model_upgrades_only_that_one(project: Project, hub: FakeHub) -> None:
    hub.commit("acme/other", FILES)
    two = manifest()
    two["models"]["other"] = {**two["models"]["tiny"], "source": "hf://acme/other"}
    project.write(two)
    lock(project)
    for name in ("acme/tiny", "acme/other"):
        hub.commit(name, FILES | {"model.safetensors": b"better" * 1000})
    old = json.loads((project.folder / "models.lock").read_text())["models"]
    lock(project, "--upgrade", "other")
    new = json.loads((project.folder / "models.lock").read_text())["models"]
    assert new["tiny"] == old["tiny"]
    assert new["other"]["weights"]["pin"] == hub.repositories["acme/other"].branches["main"]


def test_lock_check_is_stale_without_a_network(project: Project, hub: FakeHub) -> None:
    lock(project)
    hub.log.clear()
    assert project.mp("lock", "--check").code == 0
    changed = manifest()
    changed["models"]["tiny"]["files"] = {"exclude": ["LICENSE"]}
    project.write(changed)
    result = project.mp("lock", "--check")
    assert result.code == STALE
    assert "tiny: the choice of files changed" in words(result)
    assert hub.asked() == []
