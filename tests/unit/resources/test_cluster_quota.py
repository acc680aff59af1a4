"""Quotas: claims that are made and those that each replica gets from a template, and what runs before a server."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.clients.kube import RESOURCE_QUOTA, STATEFUL_SET, Kind
from pipeline.core.change import Action, Change
from pipeline.core.resource import Observed
from pipeline.resources.cluster.comparing import observed
from pipeline.resources.cluster.preflight.quota import quota
from pipeline.resources.cluster.preflight.replicas import with_replicas
from pipeline.resources.cluster.preflight.steps import Step, steps_in
from tests.parts.deployments import FAR, deployment


@dataclass
class Namespace:
    """Nothing but one quota, and perhaps StatefulSets."""

    hard: dict[str, str]
    sets: tuple[dict[str, Any], ...] = ()

    def list(self, kind: Kind, namespace: str) -> tuple[dict[str, Any], ...]:
        if kind == STATEFUL_SET:
            return self.sets
        if kind != RESOURCE_QUOTA:
            return ()
        return ({"metadata": {"name": "team"}, "spec": {}, "status": {"hard": self.hard}},)


def steps(replicas: int, before: int = 0, *, was: str | None = None, **claim: str) -> list[Step]:
    """`was`: the size of each claim before."""

    def made(count: int, claim: dict[str, str]) -> Any:  # Any: a resource
        return deployment(weights="pvc", registry=FAR, replicas=count, claim=claim)

    wanted = made(replicas, claim)
    seen = Observed(made(before, claim | ({"size": was} if was else {})).desired) if before else None
    (found,) = steps_in([Change(wanted.address, wanted.kind, Action.CREATE, wanted, seen, None)]).values()
    return found


@pytest.mark.parametrize(
    ("found", "hard", "words"),
    [
        (steps(3, size="10Gi"), {"requests.storage": "29Gi"}, "30Gi more is needed, 29Gi of 29Gi is left"),
        (steps(3, size="10Gi"), {"requests.storage": "30Gi"}, ""),
        (steps(3, 2, size="10Gi"), {"requests.storage": "9Gi"}, "10Gi more is needed"),
        (steps(2, 3, size="10Gi"), {"requests.storage": "0"}, ""),
        (
            steps(2, 2, size="20Gi", was="10Gi"),
            {"requests.storage": "0"},
            "20Gi more is needed, 0 of 0 is left",
        ),
        (steps(2, 2, size="20Gi", was="10Gi"), {"requests.storage": "20Gi"}, ""),
        (steps(2, 2, size="20Gi", was="10Gi"), {"persistentvolumeclaims": "0"}, ""),
        (steps(1, 2, size="20Gi", was="10Gi", per="replica"), {"requests.storage": "0"}, ""),
        (
            steps(1, 2, size="30Gi", was="10Gi", per="replica"),
            {"requests.storage": "9Gi"},
            "10Gi more is needed",
        ),
        (steps(2, 3, size="10Gi"), {"persistentvolumeclaims": "0"}, ""),
        (steps(3), {"persistentvolumeclaims": "2"}, "persistentvolumeclaims: 3 more is needed"),
        (steps(1, size="10Gi"), {"requests.storage": "9Gi"}, "10Gi more is needed"),
        (steps(1, 1, size="10Gi"), {"requests.storage": "9Gi"}, ""),
    ],
)
def test_storage_that_is_not_left_is_refused(found: list[Step], hard: dict[str, str], words: str) -> None:
    said = [one.summary for one in quota(Namespace(hard), "models", found)]  # type: ignore[arg-type]
    assert len(said) == bool(words)
    assert all(words in text for text in said)


def test_a_pod_takes_what_its_largest_moment_takes() -> None:
    """The server has 1 CPU, and what fills its volume before has more."""
    found = steps(2, size="10Gi")
    (key,) = (key for key in found[0].wanted if key.startswith("StatefulSet/"))
    pod = found[0].wanted[key]["spec"]["template"]["spec"]
    pod["containers"][0]["resources"] = {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}
    pod["initContainers"][0]["resources"] = {"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}}

    def said(**hard: str) -> list[str]:
        return [one.summary for one in quota(Namespace(hard), "models", found)]  # type: ignore[arg-type]

    assert said(cpu="3") == []
    (text,) = said(cpu="2")
    assert "cpu: 3 more is needed, 2 of 2 is left" in text
    (text,) = said(**{"limits.cpu": "3"})
    assert "limits.cpu: 4 more is needed" in text


def test_volumes_of_replicas_that_an_autoscaler_made_get_larger_as_well() -> None:
    key = "StatefulSet/qwen"

    def made(size: str) -> Any:  # Any: a resource
        claim = {"size": size, "per": "replica"}
        return deployment(weights="pvc", registry=FAR, autoscale={"max": 8}, claim=claim)

    before, wanted = made("10Gi"), made("20Gi")
    live = copy.deepcopy(before.desired.objects[key])
    live["spec"]["replicas"] = 3
    live["metadata"]["uid"] = "s"
    ignored = wanted.desired.recipe.ignored
    seen = observed({key: live}, wanted.desired.objects, wanted.locator, ignored)
    (found,) = steps_in([Change(wanted.address, wanted.kind, Action.UPDATE, wanted, seen, None)]).values()
    namespace: Any = Namespace({"requests.storage": "29Gi"}, (live,))
    (text,) = [one.summary for one in quota(namespace, "models", with_replicas(namespace, "models", found))]
    assert "30Gi more is needed" in text
