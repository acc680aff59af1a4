"""A context that comes to mean another cluster: nothing is made there, and nothing deleted, until somebody says so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.cluster import RealCluster, simulated_cluster
from tests.parts.fleet import OBJECTS, Fleet, fleet_of
from tests.parts.registry import RealRegistry

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

MODELS = 2
ERROR, REFUSED = 1, 4
PLAN = (("plan",), ("apply", "--yes"), ("destroy", "--all", "--yes"))


@pytest.fixture(scope="module")
def other() -> Iterator[RealCluster]:
    with simulated_cluster(nodes=1, gpus=8) as started:
        yield started


@pytest.fixture
def fleet(simulated: RealCluster, registry: RealRegistry, tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(MODELS, simulated, registry, tmp_path) as written:
        written.project.applied()
        yield written


def uid_of(cluster: RealCluster) -> str:
    return str(
        json.loads(cluster.kubectl("get", "namespace", "kube-system", "-o", "json"))["metadata"]["uid"]
    )


def entries_in(fleet: Fleet) -> Path:
    return fleet.project.folder / ".mp" / "inventory" / "default" / "inventory.json"


def writing(cluster: RealCluster) -> list[str]:
    """What mp asked for that is no reading; reviews and rehearsals of the preflight leave nothing."""
    asked = cluster.requests("mp")
    return [one for one in asked if not one.startswith(("get ", "list ")) and "dryRun" not in one]


def test_another_cluster_under_the_name_is_refused_and_nothing_is_done_in_either(
    fleet: Fleet, other: RealCluster
) -> None:
    assert other.context == fleet.cluster.context
    for namespace in fleet.namespaces:
        other.kubectl("create", "namespace", namespace)
    environ = {"KUBECONFIG": str(other.kubeconfig)}
    before = fleet.generations()
    for words in PLAN:
        refused = fleet.project.mp(*words, environ=environ)
        said = " ".join(refused.text.split())
        assert refused.code == REFUSED, refused.text
        assert f"uid {uid_of(other)}, not uid {uid_of(fleet.cluster)}" in said, refused.text
        assert f"kubernetes {other.context}" in said
        assert "mp forget east west" in said
        assert said.count("another one answers") == 1, "one error, however many models"
    assert fleet.project.mp("status", environ=environ).code == ERROR
    assert fleet.project.mp("drift", environ=environ).code == ERROR
    assert not writing(other)
    assert fleet.generations() == before
    fleet.nothing_to_do()

    fleet.project.mp("forget", "east", "west", environ=environ)
    fleet.project.applied(environ=environ)
    moved = Fleet(fleet.project, other, fleet.namespaces, MODELS)
    assert len(moved.get("deployments")) == MODELS
    assert fleet.generations() == before
    assert fleet.project.mp("plan").code == REFUSED  # the old one is the stranger now


def test_an_account_that_may_read_its_namespaces_alone_is_refused_too(
    fleet: Fleet, other: RealCluster, tmp_path: Path
) -> None:
    first, second = fleet.namespaces
    for namespace in fleet.namespaces:
        other.kubectl("create", "namespace", namespace)
    for cluster in (fleet.cluster, other):
        robot = cluster.as_account(first, "robot", "get,list,patch,create,delete", tmp_path)
        words = ("--role=robot", f"--serviceaccount={first}:robot")
        what = (
            "--verb=get,list,patch,create,delete",
            "--resource=deployments.apps,replicasets.apps,services",
        )
        cluster.kubectl("-n", second, "create", "role", "robot", *what, "--resource=configmaps,pods,events")
        cluster.kubectl("-n", second, "create", "rolebinding", "robot", *words)
        planned = fleet.project.mp("plan", environ={"KUBECONFIG": str(robot)})
        if cluster is other:
            assert planned.code == REFUSED, planned.text
            assert "authority" in planned.text
        else:
            assert planned.code != REFUSED, planned.text


def test_identity_is_asked_once_a_plan_and_an_older_inventory_learns_it_with_the_next_apply(
    fleet: Fleet,
) -> None:
    record = json.loads(entries_in(fleet).read_text())
    for entry in record["entries"].values():
        entry.pop("identity", None)
    entries_in(fleet).write_text(json.dumps(record))
    before = len(fleet.cluster.requests("mp"))
    fleet.nothing_to_do()
    asked = [one for one in fleet.cluster.requests("mp")[before:] if one.startswith("get ")]
    assert len([one for one in asked if one.endswith("/namespaces/kube-system")]) == 1, asked
    fleet.project.applied()
    entries = json.loads(entries_in(fleet).read_text())["entries"]
    uids = {e["identity"]["uid"] for e in entries.values() if e["kind"] == "kubernetes"}
    assert uids == {uid_of(fleet.cluster)}
    assert len(fleet.get()) == MODELS * OBJECTS
