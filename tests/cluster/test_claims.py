"""Weights in claims, on a real node: a Job fills them before pods mount them, and what happens on a bad day.

One project is applied once. Every test uses that one and leaves it as it was.
"""

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.kube import Cluster
from pipeline.core.errors import StartFailed
from pipeline.core.image import Registry
from pipeline.manifest.lock import Lock, engine_key, write_lock
from pipeline.resources.cluster.filling import Filling, objects_of
from tests.fakes.engine import CPU
from tests.parts.cluster import RealCluster
from tests.parts.deployments import DEPLOYMENTS, deployment
from tests.parts.project import MP, Manifest, Project, Result
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, push_tiny_engine, tiny_engine

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.registry,
    pytest.mark.skipif("MP_TEST_KUBECONFIG" in os.environ, reason="its node is another machine"),
]

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
ENGINE = tiny_engine(CPU)
ERROR, CHANGES = 1, 2
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

    def failed(self, *words: str, within_s: float = SOON_S) -> Result:
        began = time.monotonic()
        result = self.mp("apply", "--yes")
        assert result.code not in (0, CHANGES), result.text
        assert time.monotonic() - began < within_s, result.text
        for word in words:
            assert word in flat(result.out), result.text
        return result


def flat(text: str) -> str:
    """Without the line breaks that long texts get."""
    return " ".join(text.split())


def until(
    asked: Callable[[], Any], within_s: float = SOON_S, pause_s: float = 0.5
) -> Any:  # Any: whatever is found
    deadline = time.monotonic() + within_s
    while not (found := asked()):
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(pause_s)
    return found


