"""Every object that mp renders is one that three versions of Kubernetes take, and the projects whose kinds it uses."""

import copy
from typing import Any

import pytest

from pipeline.resources.cluster.sending import ordered, written
from tests.parts.deployments import DEPLOYMENTS, deployment
from tests.parts.schemas import KUBERNETES, mistakes

DIGEST = f"sha256:{'c' * 64}"


def sent(name: str) -> list[dict[str, Any]]:
    made = deployment(**DEPLOYMENTS[name])
    assert made.desired.recipe is not None
    digests = dict.fromkeys(made.desired.recipe.images, DIGEST)
    tasks = [one for each in made.desired.recipe.tasks.values() for one in each]
    return [written(one, digests) for one in (*ordered(made.desired.objects), *tasks)]  # type: ignore[arg-type]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_object_is_one_that_a_strict_server_takes(name: str, version: str) -> None:
    for one in sent(name):
        assert mistakes(one, version) == [], one["kind"]


def test_three_versions_are_there() -> None:
    assert len(KUBERNETES) == 3


@pytest.mark.parametrize("name", ["gpus", "nodes"])
def test_a_field_that_nobody_knows_is_a_mistake_wherever_it_is(name: str) -> None:
    workload = next(one for one in sent(name) if one["kind"] in ("Deployment", "LeaderWorkerSet"))
    wrong = copy.deepcopy(workload)
    template = wrong["spec"].get("template") or wrong["spec"]["leaderWorkerTemplate"]["leaderTemplate"]
    template["spec"]["containers"][0]["startupProbe"]["retries"] = 3
    (said,) = mistakes(wrong, KUBERNETES[-1])
    assert "retries" in said


def test_a_wrong_type_is_a_mistake() -> None:
    wrong = copy.deepcopy(sent("small")[-1])
    wrong["spec"]["replicas"] = "2"
    assert mistakes(wrong, KUBERNETES[0])
