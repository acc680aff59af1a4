"""Weights in claims, on a real node: a Job fills them before pods mount them, and what happens on a bad day.

One project is applied once. Every test uses that one and leaves it as it was.
"""

import copy
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clients.kube import Cluster
from pipeline.core.errors import StartFailed
from pipeline.resources.cluster.filling import Filling, objects_of
from tests.parts.claims import (
    CHANGES,
    Acme,
    a_project,
    safetensors,
    spoilt,
    until,
)
from tests.parts.cluster import RealCluster
from tests.parts.deployments import DEPLOYMENTS, deployment
from tests.parts.project import flat

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.registry,
    pytest.mark.skipif("MP_TEST_KUBECONFIG" in os.environ, reason="its node is another machine"),
]


@pytest.fixture(scope="module")
def acme(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    with a_project(cluster, tmp_path_factory) as made:
        made.volume()
        made.first = made.mp("apply", "--yes")
        assert made.first.code == 0, made.first.text
        yield made


@pytest.fixture
def restored(acme: Acme) -> Iterator[Acme]:
    """The project as it was first applied, also after a test that changed it."""
    with acme.undone():
        yield acme
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
    os.kill(until(restored.filler, 5, 0.001), signal.SIGKILL)
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


def _has_begun(folder: Path) -> bool:
    """Whether a file in a volume is there in part."""
    return any(part.stat().st_size > 2**20 for part in (folder / "models").glob(".mp-part-*"))
