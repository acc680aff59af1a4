"""What `mp status` and `mp history` show."""

from dataclasses import field, replace
from typing import Any

from pipeline.cli.views.history import history
from pipeline.cli.views.report import report
from pipeline.cli.views.standing import status, status_json
from pipeline.core.change import Action
from pipeline.core.frozen import frozen
from pipeline.core.report import Outcome, Report, Status
from pipeline.core.resource import (
    Absent,
    Address,
    Contents,
    Entry,
    Held,
    Observed,
    Proof,
    State,
    Trial,
    Unreadable,
    Version,
)
from pipeline.engine.status import Standing
from pipeline.store.history import Past, Side

NOW = 1_795_219_200.0  # 2026-11-21 00:00 UTC
DAY = 86_400.0
V1, V2 = Contents("v1 (aaaaaaa)", "vllm-1 (111)"), Contents("v2 (bbbbbbb)", "vllm-1 (111)")
PROOF = Proof("http://qwen", "hello", "world", 0.1)


@frozen
class Objects(State):
    objects: dict[str, Any] = field(default_factory=dict)
    health: str = "Healthy"


def entry(name: str, **changes: Any) -> Entry:
    state: dict[str, Any] = {"n": name}
    version = Version(state, NOW - 3 * DAY, V1, "c0ffee", {}, PROOF, NOW - 7200)
    made = Entry(
        Address(f"{name}/kubernetes:prod"),
        "kubernetes",
        {},
        None,
        None,
        state,
        state,
        contents=V1,
        versions=(version,),
    )
    return replace(made, **changes)


def deployment(replicas: int) -> dict[str, Any]:
    return {"ConfigMap/q": {"data": {}}, "Deployment/q": {"spec": {"replicas": replicas}}}


STANDINGS = (
    Standing(entry("qwen"), Observed(Objects(deployment(2)), endpoint="http://qwen"), "Healthy"),
    Standing(
        entry("llama", held=Held("ff", NOW - 3 * DAY, NOW - 3600)),
        Observed(Objects(deployment(1), "Degraded: OOMKilled")),
        "Degraded",
        "OOMKilled",
    ),
    Standing(entry("gone", applied={"n": "other"}), Absent(), "Missing", "it was applied and is not there"),
    Standing(entry("far"), Unreadable("time-out"), "Unknown", "time-out"),
)
UPDATE = Past(
    NOW, "apply", "https://github.com/acme/models/actions/runs/7", "c0ffee1234", Address("qwen/kubernetes:prod"), "update",
    "applied", 42.5, Side(V1, "a" * 12), Side(V2, "b" * 12), ("objects/Deployment",), None, PROOF,
)  # fmt: skip
HISTORY = (
    UPDATE,
    replace(UPDATE, after=replace(UPDATE.after, contents=Contents(V1.model, "vllm-2 (222)"))),
    replace(UPDATE, after=Side(V1, "b" * 12), command="rollback", changed=("memory_bytes", "gpus", "port")),
    replace(UPDATE, result="failed", error="did not start: exit code 1", proof=None, run="", commit=None),
    replace(UPDATE, action="create", before=Side()),
    replace(UPDATE, action="delete", after=Side()),
)


def test_status_says_health_version_replicas_and_when_it_answered_last() -> None:
    lines = status(STANDINGS, NOW).splitlines()
    assert lines[0].split() == ["MODEL", "TARGET", "HEALTH", "REPLICAS", "VERSION", "SINCE", "LAST", "ANSWER"]
    assert lines[1].split("  ")[0] == "qwen"
    assert "Healthy" in lines[1] and "  2  v1 (aaaaaaa)  3 days ago  2 h ago" in lines[1]
    assert "Missing" in lines[3] and lines[3].endswith("v1 (aaaaaaa)  -           -")


