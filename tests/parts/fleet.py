"""Many models on simulated nodes: one checkpoint, one engine that is in the registry already, two namespaces."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.image import Registry
from pipeline.core.model import Hardware
from pipeline.manifest.lock import Lock, engine_key, write_lock
from tests.parts.cluster import RealCluster
from tests.parts.project import MP, Manifest, Project
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, push_tiny_engine, tiny_engine

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
ENGINE = tiny_engine(Hardware("gpu", gpus=1, gpu="L4"))
KINDS = "deployments,services,serviceaccounts,configmaps,poddisruptionbudgets"
OBJECTS = 4  # of one deployment: a Deployment, a Service, a ServiceAccount, a ConfigMap


@dataclass
class Fleet:
    """One project. Models with even numbers are in the first namespace, the others in the second."""

    project: Project
    cluster: RealCluster
    namespaces: tuple[str, str]
    models: int

    def get(self, kinds: str = KINDS) -> list[Any]:  # Any: objects of the API
        """Everything that bears our label, in both namespaces."""
        words = (kinds, "-l", "app.kubernetes.io/managed-by=mp")
        return [one for name in self.namespaces for one in self.cluster.get(name, *words)["items"]]

    def names(self, kinds: str = KINDS) -> list[str]:
        return sorted(f"{one['kind']}/{one['metadata']['name']}" for one in self.get(kinds))

    def generations(self) -> dict[str, tuple[str, int]]:
        """Of each Deployment: which object it is, and how often its spec changed."""
        found = (one["metadata"] for one in self.get("deployments"))
        return {one["name"]: (one["uid"], one["generation"]) for one in found}

    def kubectl(self, number: int, *words: str, stdin: str | None = None) -> str:
        """In the namespace of a model."""
        return self.cluster.kubectl("-n", self.namespaces[number % 2], *words, stdin=stdin)

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """`mp`, left running."""
        return subprocess.Popen(
            [str(MP), *words],
            cwd=self.project.folder,
            env={
                **os.environ,
                "MP_CACHE": str(self.project.cache),
                **self.project.environ,
                **(environ or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def nothing_to_do(self) -> None:
        planned = self.project.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text


def model_name(number: int) -> str:
    return f"model-{number:03}"


def manifest_of(
    models: int, namespaces: tuple[str, str], context: str, registry: str, **entry: object
) -> Manifest:
    """`entry`: what every model has more."""
    targets = ("east", "west")
    return {
        "version": 1,
        "project": "fleet",
        "defaults": {"template": "transformers", "hardware": "gpu", "registry": "main"},
        "hardware": {"gpu": {"gpus": 1, "gpu": "L4", "cpu": 1, "memory": "4Gi"}},
        "registries": {"main": {"url": f"{registry}/fleet"}},
        "engines": {"transformers": {"base": f"{ENGINE.base}@{ENGINE.base_digest}"}},
        "targets": {
            target: {"kind": "kubernetes", "context": context, "namespace": namespace}
            for target, namespace in zip(targets, namespaces, strict=True)
        },
        "models": {
            model_name(number): {
                "source": "./weights",
                "targets": {targets[number % 2]: {"weights": "volume", "prove": "skip"}},
                **entry,
            }
            for number in range(models)
        },
    }


@contextmanager
def fleet_of(models: int, cluster: RealCluster, registry: RealRegistry, folder: Path) -> Iterator[Fleet]:
    """A project that was written, and not applied."""
    shutil.copytree(CHECKPOINT, folder / "weights")
    push_tiny_engine(Registry("main", url=f"{registry.host}/fleet"), ENGINE)
    write_lock(folder / "models.lock", Lock({}, {engine_key(ENGINE, PLATFORM): ENGINE}))
    with cluster.namespace() as first, cluster.namespace() as second:
        environ = {"KUBECONFIG": str(cluster.kubeconfig), "NO_COLOR": "1"}
        project = Project(folder, folder / "cache", environ)
        project.write(manifest_of(models, (first, second), cluster.context, registry.host))
        yield Fleet(project, cluster, (first, second), models)