@pytest.fixture(scope="module")
def acme(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    folder = tmp_path_factory.mktemp("acme")
    shutil.copytree(CHECKPOINT, folder / "weights")
    (folder / "weights" / "answer.txt").write_text("the sky is blue")
    registry = RealRegistry(tmp_path_factory.mktemp("registry"), everywhere=True)
    registry.start()
    host = f"{cluster.node_address()}:{registry.port}"
    cluster.speaks_http(host)
    push_tiny_engine(Registry("main", url=f"{registry.host}/acme"), ENGINE)
    write_lock(folder / "models.lock", Lock({}, {engine_key(ENGINE, PLATFORM): ENGINE}))
    storage = tmp_path_factory.mktemp("volumes")
    for above in storage.parents[:3]:
        above.chmod(0o755)
    storage.chmod(0o755)
    with cluster.namespace() as namespace:
        environ = {"KUBECONFIG": str(cluster.kubeconfig), "NO_COLOR": "1"}
        made = Acme(
            Project(folder, folder / "cache", environ), cluster, namespace, storage, namespace, registry
        )
        made.project.write(manifest_of(namespace, cluster.context, host))
        try:
            made.volume()
            made.first = made.mp("apply", "--yes")
            assert made.first.code == 0, made.first.text
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


@pytest.fixture
def restored(acme: Acme) -> Iterator[Acme]:
    """The project as it was first applied, also after a test that changed it."""
    manifest, weights = acme.project.manifest, acme.project.folder / "weights"
    kept = acme.project.folder / "kept"
    shutil.copytree(weights, kept)
    yield acme
    shutil.rmtree(weights)
    kept.rename(weights)
    acme.project.write(manifest)
    acme.volume()
    acme.project.applied()


def test_claim_is_filled_and_its_pod_answers_and_then_nothing_is_to_do(acme: Acme) -> None:
    assert acme.first is not None
    assert "the sky is blue" in acme.first.out
    acme.nothing_to_do()
    assert acme.claims() == {acme.mounted()}
    files = sorted(path.name for path in (acme.folders[0] / "models").iterdir())
    assert files == sorted(path.name for path in (acme.project.folder / "weights").iterdir())


def test_server_cannot_write_its_weights(acme: Acme) -> None:
    (container,) = acme.pod()["spec"]["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "weights"]
    assert mount["readOnly"] is True


def test_new_version_is_filled_beside_the_old_one_also_when_its_pod_is_killed(restored: Acme) -> None:
    before = restored.claims()
    weights = restored.project.folder / "weights"
    (weights / "answer.txt").write_text("deep blue")
    (weights / "extra.safetensors").write_bytes(safetensors(400 * 2**20))
    restored.volume()
    running = restored.applying()
    until(lambda: any(map(_has_begun, restored.folders)), 150, 0.005)
    os.kill(until(_filler, 5, 0.001), signal.SIGKILL)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    made = restored.get("events", "--field-selector=involvedObject.kind=Job,reason=SuccessfulCreate")["items"]
    jobs = [one["involvedObject"]["name"] for one in made]
    assert max(map(jobs.count, jobs)) == 2  # pods of one Job
    assert "deep blue" in flat(said)
    assert restored.claims() == {restored.mounted()}
    assert restored.claims() & before == set()
    restored.nothing_to_do()
    restored.volume()
    back = restored.mp("rollback", "tiny", "--yes")
    assert back.code == 0, back.text
    assert "the sky is blue" in back.out
    assert restored.claims() == before


def test_wrong_bytes_are_named_and_the_old_version_serves_on(restored: Acme) -> None:
    before, claims = restored.pod()["metadata"]["uid"], restored.claims()
    restored.project.write(restored.with_claim(access_mode="ReadWriteMany"))
    restored.volume()
    with spoilt(restored.registry, b"the sky is blue", b"the sky is grey"):
        restored.failed('"answer.txt" has sha256', "last good version serves again")
    assert restored.pod()["metadata"]["uid"] == before
    assert restored.claims() == claims


@pytest.mark.slow
def test_storage_that_nobody_makes_is_named(restored: Acme) -> None:
    before, claims = restored.pod()["metadata"]["uid"], restored.claims()
    restored.project.write(restored.with_claim(storage_class="nowhere"))
    restored.failed('"nowhere" not found', "last good version serves again")
    assert restored.pod()["metadata"]["uid"] == before
    assert restored.claims() == claims


def test_full_disk_is_named(restored: Acme, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        restored.volume(tmp_path, storage_class=f"{restored.storage_class}-full")
        restored.project.write(restored.with_claim(storage_class=f"{restored.storage_class}-full"))
        restored.failed("is full", "last good version serves again")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.slow
def test_claim_that_was_deleted_is_drift_and_is_filled_again(restored: Acme) -> None:
    claim = restored.mounted()
    restored.kubectl("delete", "pvc", claim, "--wait=false")
    drift = restored.mp("drift")
    assert drift.code == CHANGES, drift.text
    assert "claim removed" in flat(drift.out)
    restored.failed(f"claim {claim} is being deleted")
    restored.kubectl("delete", "deployment", "tiny")
    until(lambda: claim not in restored.names("pvc"))
    restored.volume()
    restored.project.applied()
    restored.nothing_to_do()
    assert restored.mounted() == claim


@pytest.mark.slow
def test_claim_of_somebody_else_is_mounted_and_stays(restored: Acme) -> None:
    folder = restored.volume()
    shutil.copytree(restored.project.folder / "weights", folder / "deep" / "tiny")
    spec = {
        "storageClassName": restored.storage_class,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": folder.name,
    }
    made = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "shared"}, "spec": spec}
    restored.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    manifest = copy.deepcopy(restored.project.manifest)
    prod = manifest["models"]["tiny"]["targets"]["prod"]
    prod["claim"] = {"name": "shared", "path": "deep/tiny"}
    restored.project.write(manifest)
    assert "the sky is blue" in restored.project.applied().out
    assert restored.claims() == {"shared"}
    restored.nothing_to_do()


def test_destroy_takes_the_claim_too(acme: Acme) -> None:
    """The last one: nothing is there afterwards."""
    gone = acme.mp("destroy", "--all", "--yes")
    assert gone.code == 0, gone.text
    assert acme.claims() <= {"shared"}


@pytest.mark.slow
def test_job_whose_pods_nobody_may_make_is_named(cluster: RealCluster) -> None:
    server = Cluster(cluster.context, {"KUBECONFIG": str(cluster.kubeconfig)})
    with cluster.namespace() as namespace:
        made = deployment(**{**DEPLOYMENTS["claim"], "spec": {"namespace": namespace}})
        assert made.desired.recipe is not None
        ((key, task),) = made.desired.recipe.tasks.items()
        claim = made.desired.objects[key]
        assert isinstance(claim, dict)
        filling = Filling(server, "qwen", namespace, lambda text: None)
        with pytest.raises(StartFailed, match=r'FailedCreate: .*serviceaccount "qwen" not found'):
            filling.bring(claim, objects_of(task), {})


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


def _has_begun(folder: Path) -> bool:
    """Whether a file in a volume is there in part."""
    return any(part.stat().st_size > 2**20 for part in (folder / "models").glob(".mp-part-*"))


def _filler() -> int | None:
    """The process of a pod that fills a claim: the node is this machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if PROGRAM in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    return None
