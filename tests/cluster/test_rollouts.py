"""Twenty models in a real cluster: an engine version that cannot start costs one restart, and a bad version is rolled back at night."""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.image import Registry
from pipeline.manifest.lock import engine_key, read_lock, write_lock
from tests.parts.cluster import RealCluster
from tests.parts.project import Manifest, Project
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, push_tiny_engine, tiny_engine
from tests.parts.tiny_project import tiny_project

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

MODELS = [f"m{number:02}" for number in range(20)]
SERVING = MODELS[
    :4
]  # the others are scaled to zero: a restart would show in their objects, and costs two slow cores nothing
PARTLY, CHANGES = 5, 2
GOOD = tiny_engine()
BAD = replace(GOOD, base_digest="sha256:" + "1" * 64)


@dataclass
class Twenty:
    """A project whose first model is proven by a request, the others by pods that are ready."""

    project: Project
    cluster: RealCluster
    namespace: str
    registry: Registry

    def pods(self) -> dict[str, str]:
        """Of each model the uid of the pod that serves it."""
        found = self.cluster.get(self.namespace, "pods")["items"]
        return {
            pod["metadata"]["labels"]["app.kubernetes.io/instance"]: pod["metadata"]["uid"]
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
        }

    def changes(self) -> dict[str, int]:
        """How often the spec of each Deployment was changed."""
        found = self.cluster.get(self.namespace, "deployments")["items"]
        return {one["metadata"]["name"]: one["metadata"]["generation"] for one in found}

    def launch_of(self, model: str) -> str:
        """The ConfigMap that a model's pods read: its name is its content."""
        deployment: Any = self.cluster.get(self.namespace, f"deployment/{model}")
        volumes = deployment["spec"]["template"]["spec"]["volumes"]
        return next(str(volume["configMap"]["name"]) for volume in volumes if "configMap" in volume)


def manifest_of(namespace: str, context: str, registry: str) -> Manifest:
    options = {name: {"replicas": int(name in SERVING), "prove": "skip"} for name in MODELS} | {"m00": {}}
    target = {"kind": "kubernetes", "context": context, "namespace": namespace}
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {"cpu": {"gpus": 0, "cpu": 0.02, "memory": "128Mi"}},
        "registries": {"main": {"url": f"{registry}/acme"}},
        "engines": {"transformers": {"base": f"{GOOD.base}@{GOOD.base_digest}"}},
        "targets": {"prod": target},
        "models": {name: {"source": "./weights", "targets": {"prod": options[name]}} for name in MODELS},
    }


@pytest.fixture(scope="module")
def twenty(
    cluster: RealCluster, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twenty]:
    place = Registry("main", url=f"{registry.host}/acme")
    with tiny_project(cluster, place, tmp_path_factory.mktemp("acme"), GOOD) as (project, namespace):
        project.write(manifest_of(namespace, cluster.context, registry.host))
        project.applied()
        yield Twenty(project, cluster, namespace, place)


def test_engine_that_cannot_start_costs_one_restart(twenty: Twenty, tmp_path: Path) -> None:
    project, pods, changes = twenty.project, twenty.pods(), twenty.changes()
    assert set(pods) == set(SERVING)
    broken = tmp_path / "serve.py"
    broken.write_text('raise SystemExit("RuntimeError: this engine cannot start")\n')
    push_tiny_engine(twenty.registry, BAD, broken)
    lock, manifest = read_lock(project.folder / "models.lock"), copy.deepcopy(project.manifest)
    manifest["targets"]["prod"]["rollout"] = {"waves": [1, "10%", "100%"]}
    manifest["engines"]["transformers"]["base"] = f"{BAD.base}@{BAD.base_digest}"
    bad = replace(lock, engines={engine_key(BAD, PLATFORM): BAD})
    with project.changed(manifest):
        write_lock(project.folder / "models.lock", bad)
        planned = project.mp("plan")
        assert "prod: 20 deployments in waves of 1, 2, 17; stops after 1 failure" in planned.out
        result = project.mp("apply", "--yes", "--json")
    write_lock(project.folder / "models.lock", lock)

    assert result.code == PARTLY, result.text
    outcomes = {
        one["address"].partition("/")[0]: one
        for one in result.json()["outcomes"]
        if one["address"].endswith("/kubernetes:prod")
    }
    assert outcomes["m00"]["result"] == "failed"
    assert "this engine cannot start" in outcomes["m00"]["error"]
    assert {outcomes[name]["result"] for name in MODELS[1:]} == {"skipped"}
    assert outcomes["m07"]["error"] == "1 deployment with the same engine failed (m00)"
    assert twenty.pods() == pods, "the old pod of the first one never stopped; the others were not touched"
    assert {name: n for name, n in twenty.changes().items() if n != changes[name]}.keys() == {"m00"}
    project.applied()
    assert project.mp("plan", "--detailed-exitcode").code == 0


@pytest.mark.slow
def test_rollback_needs_no_git_no_source_and_no_lock_and_is_held(twenty: Twenty) -> None:
    project, before = twenty.project, twenty.launch_of("m00")
    manifest = copy.deepcopy(project.manifest)
    manifest["models"]["m00"]["env"] = {"COLOUR": "wrong"}
    with project.changed(manifest):
        project.applied("m00")
        wanted = twenty.launch_of("m00")
        assert wanted != before
        away = [project.folder / name for name in ("weights", "models.lock", "cache")]
        for each in away:
            each.rename(each.with_suffix(".away"))
        assert not (project.folder / ".git").exists()
        rolled = project.mp("rollback", "m00", "--yes")
        for each in away:
            shutil.rmtree(each, ignore_errors=True)
            each.with_suffix(".away").rename(each)
        assert rolled.code == 0, rolled.text
        assert twenty.launch_of("m00") == before
        assert "the sky is blue" in rolled.out, "it was asked, and gave its answer"

        planned = project.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text
        assert "m00/kubernetes:prod: held at the version of" in " ".join(planned.out.split())
        assert project.mp("drift").code == 0
        (now,) = project.mp("status", "m00", "--json").json()["deployments"]
        assert (now["health"], now["replicas"]) == ("Healthy", 1)
        assert now["held"] is not None
        twenty.cluster.kubectl("-n", twenty.namespace, "scale", "deployment", "m00", "--replicas=0")
        assert project.mp("drift").code == CHANGES
        project.applied("m00")
        assert twenty.launch_of("m00") == before
        project.applied("m00", "--release")
        assert twenty.launch_of("m00") == wanted
    done = project.mp("history", "m00", "--json").json()["changes"]
    assert [one["command"] for one in done if "kubernetes" in one["address"]][:3] == [
        "apply",
        "apply",
        "rollback",
    ]
    project.applied("m00")
