"""A canary on a real node: beside the good version, behind the same Service, until it is promoted, rolled back or fails."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.core.image import Registry
from tests.parts.cluster import RealCluster
from tests.parts.project import Manifest, Project
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import tiny_engine
from tests.parts.tiny_project import tiny_project

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

ENGINE = tiny_engine()
ERROR = 1
STABLE, CANARY = "tiny", "tiny-canary"


@dataclass
class Acme:
    """One model with one pod, whose COLOUR tells its version."""

    project: Project
    cluster: RealCluster
    namespace: str

    def wants(self, colour: str, **more: str) -> Manifest:
        manifest = copy.deepcopy(self.project.manifest)
        manifest["models"]["tiny"]["env"] = {"COLOUR": colour, **more}
        return manifest

    def pods(self) -> dict[str, Any]:
        """The pod of each Deployment, by its instance label."""
        found = self.cluster.get(self.namespace, "pods")["items"]
        return {
            pod["metadata"]["labels"]["app.kubernetes.io/instance"]: pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
        }

    def deployments(self) -> set[str]:
        found = self.cluster.get(self.namespace, "deployments")["items"]
        return {str(one["metadata"]["name"]) for one in found}

    def maps(self) -> int:
        found = self.cluster.get(self.namespace, "configmaps", "-l", "app.kubernetes.io/instance=tiny")
        return len(found["items"])

    def behind_the_service(self) -> set[str]:
        """Addresses that requests to the Service go to."""
        found = self.cluster.get(self.namespace, "endpointslices", "-l", "kubernetes.io/service-name=tiny")
        ends = [end for one in found["items"] for end in one["endpoints"] or ()]
        return {str(end["addresses"][0]) for end in ends if end["conditions"]["ready"]}

    def colour(self, pod: Any) -> str:
        """Of the launch that a pod reads."""
        (name,) = (each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each)
        data: dict[str, str] = self.cluster.get(self.namespace, f"configmap/{name}")["data"]
        return next(colour for colour in ("blue", "green", "red") if colour in "".join(data.values()))

    def answers(self, pod: Any) -> bool:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:8000/proxy/v1/models"
        return '"tiny"' in self.cluster.kubectl("-n", self.namespace, "get", "--raw", path)

    def nothing_to_do(self) -> str:
        planned = self.project.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text
        return " ".join(planned.out.split())


def manifest_of(namespace: str, context: str, registry: str) -> Manifest:
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {"cpu": {"gpus": 0, "cpu": 0.05, "memory": "128Mi"}},
        "registries": {"main": {"url": f"{registry}/acme"}},
        "engines": {"transformers": {"base": f"{ENGINE.base}@{ENGINE.base_digest}"}},
        "targets": {"prod": {"kind": "kubernetes", "context": context, "namespace": namespace}},
        "models": {
            "tiny": {
                "source": "./weights",
                "env": {"COLOUR": "blue"},
                "targets": {"prod": {"rollout": {"strategy": "canary"}}},
            }
        },
    }


@pytest.fixture(scope="module")
def acme(
    cluster: RealCluster, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Acme]:
    place = Registry("main", url=f"{registry.host}/acme")
    with tiny_project(cluster, place, tmp_path_factory.mktemp("acme"), ENGINE) as (project, namespace):
        project.write(manifest_of(namespace, cluster.context, registry.host))
        project.applied()
        yield Acme(project, cluster, namespace)


def test_canary_serves_beside_the_old_pod_and_goes_with_a_rollback(acme: Acme) -> None:
    acme.nothing_to_do()
    assert acme.deployments() == {STABLE}
    before = acme.pods()[STABLE]
    with acme.project.changed(acme.wants("green")):
        applied = acme.project.applied()
        assert "the sky is blue" in applied.out, "the canary was asked, and gave its answer"
        pods = acme.pods()
        assert pods[STABLE]["metadata"]["uid"] == before["metadata"]["uid"]
        assert (acme.colour(pods[STABLE]), acme.colour(pods[CANARY])) == ("blue", "green")
        assert acme.behind_the_service() == {pods[name]["status"]["podIP"] for name in (STABLE, CANARY)}
        assert all(map(acme.answers, pods.values()))
        said = acme.nothing_to_do()
        assert "canary: 1 pod of the new version beside 1 of the old" in said
        assert "mp promote tiny, or mp rollback tiny" in said
        assert "mp promote tiny" in acme.project.mp("status").out
        (now,) = acme.project.mp("status", "--json").json()["deployments"]
        assert (now["health"], now["replicas"]) == ("Healthy", 1)
        assert now["canary"]["says"] == "1 pod of the new version beside 1 of the old"
        acme.cluster.kubectl("-n", acme.namespace, "delete", "deployment", CANARY)
        assert acme.project.mp("drift").code != 0, "a canary that was deleted is drift"
        acme.project.applied()
        assert acme.deployments() == {STABLE, CANARY}

        rolled = acme.project.mp("rollback", "tiny", "--yes")
        assert rolled.code == 0, rolled.text
        assert acme.deployments() == {STABLE}
        assert acme.pods()[STABLE]["metadata"]["uid"] == before["metadata"]["uid"]
        assert "held at the version of" in acme.nothing_to_do()
    acme.project.applied()


def test_canary_that_fails_is_removed_and_the_old_pod_never_noticed(acme: Acme) -> None:
    before = acme.pods()[STABLE]
    with acme.project.changed(acme.wants("red", TINY_ARGV="--crash RuntimeError:boom")):
        result = acme.project.mp("apply", "--yes")
    assert result.code == ERROR, result.text
    assert "boom" in result.text
    assert "the last good version serves again" in " ".join(result.text.split())
    assert acme.deployments() == {STABLE}
    assert acme.maps() == 1
    assert acme.pods()[STABLE]["metadata"]["uid"] == before["metadata"]["uid"]
    acme.project.applied()
    assert acme.behind_the_service() == {before["status"]["podIP"]}


def test_canary_that_fails_stays_to_be_looked_at_where_the_entry_says_hold(acme: Acme) -> None:
    before = acme.pods()[STABLE]
    wanted = acme.wants("red", TINY_ARGV="--crash RuntimeError:boom")
    wanted["models"]["tiny"]["targets"]["prod"]["rollout"]["on_failure"] = "hold"
    with acme.project.changed(wanted):
        result = acme.project.mp("apply", "--yes")
        assert result.code == ERROR, result.text
        assert "boom" in result.text
        assert "the last good version serves again" not in " ".join(result.text.split())
        pods = acme.pods()
        assert acme.deployments() == {STABLE, CANARY}
        assert acme.colour(pods[CANARY]) == "red"
        assert pods[STABLE]["metadata"]["uid"] == before["metadata"]["uid"]
        assert acme.behind_the_service() == {before["status"]["podIP"]}
        refused = acme.project.mp("promote", "tiny", "--yes")
        assert refused.code != 0, "what failed is not promoted"
        assert acme.deployments() == {STABLE, CANARY}
    acme.project.applied()
    assert acme.deployments() == {STABLE}
    assert acme.pods()[STABLE]["metadata"]["uid"] == before["metadata"]["uid"]
    acme.nothing_to_do()


def test_promoted_canary_becomes_the_deployment(acme: Acme) -> None:
    with acme.project.changed(acme.wants("green")):
        acme.project.applied()
        refused = acme.project.mp("promote", "tiny", "--target", "elsewhere", "--yes")
        assert refused.code == 1, refused.text
        promoted = acme.project.mp("promote", "tiny", "--yes")
        assert promoted.code == 0, promoted.text
        pods = acme.pods()
        assert acme.deployments() == pods.keys() == {STABLE}
        assert acme.colour(pods[STABLE]) == "green"
        assert acme.behind_the_service() == {pods[STABLE]["status"]["podIP"]}
        assert acme.maps() == 1
        assert "canary" not in acme.nothing_to_do()
        assert acme.project.mp("history", "--json").json()["changes"][0]["command"] == "promote"