def test_status_says_what_is_wrong_and_what_is_held() -> None:
    said = status(STANDINGS, NOW)
    assert "llama/kubernetes:prod  Degraded: OOMKilled" in said
    assert "gone/kubernetes:prod  Missing: it was applied and is not there" in said
    assert "far/kubernetes:prod  Unknown: time-out" in said
    assert (
        "llama/kubernetes:prod  held since 1 h ago by mp rollback: mp apply --release llama lets it go"
        in said
    )


def test_status_says_which_has_a_canary_beside_the_version_that_serves() -> None:
    trial = Trial("ff", "1 pod of the new version beside 2 of the old", V2)
    tried = Standing(
        entry("qwen", trial=trial, applied={"n": "both"}), Observed(Objects(deployment(2))), "Healthy"
    )
    failed = Standing(entry("llama", trial=trial, applied={}), Observed(Objects(deployment(1))), "Healthy")
    lines = status((tried, failed), NOW).splitlines()
    assert "v1 (aaaaaaa)  3 days ago  2 h ago" in lines[1]
    said = "canary: 1 pod of the new version beside 2 of the old; mp promote qwen, or mp rollback qwen"
    assert " ".join(lines[3:]).split() == f"qwen/kubernetes:prod {said}".split()
    canaries: Any = [one["canary"] for one in _deployments((tried, failed))]
    assert canaries == [{"version": "v2 (bbbbbbb)", "engine": "vllm-1 (111)", "says": trial.words}, None]


def _deployments(ones: tuple[Standing, ...]) -> Any:  # Any: JSON as its schema says
    return status_json(ones)["deployments"]


def test_nothing_is_said_so() -> None:
    assert status((), NOW) == "Nothing is deployed."
    assert history(()) == "Nothing was applied here yet."


def test_history_says_from_what_to_what() -> None:
    lines = history(HISTORY).splitlines()
    assert "v1 (aaaaaaa) → v2 (bbbbbbb)" in lines[1] and "c0ffee1" in lines[1] and lines[1].endswith("42 s")
    assert lines[1].startswith("2026-11-21 00:00")
    assert "vllm-1 (111) → vllm-2 (222)" in lines[2]
    assert "  rollback  " in lines[3] and "and 1 more" in lines[3]
    assert "update failed" in lines[4]
    assert "2026-11-21 00:00 qwen/kubernetes:prod  did not start: exit code 1" in lines
    assert all(len(line) <= 100 for line in lines)


def test_history_names_fields_of_a_clusters_objects_by_kind_and_the_launch_last() -> None:
    spec = "objects/Deployment~1qwen/spec"
    paths = (
        "objects/ConfigMap~1qwen-1",
        "objects/ConfigMap~1qwen-2",
        f"{spec}/replicas",
        f"{spec}/template/spec/volumes",
    )
    line = history([replace(UPDATE, after=Side(V1, "b" * 12), changed=paths)]).splitlines()[1]
    assert "  Deployment replicas, Deploym" in line
    (line,) = history([replace(UPDATE, after=Side(V1, "b" * 12), changed=paths[:2])]).splitlines()[1:]
    assert "  ConfigMap  " in line


def test_a_place_that_was_left_is_called_by_its_name_and_no_hash_is_shown() -> None:
    left = entry("qwen", address=Address("qwen/kubernetes:prod~d710a24f"))
    standing = Standing(left, Unreadable("no answer"), "Unknown", "no answer")
    text = status([standing], NOW)
    assert "prod, before" in text
    assert "qwen/kubernetes:prod, before  Unknown: no answer" in text
    past = replace(UPDATE, address=left.address, error="no answer")
    told = history([past])
    assert told.count("qwen/kubernetes:prod, before") == 2
    outcome = Outcome(left.address, Action.DELETE, Status.FAILED, error="no answer")
    done = report(Report((outcome,)))
    assert not [shown for shown in (text, told, done) if "~" in shown]
    (one,) = _deployments((standing,))
    assert (one["target"], one["address"]) == ("prod", left.address), "what a machine names it by stays"
