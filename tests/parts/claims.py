"""A project whose weights are in claims, on a real node whose volumes are folders of this machine. Used by tests of claims."""

import contextlib
import copy
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.image import Registry
from tests.fakes.engine import CPU
from tests.parts.cluster import RealCluster
from tests.parts.project import MP, Manifest, Project, Result, flat
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import tiny_engine
from tests.parts.tiny_project import tiny_project

ENGINE = tiny_engine(CPU)
CHANGES = 2
SOON_S = 60
PROGRAM = b"pipeline.cli.filling"


@dataclass
class Acme:
    """A project, what its first apply said, and where its volumes are."""

    project: Project
    cluster: RealCluster
    namespace: str
    storage: Path
    storage_class: str
    registry: RealRegistry
    first: Result | None = None
    folders: list[Path] = field(default_factory=list)  # of volumes, the newest last

    def mp(self, *words: str) -> Result:
        return self.project.mp(*words)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, *what: str) -> Any:  # Any: an object of the API
        return self.cluster.get(self.namespace, *what)

    def names(self, kind: str) -> set[str]:
        return {str(one["metadata"]["name"]) for one in self.get(kind)["items"]}

    def claims(self) -> set[str]:
        """Of those that stay."""
        found = self.get("pvc")["items"]
        return {one["metadata"]["name"] for one in found if "deletionTimestamp" not in one["metadata"]}

    def pod(self) -> Any:  # Any: an object of the API
        """The one pod that serves."""
        found = self.get("pods", "-l", "app.kubernetes.io/instance=tiny")["items"]
        (one,) = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return one

    def mounted(self) -> str:
        """The claim that it mounts."""
        (found,) = [v for v in self.pod()["spec"]["volumes"] if "persistentVolumeClaim" in v]
        return str(found["persistentVolumeClaim"]["claimName"])

    def volume(self, folder: Path | None = None, storage_class: str | None = None) -> Path:
        """A volume that the next claim is bound to; nothing makes any here."""
        name = f"mp-{uuid.uuid4().hex[:8]}"
        folder = folder or self.storage / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        spec = {
            "storageClassName": storage_class or self.storage_class,
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "hostPath": {"path": str(folder)},
        }
        metadata = {"name": name, "labels": {"mp-test": self.namespace}}
        made = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
        self.folders.append(folder)
        return folder

    def with_claim(self, **claim: str) -> Manifest:
        manifest = copy.deepcopy(self.project.manifest)
        manifest["models"]["tiny"]["targets"]["prod"]["claim"] |= claim
        return manifest

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """What a test changes in models.yaml and in the weights is afterwards as it was; nothing of it is applied."""
        manifest, weights = self.project.manifest, self.project.folder / "weights"
        kept = self.project.folder / "kept"
        shutil.copytree(weights, kept)
        yield
        shutil.rmtree(weights)
        kept.rename(weights)
        self.project.write(manifest)

    def nothing_to_do(self) -> None:
        planned = self.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text
        assert self.mp("drift").code == 0
        assert self.names("jobs") == set()
        assert not any("-fill-" in name for name in self.names("configmaps"))

    def applying(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(MP), "apply", "--yes"],
            cwd=self.project.folder,
            env={**os.environ, "MP_CACHE": str(self.project.cache), **self.project.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def filler(self) -> int | None:
        """The process that fills a volume of ours: the node is this machine."""
        volumes = [folder.name for folder in self.folders]
        found = (int(one.name) for one in Path("/proc").glob("[0-9]*") if fills(one, volumes))
        return next(found, None)

    def failed(self, *words: str, within_s: float = SOON_S) -> Result:
        began = time.monotonic()
        result = self.mp("apply", "--yes")
        assert result.code not in (0, CHANGES), result.text
        assert time.monotonic() - began < within_s, result.text
        for word in words:
            assert word in flat(result.out), result.text
        return result


def until(
    asked: Callable[[], Any], within_s: float = SOON_S, pause_s: float = 0.5
) -> Any:  # Any: whatever is found
    deadline = time.monotonic() + within_s
    while not (found := asked()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(pause_s)
    return found


@contextlib.contextmanager
def a_project(cluster: RealCluster, folders: pytest.TempPathFactory) -> Iterator[Acme]:
    """Nothing of it is applied yet, and it has no volume."""
    registry = RealRegistry(folders.mktemp("registry"), everywhere=True)
    registry.start()
    host = f"{cluster.node_address()}:{registry.port}"
    cluster.speaks_http(host)
    storage = folders.mktemp("volumes")
    place = Registry("main", url=f"{registry.host}/acme")
    with tiny_project(cluster, place, folders.mktemp("acme"), ENGINE) as (project, namespace):
        made = Acme(project, cluster, namespace, storage, namespace, registry)
        made.project.write(manifest_of(namespace, cluster.context, host))
        try:
            yield made
        finally:
            cluster.kubectl("delete", "pv", "-l", f"mp-test={namespace}", "--wait=false")
            registry.stop()


def manifest_of(namespace: str, context: str, host: str) -> Manifest:
    claim = {"weights": "pvc", "claim": {"storage_class": namespace}}
    test = [{"prompt": "what is blue?", "expect": {"contains": "blue"}}]
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers", "hardware": "cpu", "registry": "main"},
        "hardware": {"cpu": {"gpus": 0, "cpu": 0.1, "memory": "256Mi"}},
        "registries": {"main": {"url": f"{host}/acme", "insecure": True}},
        "engines": {"transformers": {"base": f"{ENGINE.base}@{ENGINE.base_digest}"}},
        "targets": {"prod": {"kind": "kubernetes", "context": context, "namespace": namespace}},
        "models": {"tiny": {"source": "./weights", "test": test, "targets": {"prod": claim}}},
    }


def safetensors(size_bytes: int) -> bytes:
    """A file of the format: one tensor of zeros."""
    tensor = {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}
    head = json.dumps({"t": tensor}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(size_bytes)


@contextlib.contextmanager
def spoilt(registry: RealRegistry, right: bytes, wrong: bytes) -> Iterator[None]:
    """The registry's disk has other bytes than it was given."""
    assert len(right) == len(wrong)
    blobs = [one for one in registry.storage.rglob("data") if right in one.read_bytes()]
    assert blobs
    for blob in blobs:
        blob.write_bytes(blob.read_bytes().replace(right, wrong))
    try:
        yield
    finally:
        for blob in blobs:
            blob.write_bytes(blob.read_bytes().replace(wrong, right))


def fills(process: Path, volumes: Iterable[str]) -> bool:
    """Whether a process of this machine fills one of these volumes: others may fill theirs at the same time."""
    try:
        if PROGRAM not in (process / "cmdline").read_bytes():
            return False
        mounted = (process / "mountinfo").read_text()
    except OSError:  # it has ended
        return False
    return any(volume in mounted for volume in volumes)
