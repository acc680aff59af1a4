"""From models.yaml to a pod that answers, on a real node, by the command line: and what happens on a bad day."""

import copy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.image import Registry
from pipeline.manifest.lock import Lock, engine_key, write_lock
from tests.parts.cluster import RealCluster
from tests.parts.project import Manifest, Project, Result
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, push_tiny_engine, tiny_engine

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
CHANGES, PARTLY, REFUSED = 2, 5, 4


def manifest_of(namespace: str, context: str, registry: str) -> Manifest:
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {"cpu": {"gpus": 0, "cpu": 0.1, "memory": "256Mi"}},
        "registries": {"main": {"url": f"{registry}/acme"}},
        "engines": {"transformers": {"base": f"{tiny_engine().base}@{tiny_engine().base_digest}"}},
        "targets": {"prod": {"kind": "kubernetes", "context": context, "namespace": namespace}},
        "models": {
            "tiny": {
                "source": "./weights",
                "test": [{"prompt": "what is blue?", "expect": {"contains": "blue"}}],
                "targets": {"prod": {}},
            }
        },
    }


@dataclass
class Acme:
    """A project with one model, and the namespace that it is in."""

    project: Project
    cluster: RealCluster
    namespace: str

    def mp(self, *words: str) -> Result:
        return self.project.mp(*words)

    def with_options(self, **options: Any) -> Manifest:  # Any: as models.yaml has it
        return self.with_model(targets={"prod": options})

    def with_model(self, **changes: Any) -> Manifest:
        manifest = copy.deepcopy(self.project.manifest)
        manifest["models"]["tiny"] |= changes
        return manifest

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, *what: str) -> Any:  # Any: an object of the API
        return self.cluster.get(self.namespace, *what)

    def names(self) -> set[str]:
        kinds = "deployments,services,serviceaccounts,configmaps,poddisruptionbudgets"
        found = self.get(kinds, "-l", "app.kubernetes.io/managed-by=mp")["items"]
        return {f"{one['kind']}/{one['metadata']['name']}" for one in found}

    def pods(self) -> dict[str, Any]:
        found = self.get("pods", "-l", "app.kubernetes.io/managed-by=mp")["items"]
        return {one["metadata"]["uid"]: one for one in found if "deletionTimestamp" not in one["metadata"]}

    def nothing_to_do(self) -> None:
        planned = self.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text
        assert self.mp("drift").code == 0


@pytest.fixture
def acme(cluster: RealCluster, registry: RealRegistry, tmp_path: Path) -> Iterator[Acme]:
    shutil.copytree(CHECKPOINT, tmp_path / "weights")
    (tmp_path / "weights" / "answer.txt").write_text("the sky is blue")
    push_tiny_engine(Registry("main", url=f"{registry.host}/acme"))
    engine = tiny_engine()
    write_lock(tmp_path / "models.lock", Lock({}, {engine_key(engine, PLATFORM): engine}))
    with cluster.namespace() as namespace:
        environ = {"KUBECONFIG": str(cluster.kubeconfig), "NO_COLOR": "1", "COLUMNS": "200"}
        project = Project(tmp_path, tmp_path / "cache", environ)
        project.write(manifest_of(namespace, cluster.context, registry.host))
        yield Acme(project, cluster, namespace)


def test_models_yaml_becomes_a_pod_that_answers_and_then_nothing_is_to_do(acme: Acme) -> None:
    made = acme.project.applied()
    print(made.text)
    assert "the sky is blue" in made.out
    acme.nothing_to_do()
    gone = acme.mp("destroy", "--all", "--yes")
    assert gone.code == 0, gone.text
    assert acme.names() == set()
