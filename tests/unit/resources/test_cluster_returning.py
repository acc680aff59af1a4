"""A version whose pods are still there comes back without new ones: no room beside them is asked for."""

import copy
from typing import Any

import pytest

from pipeline.resources.cluster.preflight.steps import Step, returns
from pipeline.resources.cluster.sending import ordered
from tests.parts.deployments import L40S, a_model, deployment

KEY = "Deployment/qwen"
OTHER = a_model("vllm", L40S, env={"A": "1"})

Object = dict[str, Any]  # Any: an object of the API


def wanted(replicas: int = 1) -> Object:
    made = deployment(a_model("vllm", L40S), replicas=replicas).desired.objects
    return next(one for one in ordered(made) if one["kind"] == "Deployment")


def replica_set(of: Object, available: int = 1, namespace: str | None = None) -> Object:
    """As the controller makes it: with the template's defaults and a label of its own."""
    template = copy.deepcopy(of["spec"]["template"])
    template["metadata"]["labels"]["pod-template-hash"] = "5f4d"
    template["spec"]["schedulerName"] = "default-scheduler"
    for container in template["spec"]["containers"]:
        container["image"] += f"@sha256:{'c' * 64}"
    place = namespace or of["metadata"].get("namespace")
    owner = {"kind": "Deployment", "name": of["metadata"]["name"]}
    return {
        "metadata": {"name": "qwen-5f4d", "namespace": place, "ownerReferences": [owner]},
        "spec": {"template": template},
        "status": {"availableReplicas": available},
    }


def step(one: Object) -> Step:
    return Step("qwen", "prod", "models", "qwen", None, None, {KEY: one}, {})


def test_pods_of_the_wanted_version_that_serve_are_enough() -> None:
    assert returns(step(wanted()), KEY, [replica_set(wanted())])


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([], id="none is kept"),
        pytest.param([replica_set(wanted(), available=0)], id="none serves"),
        pytest.param([replica_set(wanted(), namespace="elsewhere")], id="of another namespace"),
        pytest.param(
            [
                replica_set(
                    next(o for o in ordered(deployment(OTHER).desired.objects) if o["kind"] == "Deployment")
                )
            ],
            id="of another version",
        ),
    ],
)
def test_anything_less_is_not(there: list[Object]) -> None:
    assert not returns(step(wanted()), KEY, there)


def test_one_of_two_replicas_is_not_enough() -> None:
    assert not returns(step(wanted(2)), KEY, [replica_set(wanted(2))])
    assert returns(step(wanted(2)), KEY, [replica_set(wanted(2), available=2)])
