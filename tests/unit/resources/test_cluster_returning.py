"""A version whose pods are still there comes back without new ones: no room beside them is asked for."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.clients.kube import Kind
from pipeline.core.change import Action, Change
from pipeline.core.errors import Denied
from pipeline.resources.cluster.comparing import observed
from pipeline.resources.cluster.preflight.replicas import with_replicas
from pipeline.resources.cluster.preflight.steps import Step, returns, steps_in
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


@dataclass
class Namespace:
    """What a server gives of one namespace; `refused` is that nobody may list it."""

    objects: list[Object]
    refused: bool = False
    asked: list[str] = field(default_factory=list)

    def list(self, kind: Kind, namespace: str) -> tuple[Object, ...]:
        self.asked.append(kind.name)
        if self.refused:
            raise Denied("kubernetes prod", "no right to list")
        return tuple(self.objects)


def changed(running: int, **options: Any) -> tuple[Object, Step]:
    """A Deployment that somebody edited while so many ran, and what a plan makes of it."""
    made = deployment(a_model("vllm", L40S), **options)
    (live,) = copy.deepcopy([one for one in ordered(made.desired.objects) if one["kind"] == "Deployment"])
    live["metadata"]["uid"] = "d"
    live["spec"]["replicas"] = running
    live["spec"]["template"]["spec"]["containers"][0]["command"] = ["false"]
    recipe = made.desired.recipe
    assert recipe is not None
    seen = observed({KEY: live}, made.desired.objects, made.locator, recipe.ignored)
    (steps,) = steps_in([Change(made.address, made.kind, Action.UPDATE, made, seen, None)]).values()
    return live, steps[0]


@pytest.mark.parametrize(("available", "enough"), [(1, False), (3, False), (4, True)])
def test_of_replicas_that_an_autoscaler_set_all_have_to_be_there(available: int, enough: bool) -> None:
    live, step = changed(running=4, autoscale={"max": 8})
    (counted,) = with_replicas(Namespace([live]), "models", [step])  # type: ignore[arg-type]
    sets = [replica_set(wanted(), available)]
    assert returns(counted, KEY, sets) == enough


def test_replicas_that_are_ours_are_as_declared_and_nothing_is_asked() -> None:
    live, step = changed(running=4, replicas=2)
    namespace = Namespace([live])
    (counted,) = with_replicas(namespace, "models", [step])  # type: ignore[arg-type]
    assert counted == step
    assert namespace.asked == []
    assert returns(counted, KEY, [replica_set(wanted(), 2)])


def test_replicas_that_may_not_be_seen_are_as_declared() -> None:
    live, step = changed(running=4, autoscale={"max": 8})
    assert with_replicas(Namespace([live], refused=True), "models", [step]) == [step]  # type: ignore[arg-type]
