"""Many models on 50 simulated nodes with 8 GPUs each: what a plan costs, and that only what changed is touched.

Nothing here waits for a server: the nodes are simulated, and `prove: skip` asks no model anything.
"""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.clients.kube import KINDS
from tests.parts.cluster import RealCluster
from tests.parts.fleet import OBJECTS, Fleet, fleet_of, model_name
from tests.parts.project import Manifest
from tests.parts.registry import RealRegistry

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

CHANGES, REFUSED = 2, 4
CONSTANT = 12  # requests of a plan whatever the number of models: the server's version, what may be done


@pytest.fixture(scope="module", params=[60, pytest.param(300, marks=pytest.mark.slow)])
def applied(
    request: pytest.FixtureRequest,
    simulated: RealCluster,
    registry: RealRegistry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    with fleet_of(request.param, simulated, registry, tmp_path_factory.mktemp("fleet")) as fleet:
        fleet.project.applied()
        yield fleet


@pytest.fixture
def fleet(applied: Fleet) -> Iterator[Fleet]:
    """The fleet as it was first applied, also after a test that changed it."""
    manifest = applied.project.manifest
    yield applied
    applied.project.write(manifest)
    applied.project.applied("--max-deletes", "9")


def without(manifest: Manifest, *numbers: int) -> Manifest:
    names = [model_name(number) for number in numbers]
    models = {name: entry for name, entry in manifest["models"].items() if name not in names}
    return {**manifest, "models": models}


def changed(planned: Any) -> set[str]:
    """The models of a plan that something happens to."""
    return {one["address"].partition("/")[0] for one in planned["changes"] if one["action"] != "no-op"}


def others(fleet: Fleet, *names: str) -> dict[str, tuple[str, int]]:
    """Which object every Deployment but those with some names is, and how often its spec changed."""
    return {name: one for name, one in fleet.generations().items() if name not in names}


def test_everything_is_there_and_a_plan_asks_once_a_kind_and_namespace(fleet: Fleet) -> None:
    assert len(fleet.get()) == fleet.models * OBJECTS
    before = len(fleet.cluster.requests("mp"))
    fleet.nothing_to_do()
    asked = fleet.cluster.requests("mp")[before:]
    assert len(asked) <= len(KINDS) * len(fleet.namespaces) + CONSTANT, asked
    assert not [one for one in asked if one.startswith("patch ")], asked


def test_what_people_did_to_some_is_seen_in_those_and_put_back_there(fleet: Fleet) -> None:
    hurt = [model_name(number) for number in range(8)]
    before = others(fleet, *hurt)
    for number in (0, 1):
        fleet.kubectl(number, "delete", "deployment", model_name(number))
    for number in (2, 3):
        own = f"app.kubernetes.io/instance={model_name(number)}"
        fleet.kubectl(number, "delete", "service,configmap", "-l", own)
    for number in (4, 5):
        fleet.kubectl(number, "scale", "deployment", model_name(number), "--replicas=2")
    for number in (6, 7):
        patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 77}}}}
        fleet.kubectl(number, "patch", "deployment", model_name(number), "-p", json.dumps(patch))
    planned = fleet.project.mp("plan", "--json")
    assert changed(planned.json()) == set(hurt)
    assert fleet.project.mp("drift").code == CHANGES
    fleet.project.applied()
    fleet.nothing_to_do()
    assert len(fleet.get()) == fleet.models * OBJECTS
    assert others(fleet, *hurt) == before


def test_what_is_scaled_to_nothing_serves_nobody_and_status_says_so(fleet: Fleet) -> None:
    fleet.kubectl(6, "scale", "deployment", model_name(6), "--replicas=0")
    fleet.kubectl(6, "rollout", "status", "deployment", model_name(6), "--timeout=60s")
    (one,) = fleet.project.mp("status", model_name(6), "--json").json()["deployments"]
    assert (one["health"], one["reason"], one["replicas"]) == ("Suspended", "scaled to 0", 0)
    assert fleet.project.mp("drift").code == CHANGES  # it was not declared


def test_new_name_makes_the_one_and_removes_the_other(fleet: Fleet) -> None:
    old, new = model_name(0), "renamed"
    before = others(fleet, old)
    manifest = without(fleet.project.manifest, 0)
    manifest["models"][new] = fleet.project.manifest["models"][old]
    fleet.project.write(manifest)
    fleet.project.applied()
    fleet.nothing_to_do()
    names = fleet.names()
    assert len(names) == fleet.models * OBJECTS
    assert not [name for name in names if old in name]
    assert f"Deployment/{new}" in names
    assert others(fleet, new) == before


def test_copies_with_our_labels_and_marks_stay_when_the_originals_go(fleet: Fleet) -> None:
    for one in fleet.get("deployments,configmaps"):
        metadata = one["metadata"]
        if metadata["labels"]["app.kubernetes.io/instance"] == model_name(1):
            kept = {key: metadata[key] for key in ("labels", "annotations")}
            content = {key: value for key, value in one.items() if key != "status"}
            copied = {**content, "metadata": {"name": "copy", **kept}}
            fleet.kubectl(1, "create", "-f", "-", stdin=json.dumps(copied))
    fleet.nothing_to_do()
    fleet.project.write(without(fleet.project.manifest, 1))
    fleet.project.applied()
    left = [name for name in fleet.names() if model_name(1) in name or "copy" in name]
    assert left == ["ConfigMap/copy", "Deployment/copy"]
    fleet.kubectl(1, "delete", "deployment,configmap", "copy")


def test_field_of_another_manager_refuses_the_plan_and_changes_nothing(fleet: Fleet) -> None:
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": model_name(2)}}
    words = ("apply", "--server-side", "--field-manager=scaler", "-f", "-")
    taken = {**other, "spec": {"replicas": 0}}
    fleet.kubectl(2, *words, "--force-conflicts", stdin=json.dumps(taken))
    manifest = copy.deepcopy(fleet.project.manifest)
    manifest["models"][model_name(3)]["env"] = {"COLOUR": "blue"}
    fleet.project.write(manifest)
    before = fleet.generations()
    result = fleet.project.mp("apply", "--yes")
    assert result.code == REFUSED, result.text
    assert ".spec.replicas is managed by scaler" in " ".join(result.text.split()), result.text
    assert fleet.generations() == before
    fleet.kubectl(2, *words, stdin=json.dumps(other))  # it lets go


def test_one_new_launch_touches_one_deployment(fleet: Fleet) -> None:
    name = model_name(5)
    before = fleet.generations()
    manifest = copy.deepcopy(fleet.project.manifest)
    manifest["models"][name]["env"] = {"COLOUR": "blue"}
    fleet.project.write(manifest)
    fleet.project.applied()
    fleet.nothing_to_do()
    after = fleet.generations()
    assert {one for one in after if after[one] != before[one]} == {name}
    assert after[name][0] == before[name][0]  # the same object
    assert len(fleet.get("configmaps")) == fleet.models
