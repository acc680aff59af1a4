"""Replicas that each own a volume, on a real node: what their StatefulSet does on a good day and on a bad one.

One project is applied once. Every test uses that one and leaves it as it was.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.claims import CHANGES, Acme, a_project, safetensors, spoilt, until
from tests.parts.cluster import RealCluster
from tests.parts.project import flat

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.registry,
    pytest.mark.skipif("MP_TEST_KUBECONFIG" in os.environ, reason="its node is another machine"),
]

BOTH = {"weights-tiny-0", "weights-tiny-1"}
SLOW_S = 150


@pytest.fixture(scope="module")
def acme(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    with a_project(cluster, tmp_path_factory) as made:
        manifest = made.project.manifest
        manifest["models"]["tiny"]["targets"]["prod"] |= {"replicas": 2}
        made.project.write(manifest)
        made.volume()
        made.volume()
        made.first = made.mp("apply", "--yes")
        assert made.first.code == 0, made.first.text
        yield made


@pytest.fixture
def restored(acme: Acme) -> Iterator[Acme]:
    with acme.undone():
        yield acme
    acme.project.applied()


def changed(acme: Acme, **options: Any) -> None:
    manifest = acme.with_claim()
    manifest["models"]["tiny"]["targets"]["prod"] |= options
    acme.project.write(manifest)


def uids(acme: Acme) -> dict[str, str]:
    """Of the pods that stay."""
    found = acme.get("pods", "-l", "app.kubernetes.io/instance=tiny")["items"]
    staying = [one["metadata"] for one in found if "deletionTimestamp" not in one["metadata"]]
    return {one["name"]: one["uid"] for one in staying}


def versions(acme: Acme) -> list[list[str]]:
    """The folders of each volume that is in use."""
    used = [one["spec"]["volumeName"] for one in acme.get("pvc")["items"]]
    folders = [folder for folder in acme.folders if folder.name in used]
    return [sorted(one.name for one in folder.iterdir()) for folder in folders]


def test_each_replica_fills_a_volume_of_its_own_and_then_nothing_is_to_do(acme: Acme) -> None:
    assert acme.first is not None
    assert "the sky is blue" in acme.first.out
    assert acme.claims() == BOTH
    assert set(uids(acme)) == {"tiny-0", "tiny-1"}
    assert [len(each) for each in versions(acme)] == [1, 1]
    acme.nothing_to_do()


def test_a_pod_that_comes_again_finds_its_weights(restored: Acme) -> None:
    folder = next(iter(restored.folders))
    (file,) = folder.glob("models-*/answer.txt")
    before = file.stat().st_mtime_ns
    restored.kubectl("delete", "pod", "tiny-0", "tiny-1", "--grace-period=1")
    until(lambda: restored.mp("drift").code == 0, SLOW_S)
    assert file.stat().st_mtime_ns == before
    assert restored.claims() == BOTH


@pytest.mark.slow
def test_new_version_takes_the_place_of_the_old_one_also_when_its_filler_is_killed(restored: Acme) -> None:
    before = versions(restored)
    weights = restored.project.folder / "weights"
    (weights / "answer.txt").write_text("deep blue")
    (weights / "extra.safetensors").write_bytes(safetensors(200 * 2**20))
    running = restored.applying()
    os.kill(until(restored.filler, SLOW_S, 0.005), signal.SIGKILL)
    said, _ = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert "deep blue" in flat(said)
    after = versions(restored)
    assert [len(each) for each in after] == [1, 1]
    assert after != before
    restored.nothing_to_do()
    back = restored.mp("rollback", "tiny", "--yes")
    assert back.code == 0, back.text
    assert "the sky is blue" in back.out
    assert versions(restored) == before


def test_wrong_bytes_are_named_and_the_other_replica_serves_on(restored: Acme) -> None:
    before = uids(restored)
    weights = restored.project.folder / "weights"
    (weights / "answer.txt").write_text("very far away")
    restored.project.mp("apply", "--yes", "--build-only")
    with spoilt(restored.registry, b"very far away", b"very far astray"[:13]):
        restored.failed('"answer.txt" has sha256', "last good version serves again", within_s=SLOW_S)
    assert uids(restored)["tiny-0"] == before["tiny-0"]
    assert all(len(each) == 1 for each in versions(restored))


def test_what_is_changed_by_hand_is_put_back(restored: Acme) -> None:
    restored.kubectl("scale", "statefulset", "tiny", "--replicas=1")
    drift = restored.mp("drift")
    assert drift.code == CHANGES, drift.text
    assert "replicas" in drift.out
    until(lambda: restored.claims() == {"weights-tiny-0"}, SLOW_S)
    restored.volume()
    restored.project.applied()
    assert restored.claims() == BOTH
    restored.nothing_to_do()


def test_fewer_replicas_take_their_volumes_along_and_the_plan_says_so(restored: Acme) -> None:
    before = uids(restored)["tiny-0"]
    changed(restored, replicas=1, claim={**claim_of(restored), "per": "replica"})
    planned = restored.mp("plan")
    assert "1 volume goes with what is in it: weights-tiny-1" in flat(planned.out), planned.text
    restored.project.applied()
    until(lambda: restored.claims() == {"weights-tiny-0"}, SLOW_S)
    assert uids(restored) == {"tiny-0": before}
    restored.nothing_to_do()
    restored.volume()


@pytest.mark.slow
def test_one_replica_and_several_are_two_forms_and_what_one_leaves_goes_with_the_other(
    restored: Acme,
) -> None:
    for _ in range(7):  # for a claim, two replicas that fail, and two that serve
        restored.volume()
    changed(restored, replicas=1)
    drift = restored.mp("drift")
    assert drift.code == 0, f"what models.yaml changed is no drift\n{drift.text}"
    planned = restored.mp("plan")
    assert "2 volumes go with what is in it" in flat(planned.out), planned.text
    assert "Drift" not in planned.out, planned.text
    restored.project.applied()
    until(lambda: len(restored.claims()) == 1, SLOW_S)
    (claim,) = restored.claims()
    assert claim.startswith("tiny-weights-")
    restored.nothing_to_do()

    manifest = restored.with_claim()
    manifest["models"]["tiny"]["targets"]["prod"] |= {"replicas": 2}
    test = manifest["models"]["tiny"]["test"]
    manifest["models"]["tiny"]["test"] = [{"prompt": "what is blue?", "expect": {"contains": "green"}}]
    restored.project.write(manifest)
    restored.failed("last good version serves again", within_s=SLOW_S)
    until(lambda: restored.claims() == {claim}, SLOW_S)
    manifest["models"]["tiny"]["test"] = test
    restored.project.write(manifest)
    restored.project.applied()
    until(lambda: restored.claims() == BOTH, SLOW_S)
    restored.nothing_to_do()


@pytest.mark.slow
def test_another_storage_class_is_another_set_and_the_plan_names_what_goes(restored: Acme) -> None:
    manifest = restored.with_claim(storage_class=f"{restored.storage_class}-other")
    restored.project.write(manifest)
    for _ in range(2):
        restored.volume(storage_class=f"{restored.storage_class}-other")
    planned = restored.mp("plan")
    assert "2 volumes go with what is in it" in flat(planned.out), planned.text
    assert "1 to replace" in planned.out
    restored.project.applied()
    assert {one["spec"]["storageClassName"] for one in restored.get("pvc")["items"]} == {
        f"{restored.storage_class}-other"
    }
    restored.nothing_to_do()
    restored.volume()
    restored.volume()


@pytest.mark.slow
def test_storage_that_nobody_makes_and_full_disks_are_named(restored: Acme, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    small = f"{restored.storage_class}-full"
    try:
        manifest = restored.with_claim(storage_class=small)
        second = manifest["models"]["second"] = manifest["models"]["tiny"]
        manifest["models"]["tiny"] = restored.project.manifest["models"]["tiny"]
        second["targets"]["prod"] |= {"replicas": 1}
        second["targets"]["prod"]["claim"] |= {"per": "replica"}
        restored.project.write(manifest)
        restored.volume(tmp_path, storage_class=small)
        restored.failed("is full", "nothing of it is left in the cluster", within_s=SLOW_S)
        second["targets"]["prod"]["claim"] |= {"storage_class": "nowhere"}
        restored.project.write(manifest)
        restored.failed('"nowhere" not found', "nothing of it is left in the cluster", within_s=SLOW_S)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_destroy_says_which_volumes_go_and_takes_them(acme: Acme) -> None:
    """The last one: nothing is there afterwards."""
    gone = acme.mp("destroy", "--all", "--yes")
    assert gone.code == 0, gone.text
    assert "2 volumes go with what is in it: weights-tiny-0, weights-tiny-1" in flat(gone.text)
    assert acme.claims() == set()


def claim_of(acme: Acme) -> dict[str, str]:
    found: dict[str, str] = acme.project.manifest["models"]["tiny"]["targets"]["prod"]["claim"]
    return found
