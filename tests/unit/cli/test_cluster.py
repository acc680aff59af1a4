"""Objects of a cluster in a plan: what people declare is said by its name, and nothing else of the object."""

import copy
from typing import Any

import pytest

from pipeline.cli.views.changes import differences, size
from pipeline.cli.views.cluster import running
from pipeline.core.change import FieldDiff
from pipeline.core.change import differences as compared
from pipeline.core.model import Hardware
from pipeline.core.resource import fields_of
from tests.parts.deployments import CPU, KEY, L40S, TOKEN, a_model, deployment

State = dict[str, Any]  # Any: a state as JSON


def state(*words: Any, **options: Any) -> State:
    return dict(fields_of(deployment(*words, **options).desired))


def said(before: State, after: State) -> list[str]:
    return differences(tuple(compared(before, after)), before, after)


CHANGES: dict[str, tuple[State, State, list[str]]] = {
    "replicas": (state(replicas=2), state(replicas=5), ["replicas 2 → 5"]),
    "budget": (state(), state(replicas=2), ["PodDisruptionBudget added", "replicas 1 → 2"]),
    "memory": (state(memory="2Gi"), state(memory="3Gi"), ["memory 2Gi → 3Gi"]),
    "environment": (
        state(a_model(env={"A": "1"})),
        state(a_model(env={"A": "2"})),
        ["env A 1 → 2"],
    ),
    "flags": (
        state(a_model("vllm", L40S)),
        state(a_model("vllm", L40S, max_model_len=4096)),
        ["--max-model-len 4096 added"],
    ),
    "pull-secret": (state(), state(spec={"pull_secret": "ghcr"}), ["pull secret none → ghcr"]),
    "secret": (
        state(a_model(secret_env={"HF_TOKEN": TOKEN})),
        state(a_model(secret_env={"HF_TOKEN": TOKEN, "OTHER": KEY})),
        ["secrets OTHER none → /run/secrets/mp/OTHER"],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_is_said_as_it_was_declared(name: str) -> None:
    before, after, words = CHANGES[name]
    assert said(before, after)[: len(words)] == words


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "secret"])
def test_nothing_else_is_said_of_it(name: str) -> None:
    before, after, words = CHANGES[name]
    assert said(before, after) == words


def test_config_map_of_an_older_launch_that_was_left_is_named() -> None:
    after = state()
    before = copy.deepcopy(after)
    before["objects"]["ConfigMap/qwen-0ld"] = {"kind": "ConfigMap", "data": {"launch.json": "{}"}}
    assert said(before, after) == ["ConfigMap/qwen-0ld removed"]
    assert running(before) == running(after), "mp show tells what runs"
    assert running(after)["replicas"] == 1


def test_mark_that_moved_is_said() -> None:
    before = state()
    moved = (FieldDiff("mark", "qwen/kubernetes:prod", None),)
    assert differences(moved, before, before) == ["mark qwen/kubernetes:prod → none"]


def test_new_deployment_says_what_it_takes() -> None:
    assert (
        size(deployment(a_model("vllm", L40S), replicas=2).desired)
        == "2 replicas, 2 GPUs, 1.5 cores, 48 GiB memory"
    )
    assert size(deployment(a_model(hardware=CPU)).desired) == "1 replica, 2 cores, 2 GiB memory"
    assert size(deployment(a_model(hardware=Hardware("cpu", 0))).desired) == "1 replica"
