"""From models.yaml to pods that answer, on a real node, by the command line: and what happens on a bad day.

One project is applied once. Every test uses that one and leaves it as it was.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.image import Registry
from pipeline.manifest.lock import engine_key, read_lock, write_lock
from tests.parts.acme import CHANGES, ENGINES, PARTLY, REFUSED, Acme, manifest_of
from tests.parts.cluster import RealCluster
from tests.parts.project import flat
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM
from tests.parts.tiny_project import tiny_project

pytestmark = [pytest.mark.cluster, pytest.mark.registry]


@pytest.fixture(scope="module")
def acme(
    cluster: RealCluster, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Acme]:
    place = Registry("main", url=f"{registry.host}/acme")
    with tiny_project(cluster, place, tmp_path_factory.mktemp("acme"), *ENGINES) as (project, namespace):
        project.write(manifest_of(namespace, cluster.context, registry.host))
        first = project.mp("apply", "--yes")
        assert first.code == 0, first.text
        yield Acme(project, cluster, namespace, first)


@pytest.fixture
def restored(acme: Acme) -> Iterator[Acme]:
    """The project as it was first applied, also after a test that changed it."""
    manifest = acme.project.manifest
    yield acme
    acme.project.write(manifest)
    acme.project.applied()


def test_both_ways_of_weights_answer_a_request_and_then_nothing_is_to_do(acme: Acme) -> None:
    assert acme.first.out.count("the sky is blue") == 2
    acme.nothing_to_do()
    container = acme.pod()["spec"]["containers"][0]
    assert "@sha256:" in container["image"]
    volumes = {one["name"]: one for one in acme.pod("mounted")["spec"]["volumes"]}
    assert "@sha256:" in volumes["weights"]["image"]["reference"]


def test_deployment_that_was_deleted_is_missing_and_made_again(acme: Acme) -> None:
    acme.kubectl("delete", "deployment", "tiny")
    acme.drifted("Deployment")
    acme.project.applied()
    acme.nothing_to_do()


def test_everything_that_was_deleted_is_made_again(acme: Acme) -> None:
    acme.kubectl("delete", "all,configmap,serviceaccount", "-l", "app.kubernetes.io/instance=tiny")
    acme.drifted("tiny/kubernetes:prod")
    acme.project.applied()
    acme.nothing_to_do()


def test_edit_by_hand_is_drift_in_that_field_and_is_put_back(acme: Acme) -> None:
    path = "/spec/template/spec/terminationGracePeriodSeconds"
    patch = [{"op": "replace", "path": path, "value": 45}]
    acme.kubectl("patch", "deployment", "tiny", "--type=json", "-p", json.dumps(patch))
    acme.drifted("terminationGracePeriodSeconds", "45")
    acme.project.applied()
    acme.nothing_to_do()
    assert acme.pod()["spec"]["terminationGracePeriodSeconds"] != 45


def test_scaling_by_hand_is_drift_and_the_first_pod_stays(acme: Acme) -> None:
    before = acme.pod()["metadata"]["uid"]
    acme.kubectl("scale", "deployment", "tiny", "--replicas=2")
    acme.drifted("replicas")
    acme.project.applied()
    acme.nothing_to_do()
    assert acme.pod()["metadata"]["uid"] == before


def test_wrong_image_by_hand_is_drift_with_the_kubelets_reason_and_the_old_pod_serves(acme: Acme) -> None:
    before = acme.pod()
    acme.kubectl("set", "image", "deployment/tiny", "server=127.0.0.1:1/acme/nothing:here")
    acme.drifted_soon("nothing:here", "ErrImagePull")
    acme.project.applied()
    acme.nothing_to_do()
    assert acme.pod()["metadata"]["uid"] == before["metadata"]["uid"]


def test_memory_taken_away_by_hand_is_drift_with_the_kernels_reason_and_the_old_pod_serves(
    acme: Acme,
) -> None:
    before = acme.pod()
    less = "memory=12Mi"  # Python starts, and needs more
    acme.kubectl("set", "resources", "deployment/tiny", f"--limits={less}", f"--requests={less}")
    acme.drifted_soon("memory 256Mi → 12Mi", "OOMKilled")
    assert "added spec" not in acme.mp("plan").out, "a value of mp's own is drift, and nothing that was added"
    acme.project.applied()
    acme.nothing_to_do()
    assert acme.pod()["metadata"]["uid"] == before["metadata"]["uid"]


def test_variable_added_by_hand_is_named_with_who_added_it_and_stays(acme: Acme) -> None:
    acme.kubectl("set", "env", "deployment/tiny", "WHO=me")
    try:
        planned = acme.mp("plan")
        assert "kubectl-set added spec.template.spec.containers[server].env[WHO] to Deployment/tiny" in flat(
            planned.out
        ), planned.text
    finally:
        acme.kubectl("set", "env", "deployment/tiny", "WHO-")
        acme.project.applied()
    assert "added spec" not in acme.mp("plan").out
    acme.nothing_to_do()


def test_version_that_crashes_goes_back_to_the_last_good_one_which_never_stopped(restored: Acme) -> None:
    before, objects = restored.pod(), restored.names()
    crash = {"TINY_ARGV": "--crash 'ValueError: no such head'"}
    restored.project.write(restored.with_tiny(env=crash))
    with restored.always_answered():
        restored.failed("exit code 1", "ValueError: no such head", "last good version serves again")
    assert restored.pod()["metadata"]["uid"] == before["metadata"]["uid"]
    assert "tiny" in restored.said(restored.pod())
    assert restored.names() == objects
    assert restored.mp("plan", "--detailed-exitcode").code == CHANGES
    restored.failed("ValueError: no such head")
    assert restored.pod()["metadata"]["uid"] == before["metadata"]["uid"]


def test_version_that_needs_more_memory_than_its_limit_is_named(restored: Acme) -> None:
    before = restored.pod()
    restored.project.write(restored.with_tiny(env={"TINY_ARGV": "--eat 600"}))
    restored.failed("OOMKilled", "last good version serves again")
    assert restored.pod()["metadata"]["uid"] == before["metadata"]["uid"]


def test_version_that_answers_wrongly_goes_back(restored: Acme) -> None:
    before = restored.pod()["spec"]["containers"][0]["image"]
    wrong = [{"prompt": "what is blue?", "expect": {"contains": "green"}}]
    restored.project.write(restored.with_tiny(env={"OTHER": "yes"}, test=wrong))
    restored.failed('without "green"', "last good version serves again", within_s=150)
    assert restored.pod()["spec"]["containers"][0]["image"] == before


def test_without_a_request_a_version_whose_pods_are_ready_is_the_last_good_one(restored: Acme) -> None:
    skipped = {"prod": {"prove": "skip"}}
    restored.project.write(restored.with_tiny(env={"COLOUR": "blue"}, targets=skipped))
    restored.project.applied()
    second = restored.names()
    crash = {"TINY_ARGV": "--crash 'ValueError: no such head'"}
    restored.project.write(restored.with_tiny(env=crash, targets=skipped))
    restored.failed("ValueError: no such head", "last good version serves again")
    assert restored.names() == second


def test_cluster_under_another_context_is_the_same_and_nothing_moves(restored: Acme) -> None:
    before = restored.pod()["metadata"]["uid"]
    manifest = copy.deepcopy(restored.project.manifest)
    del manifest["targets"]["prod"]["context"]  # the current one: the same
    restored.project.write(manifest)
    restored.project.applied()
    restored.nothing_to_do()
    assert restored.pod()["metadata"]["uid"] == before


def test_failed_version_that_is_held_is_shown_with_its_reason(restored: Acme) -> None:
    held = {"prod": {"rollout": {"on_failure": "hold"}}}
    crash = {"TINY_ARGV": "--crash 'ValueError: no such head'"}
    restored.project.write(restored.with_tiny(env=crash, targets=held))
    restored.failed("ValueError: no such head")
    planned = restored.mp("plan", "--detailed-exitcode")
    assert planned.code == CHANGES
    assert "the server ended with exit code 1" in flat(planned.out), planned.text


def declare_huge(acme: Acme) -> None:
    """A third model, on a GPU."""
    manifest = copy.deepcopy(acme.project.manifest)
    manifest["models"]["huge"] = {**manifest["models"]["tiny"], "hardware": "gpu"}
    acme.project.write(manifest)
    file = acme.project.folder / "models.lock"
    lock = read_lock(file)  # it holds the engines that are used
    write_lock(file, replace(lock, engines={**lock.engines, engine_key(ENGINES[1], PLATFORM): ENGINES[1]}))


@pytest.fixture
def one_gpu(cluster: RealCluster) -> Iterator[None]:
    """The node says that it has one; the pods of these tests do not look for it."""
    (node,) = cluster.kubectl("get", "nodes", "-o", "name").split()
    paths = [f"/status/{where}/nvidia.com~1gpu" for where in ("capacity", "allocatable")]
    label = "nvidia.com/gpu.product"

    def patch(*operations: dict[str, str]) -> None:
        words = ("patch", node, "--subresource=status", "--type=json", "-p", json.dumps(operations))
        cluster.kubectl(*words)

    cluster.kubectl("label", node, f"{label}=NVIDIA-L40S")
    patch(*({"op": "add", "path": path, "value": "1"} for path in paths))
    yield
    patch(*({"op": "remove", "path": path} for path in paths))
    cluster.kubectl("label", node, f"{label}-")


@pytest.mark.slow
def test_gpus_asked_for_by_hand_that_no_node_has_are_drift_in_the_schedulers_words_and_are_put_back(
    one_gpu: None, restored: Acme
) -> None:
    declare_huge(restored)
    restored.project.applied()
    more = "nvidia.com/gpu=2"
    restored.kubectl("set", "resources", "deployment/huge", f"--limits={more}", f"--requests={more}")
    restored.drifted_soon("nvidia.com/gpu 1 → 2", "Unschedulable: 0/1 nodes", "Insufficient nvidia.com/gpu")
    restored.project.applied()
    restored.nothing_to_do()
    assert restored.answered("huge")


def test_gpu_that_no_node_has_is_refused_before_anything_moves(restored: Acme) -> None:
    declare_huge(restored)
    restored.failed("huge: needs 1 × NVIDIA-L40S, and no node that it may go to has any", code=REFUSED)
    assert restored.names("huge") == set()


def test_pod_that_no_node_has_room_for_is_said_in_the_schedulers_words_and_nothing_is_left(
    restored: Acme,
) -> None:
    manifest = copy.deepcopy(restored.project.manifest)
    manifest["models"]["huge"] = {**manifest["models"]["tiny"], "targets": {"prod": {"memory": "9Ti"}}}
    restored.project.write(manifest)
    words = ("Unschedulable", "0/1 nodes are available", "nothing of it is left")
    restored.failed(*words, code=PARTLY)  # its image was made
    assert restored.names("huge") == set()


def test_secret_that_is_not_there_is_named(restored: Acme) -> None:
    manifest = restored.with_tiny(serve={"api_key": {"secret": "door"}})
    manifest["secrets"] = {"door": {"env": "DOOR", "kubernetes": {"name": "door", "key": "key"}}}
    restored.project.write(manifest)
    restored.failed('secret "door" is not in namespace', code=REFUSED)
    restored.kubectl("create", "secret", "generic", "door", "--from-literal=other=hush")
    restored.failed('has no key "key"', "its keys are: other", code=REFUSED)
    restored.kubectl("delete", "secret", "door")


def test_new_launch_rolls_over_and_takes_the_old_config_with_it(restored: Acme) -> None:
    before = restored.names()
    restored.project.write(restored.with_tiny(env={"COLOUR": "blue"}))
    restored.project.applied()
    restored.nothing_to_do()
    assert len(restored.names()) == len(before)
    assert restored.names() != before


def test_two_other_images_are_rolled_out_and_somebody_answers_at_every_moment(restored: Acme) -> None:
    file = restored.project.folder / "weights" / "answer.txt"
    images = {restored.pod()["spec"]["containers"][0]["image"]}
    try:
        with restored.always_answered():
            for text in ("at noon the sky is blue", "at dusk the sky is blue"):
                file.write_text(text)
                restored.project.applied()
                images.add(restored.pod()["spec"]["containers"][0]["image"])
    finally:
        file.write_text("the sky is blue")
    assert len(images) == 3


def test_second_replica_has_a_budget_that_goes_with_it(restored: Acme) -> None:
    one = restored.names()
    restored.project.write(restored.with_tiny(targets={"prod": {"replicas": 2}}))
    restored.project.applied()
    restored.nothing_to_do()
    assert restored.names() - one == {"PodDisruptionBudget/tiny"}
    restored.project.write(restored.with_tiny(targets={"prod": {}}))
    restored.project.applied()
    assert restored.names() == one


def test_copy_with_our_labels_is_nobodys_and_stays(restored: Acme) -> None:
    service = restored.get("service", "tiny")
    service["metadata"] = {
        "name": "tiny-copy",
        "labels": service["metadata"]["labels"],
        "annotations": service["metadata"]["annotations"],
    }
    service["spec"] = {"ports": service["spec"]["ports"], "selector": service["spec"]["selector"]}
    restored.kubectl("create", "-f", "-", stdin=json.dumps(service))
    restored.nothing_to_do()
    restored.project.write(restored.without("tiny"))
    restored.project.applied()
    assert restored.names() == {"Service/tiny-copy"}
    restored.kubectl("delete", "service", "tiny-copy")


def test_field_that_another_manager_declares_is_named_and_never_taken(acme: Acme) -> None:
    other = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tiny", "namespace": acme.namespace},
    }
    words = ("apply", "--server-side", "--field-manager=scaler", "-f", "-")
    wanted = {**other, "spec": {"replicas": 2}}
    acme.kubectl(*words, "--force-conflicts", stdin=json.dumps(wanted))
    result = acme.mp("apply", "--yes")
    assert result.code == REFUSED, result.text
    assert ".spec.replicas is managed by scaler" in flat(result.out + result.err), result.text
    assert acme.get("deployment", "tiny")["spec"]["replicas"] == 2
    acme.kubectl(*words, stdin=json.dumps(other))  # it lets go
    acme.project.applied()
    acme.nothing_to_do()
    assert acme.get("deployment", "tiny")["spec"]["replicas"] == 1


def test_object_of_that_name_that_is_not_ours_is_refused(restored: Acme) -> None:
    restored.kubectl("create", "service", "clusterip", "second", "--tcp=80:80")
    manifest = copy.deepcopy(restored.project.manifest)
    manifest["models"]["second"] = manifest["models"]["tiny"]
    restored.project.write(manifest)
    result = restored.mp("apply", "--yes")
    assert result.code == REFUSED, result.text
    assert "exists and is not ours" in flat(result.out + result.err)
    restored.kubectl("delete", "service", "second")


def test_api_that_does_not_answer_deletes_nothing(restored: Acme, tmp_path: Path) -> None:
    config = json.loads(restored.cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "away").write_text(json.dumps(config))
    restored.project.write(restored.without("tiny"))
    away = {"KUBECONFIG": str(tmp_path / "away")}
    result = restored.project.mp("apply", "--yes", environ=away)
    assert result.code != 0, result.text
    assert "connection refused" in flat(result.out + result.err), result.text
    assert "Deployment/tiny" in restored.names()
    restored.project.applied()
    assert restored.names() == set()


def test_account_that_may_only_read_can_plan_and_cannot_apply(restored: Acme, tmp_path: Path) -> None:
    file = restored.cluster.as_account(restored.namespace, "reader", "get,list", tmp_path)
    reader = {"KUBECONFIG": str(file)}
    assert restored.project.mp("plan", "--detailed-exitcode", environ=reader).code == 0
    restored.project.write(restored.with_tiny(targets={"prod": {"memory": "200Mi"}}))
    planned = restored.project.mp("plan", "--detailed-exitcode", environ=reader)
    assert planned.code == CHANGES, planned.text
    assert "200Mi" in planned.out
    result = restored.project.mp("apply", "--yes", environ=reader)
    assert result.code == REFUSED, result.text
    assert "this account may not create, delete, patch" in flat(result.out), result.text


def test_destroy_leaves_nothing(restored: Acme) -> None:
    gone = restored.mp("destroy", "--all", "--yes")
    assert gone.code == 0, gone.text
    assert restored.names() == set()
    assert restored.names("mounted") == set()
