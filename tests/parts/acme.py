"""Two models in a real cluster, one with its weights in the image and one with them mounted. Used by tests of that target."""

import contextlib
import copy
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.core.model import Hardware
from tests.fakes.engine import CPU
from tests.parts.cluster import RealCluster
from tests.parts.project import Manifest, Project, Result, flat
from tests.parts.tiny_image import tiny_engine

ENGINES = [tiny_engine(CPU), tiny_engine(Hardware("gpu", gpus=1, gpu="L40S"))]
ERROR, CHANGES, REFUSED, PARTLY = 1, 2, 4, 5
SOON_S = 45  # until a reason is named: the pod is made, fails, is looked at; on two slow cores
TEST = [{"prompt": "what is blue?", "expect": {"contains": "blue"}}]


def manifest_of(namespace: str, context: str, registry: str) -> Manifest:
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {
            "cpu": {"gpus": 0, "cpu": 0.1, "memory": "256Mi"},
            "gpu": {"gpus": 1, "gpu": "L40S", "cpu": 0.1, "memory": "256Mi"},
        },
        "registries": {"main": {"url": f"{registry}/acme"}},
        "engines": {"transformers": {"base": f"{ENGINES[0].base}@{ENGINES[0].base_digest}"}},
        "targets": {"prod": {"kind": "kubernetes", "context": context, "namespace": namespace}},
        "models": {
            "tiny": {"source": "./weights", "test": TEST, "targets": {"prod": {}}},
            "mounted": {"source": "./weights", "test": TEST, "targets": {"prod": {"weights": "volume"}}},
        },
    }


@dataclass
class Acme:
    """A project, what its first apply said, and the namespace that it is in."""

    project: Project
    cluster: RealCluster
    namespace: str
    first: Result

    def mp(self, *words: str) -> Result:
        return self.project.mp(*words)

    def with_tiny(self, **changes: Any) -> Manifest:  # Any: as models.yaml has it
        manifest = copy.deepcopy(self.project.manifest)
        manifest["models"]["tiny"] |= changes
        return manifest

    def without(self, name: str) -> Manifest:
        manifest = copy.deepcopy(self.project.manifest)
        del manifest["models"][name]
        return manifest

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, *what: str) -> Any:  # Any: an object of the API
        return self.cluster.get(self.namespace, *what)

    def names(self, instance: str = "tiny") -> set[str]:
        """Kinds and names of the objects of a deployment."""
        kinds = "deployments,services,serviceaccounts,configmaps,poddisruptionbudgets"
        found = self.get(kinds, "-l", f"app.kubernetes.io/instance={instance}")["items"]
        return {f"{one['kind']}/{one['metadata']['name']}" for one in found}

    def pod(self, instance: str = "tiny") -> Any:  # Any: an object of the API
        """The one pod that serves."""
        found = self.get("pods", "-l", f"app.kubernetes.io/instance={instance}")["items"]
        (ready,) = [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and is_ready(pod)]
        return ready

    def answered(self, instance: str = "tiny") -> bool:
        """Whether one of the pods that a Service sends requests to answers now."""
        found = self.get("pods", "-l", f"app.kubernetes.io/instance={instance}")["items"]
        ready = [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and is_ready(pod)]
        return bool(ready) and instance in self.said(ready[0])

    @contextlib.contextmanager
    def always_answered(self) -> Iterator[None]:
        """Fails when nobody answered at some moment of the block."""
        answers, over = [self.answered()], threading.Event()

        def ask() -> None:
            while not over.is_set():
                answers.append(self.answered())

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            yield
        finally:
            over.set()
            asking.join()
        assert len(answers) > 10
        assert all(answers), answers

    def said(self, pod: Any) -> str:
        """What a pod answers now, through the API server."""
        name = pod["metadata"]["name"]
        return self.kubectl(
            "get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{name}:8000/proxy/v1/models"
        )

    def nothing_to_do(self) -> None:
        planned = self.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text
        assert self.mp("drift").code == 0

    def drifted(self, *words: str) -> str:
        """What `mp drift` says; each word is in it."""
        found = self.mp("drift")
        assert found.code == CHANGES, found.text
        for word in words:
            assert word in found.out, found.text
        return found.out

    def drifted_soon(self, *words: str) -> None:
        """`mp drift` that says so as soon as the cluster does."""
        deadline = time.monotonic() + SOON_S
        while not all(word in (said := flat(self.drifted())) for word in words):
            assert time.monotonic() < deadline, said

    def failed(self, *words: str, code: int = ERROR, within_s: float = SOON_S) -> Result:
        """`mp apply` that fails, soon; each word is in what it says."""
        began = time.monotonic()
        result = self.mp("apply", "--yes")
        assert result.code == code, result.text
        assert time.monotonic() - began < within_s, result.text
        for word in words:
            assert word in flat(result.out), result.text
        return result


def is_ready(pod: Any) -> bool:
    found = pod["status"].get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)
