"""Sixty Deployments that others made: imported, watched, taken over without a restart, and what stays whose it is.

The nodes are simulated: their pods are ready at once, and a pod that is made anew has another uid.
"""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.parts.cluster import RealCluster
from tests.parts.fleet import Fleet, fleet_of, model_name
from tests.parts.project import Manifest, Project, Result
from tests.parts.registry import RealRegistry

pytestmark = pytest.mark.cluster

COUNT = 60
CHANGES, REFUSED = 2, 4
OURS = "dev.mp."
Object = dict[str, Any]  # Any: an object of the API


def foreign(number: int) -> Object:
    """A Deployment as somebody wrote it by hand: every third has two GPUs, every fourth a sidecar."""
    name = f"llm-{number:02d}"
    server: Object = {
        "name": "vllm",
        "image": f"registry.example/vllm/vllm-openai:v0.9.{number % 3}",
        "args": ["--model", f"acme/model-{number}", "--max-model-len", "4096"],
        "env": [
            {"name": "VLLM_LOGGING_LEVEL", "value": "INFO"},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "EMPTY", "value": ""},
            {"name": "DOOR_PASSWORD", "value": "open-sesame"},
        ],
        "ports": [{"containerPort": 8000}],
        "resources": {"limits": {"memory": "4096Mi"}, "requests": {"cpu": "100m"}},
    }
    pod: Object = {"containers": [server]}
    if number % 3 == 0:
        server["resources"]["limits"]["nvidia.com/gpu"] = 2
        pod["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    if number % 4 == 0:
        pod["containers"].insert(0, {"name": "logs", "image": "registry.example/logs:1"})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name, "app.kubernetes.io/managed-by": "Helm"}},
        "spec": {
            "replicas": 1 + number % 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


@dataclass
class Town:
    """A project beside what others run in the same namespace."""

    project: Project
    cluster: RealCluster
    namespace: str

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, *what: str) -> Any:  # Any: an object of the API
        return self.cluster.get(self.namespace, *what)

    def uids(self) -> set[str]:
        """Of every pod that stays."""
        pods = self.get("pods")["items"]
        return {one["metadata"]["uid"] for one in pods if "deletionTimestamp" not in one["metadata"]}

    def settled(self) -> None:
        """Until every Deployment has its pods."""
        deadline = time.monotonic() + 120
        while not all(map(_has_its_pods, self.get("deployments")["items"])):
            assert time.monotonic() < deadline, "pods are not ready"
            time.sleep(0.5)

    def deployments(self) -> dict[str, Object]:
        """By name, without what changes by itself."""
        found = self.get("deployments", "--show-managed-fields=false")["items"]
        for one in found:
            one.pop("status", None)
            one["metadata"].pop("resourceVersion")
            one["metadata"].pop("generation")  # of a Deployment it counts changes of annotations, too
        return {one["metadata"]["name"]: one for one in found}

    def manifest(self) -> Manifest:
        found: Manifest = yaml.safe_load((self.project.folder / "models.yaml").read_text())
        return found

    def declare(self, *names: str, **changes: Any) -> Manifest:
        """Entries that manage instead of watching; `changes` are made to their options."""
        manifest = self.manifest()
        for name in names or manifest["models"]:
            options = manifest["models"][name]["targets"]["prod"]
            options.pop("manage", None)
            options |= changes
        self.project.write(manifest)
        return manifest

    def plan(self, *words: str) -> Result:
        return self.project.mp("plan", "--detailed-exitcode", *words)

    def nothing_to_do(self) -> None:
        planned = self.plan()
        assert planned.code == 0, planned.text


def _has_its_pods(one: Object) -> bool:
    status = one.get("status") or {}
    return bool(status.get("availableReplicas") == status.get("updatedReplicas") == one["spec"]["replicas"])


def flat(text: str) -> str:
    """Without the line breaks that long texts get."""
    return " ".join(text.split())


def town_of(cluster: RealCluster, namespace: str, folder: Path) -> Town:
    project = Project(folder, folder / "cache", {"KUBECONFIG": str(cluster.kubeconfig), "NO_COLOR": "1"})
    target = {"kind": "kubernetes", "context": cluster.context, "namespace": namespace}
    head: Manifest = {
        "version": 1,
        "project": "acme",
        "hardware": {"l4x2": {"gpu": "L4", "gpus": 2}},
        "targets": {"prod": target},
        "models": {},
    }
    text = yaml.safe_dump(head, sort_keys=False).replace("models: {}\n", "models:\n")
    (folder / "models.yaml").write_text(f"# written by hand\n{text}")
    return Town(project, cluster, namespace)


@pytest.fixture(scope="module")
def town(simulated: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Sixty Deployments made in three ways, imported and taken over once."""
    with simulated.namespace() as namespace:
        made = town_of(simulated, namespace, tmp_path_factory.mktemp("town"))
        ways = (
            ("apply", "-f", "-"),
            ("create", "-f", "-"),
            ("apply", "--server-side", "--field-manager=helm", "-f", "-"),
        )
        for turn, way in enumerate(ways):
            items = [foreign(number) for number in range(COUNT) if number % len(ways) == turn]
            made.kubectl(*way, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        made.settled()
        yield made


@pytest.fixture(scope="module")
def taken(town: Town) -> Town:
    """The story of all of them; what it leaves is what the other tests begin with."""
    before, uids = town.deployments(), town.uids()

    shown = town.project.mp("import", "kubernetes", "prod")
    assert shown.code == 0, shown.text
    assert set(yaml.safe_load(shown.out)["models"]) == before.keys()
    assert "open-sesame" not in shown.text
    done = town.project.mp("import", "kubernetes", "prod", "--add")
    assert done.code == 0, done.text
    assert (town.project.folder / "models.yaml").read_text().startswith("# written by hand\n")
    assert town.project.mp("import", "kubernetes", "prod", "--add").err.startswith("nothing to import")

    entry = town.manifest()["models"]["llm-00"]
    assert entry["source"] == "hf://acme/model-0"
    assert entry["hardware"] == "l4x2"
    assert entry["targets"]["prod"]["runs"]["container"] == "vllm"
    assert list(entry["env"]) == ["VLLM_LOGGING_LEVEL", "HF_TOKEN", "EMPTY"]

    town.nothing_to_do()  # they are only watched
    drift = town.project.mp("drift")
    assert drift.code == 0, drift.text
    town.project.applied()
    assert town.deployments() == before

    town.declare()
    refused = town.plan()
    assert refused.code == REFUSED, refused.text
    assert "exists and is not ours" in flat(refused.out)
    adopting = town.plan("--adopt")
    assert adopting.code == CHANGES, adopting.text
    assert f"{COUNT} to adopt" in flat(adopting.out), adopting.out
    town.project.applied("--adopt")

    after = town.deployments()
    assert town.uids() == uids
    for name, one in after.items():
        annotations = one["metadata"]["annotations"]
        marks = {key for key in annotations if key.startswith(OURS)}
        assert marks, name
        for key in marks:
            del annotations[key]
        if not annotations and "annotations" not in before[name]["metadata"]:
            del one["metadata"]["annotations"]
        assert one == before[name]
    town.nothing_to_do()
    return town


@pytest.fixture
def restored(taken: Town) -> Iterator[Town]:
    """The project as it was after everything was taken over, also after a test that changed it."""
    manifest = taken.manifest()
    yield taken
    taken.project.write(manifest)
    taken.project.applied()
    taken.nothing_to_do()


def test_sixty_deployments_are_taken_over_and_no_pod_is_made_anew(taken: Town) -> None:
    taken.nothing_to_do()


def test_plan_of_what_was_taken_over_asks_once_a_kind_and_changes_nothing(taken: Town) -> None:
    before = len(taken.cluster.requests("mp"))
    taken.nothing_to_do()
    asked = taken.cluster.requests("mp")[before:]
    assert not [one for one in asked if one.startswith("patch ")], asked
    assert len(asked) < COUNT / 2, asked


def test_what_was_taken_over_is_changed_in_place(restored: Town) -> None:
    manifest = restored.manifest()
    runs = manifest["models"]["llm-01"]["targets"]["prod"]["runs"]
    runs["args"][-1] = "8192"
    restored.project.write(manifest)
    planned = restored.plan()
    assert "8192" in planned.out, planned.text
    restored.project.applied()
    restored.nothing_to_do()
    container = restored.get("deployment", "llm-01")["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][-1] == "8192"
    assert [one["name"] for one in container["env"]].count("POD_IP") == 1


def test_hand_made_changes_are_drift_and_put_back(restored: Town) -> None:
    restored.kubectl("scale", "deployment", "llm-02", "--replicas=4")
    drift = restored.project.mp("drift")
    assert drift.code == CHANGES, drift.text
    assert "replicas" in drift.out
    restored.project.applied()
    assert restored.get("deployment", "llm-02")["spec"]["replicas"] == 1


def test_what_is_deleted_can_only_be_made_by_who_made_it(restored: Town) -> None:
    restored.kubectl("delete", "deployment", "llm-05")
    planned = restored.plan()
    assert planned.code == 1, planned.text
    assert "there is no Deployment/llm-05" in flat(planned.out)
    restored.kubectl("create", "-f", "-", stdin=json.dumps(foreign(5)))
    restored.settled()
    restored.project.applied("--adopt")


def test_changed_template_is_refused_with_its_fields_unless_asked_for(restored: Town) -> None:
    extra = foreign(70)
    restored.kubectl("apply", "-f", "-", stdin=json.dumps(extra))
    restored.settled()
    assert restored.project.mp("import", "kubernetes", "prod", "llm-70", "--add").code == 0
    manifest = restored.declare("llm-70")
    manifest["models"]["llm-70"]["targets"]["prod"]["runs"]["image"] = "registry.example/vllm/vllm-openai:v1"
    restored.project.write(manifest)
    uids = restored.uids()
    refused = restored.project.mp("apply", "--yes", "--adopt")
    assert refused.code == REFUSED, refused.text
    assert "image vllm-openai:v0.9.1 → v1" in flat(refused.out), refused.out
    assert restored.uids() == uids
    assert "annotations" not in restored.get("deployment", "llm-70")["metadata"] or not any(
        key.startswith(OURS) for key in restored.get("deployment", "llm-70")["metadata"]["annotations"]
    )
    restored.project.applied("--adopt-restart")
    restored.nothing_to_do()
    assert restored.uids() != uids


def test_entry_that_is_removed_takes_its_deployment_with_it_and_no_copy(restored: Town) -> None:
    one = foreign(71)
    restored.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    assert restored.project.mp("import", "kubernetes", "prod", "llm-71", "--add").code == 0
    restored.declare("llm-71")
    restored.settled()
    restored.project.applied("--adopt")
    copied = restored.get("deployment", "llm-71")
    for key in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
        copied["metadata"].pop(key, None)
    copied.pop("status")
    copied["metadata"]["name"] = "llm-71-copy"
    restored.kubectl("create", "-f", "-", stdin=json.dumps(copied))
    manifest = restored.manifest()
    del manifest["models"]["llm-71"]
    restored.project.write(manifest)
    restored.project.applied()
    names = restored.deployments().keys()
    assert "llm-71" not in names
    assert "llm-71-copy" in names
    restored.kubectl("delete", "deployment", "llm-71-copy")


def test_watched_deployment_is_told_and_left_alone(restored: Town) -> None:
    manifest = restored.manifest()
    manifest["models"]["llm-03"]["targets"]["prod"]["manage"] = "observe"
    restored.project.write(manifest)
    planned = restored.plan()
    assert "only observed from now on" in flat(planned.out), planned.text
    restored.project.applied()
    restored.kubectl("scale", "deployment", "llm-03", "--replicas=3")
    drift = restored.project.mp("drift")
    assert drift.code == CHANGES, drift.text
    assert "replicas 2 → 3" in flat(drift.out), drift.out
    assert "left alone" in flat(drift.out), drift.out
    restored.nothing_to_do()
    restored.project.applied()
    assert restored.get("deployment", "llm-03")["spec"]["replicas"] == 3
    del manifest["models"]["llm-03"]  # and it stays when nobody watches it any more
    restored.project.write(manifest)
    restored.project.applied()
    assert restored.get("deployment", "llm-03")["spec"]["replicas"] == 3


def test_fields_of_another_manager_are_taken_only_from_whom_one_names(restored: Town) -> None:
    restored.declare("llm-04", replicas=3)  # applied by kubectl: what people set is taken back
    restored.project.applied()
    manifest = restored.declare("llm-08", replicas=4)  # helm declares it
    refused = restored.project.mp("apply", "--yes")
    assert refused.code == REFUSED, refused.text
    assert ".spec.replicas is managed by helm" in flat(refused.out + refused.err), refused.text
    assert restored.project.mp("apply", "--yes", "--take-from", "flux").code == REFUSED
    taking = restored.plan("--take-from", "helm", "--take-from", "nobody")
    assert taking.code == CHANGES
    told = flat(taking.out + taking.err)
    assert '"nobody" manages no field' in told, taking.text
    assert "fields are managed by" in told and "helm" in told, taking.text
    assert '"helm" manages no field' not in told, taking.text
    assert restored.get("deployment", "llm-08")["spec"]["replicas"] == 1
    restored.project.applied("--take-from", "helm")
    restored.nothing_to_do()
    held = restored.get("deployment", "llm-08", "--show-managed-fields")
    assert held["spec"]["replicas"] == 4
    (helm,) = [one for one in held["metadata"]["managedFields"] if one["manager"] == "helm"]
    assert "f:replicas" not in helm["fieldsV1"]["f:spec"]
    assert "f:selector" in helm["fieldsV1"]["f:spec"]
    manifest["models"]["llm-04"]["targets"]["prod"]["replicas"] = 1


def test_ignored_drift_is_neither_shown_nor_written(restored: Town) -> None:
    manifest = restored.manifest()
    manifest["models"]["llm-10"]["lifecycle"] = {"ignore_drift": ["/spec/replicas"]}
    restored.project.write(manifest)
    restored.nothing_to_do()
    restored.kubectl("scale", "deployment", "llm-10", "--replicas=5")
    restored.nothing_to_do()
    assert restored.project.mp("drift").code == 0
    changed = copy.deepcopy(manifest)
    changed["models"]["llm-10"]["targets"]["prod"]["runs"]["args"][-1] = "2048"
    restored.project.write(changed)
    assert "replicas" not in restored.plan().out
    restored.project.applied()
    assert restored.get("deployment", "llm-10")["spec"]["replicas"] == 5
    restored.nothing_to_do()


def test_pointer_at_which_nothing_is_written_is_the_users_error(restored: Town) -> None:
    manifest = restored.manifest()
    manifest["models"]["llm-11"]["lifecycle"] = {"ignore_drift": ["/spec/replica"]}
    restored.project.write(manifest)
    planned = restored.plan()
    assert planned.code == 1, planned.text
    assert "mp writes nothing at /spec/replica" in flat(planned.out), planned.text


def test_autoscaled_deployment_is_imported_with_its_replicas_left_alone(restored: Town) -> None:
    restored.kubectl("apply", "-f", "-", stdin=json.dumps(foreign(72)))
    restored.kubectl("scale", "deployment", "llm-72", "--replicas=2")
    assert restored.project.mp("import", "kubernetes", "prod", "llm-72", "--add").code == 0
    assert restored.manifest()["models"]["llm-72"]["lifecycle"] == {"ignore_drift": ["/spec/replicas"]}
    restored.kubectl("delete", "deployment", "llm-72")


@pytest.fixture
def moving(simulated: RealCluster, registry: RealRegistry, tmp_path: Path) -> Iterator[Fleet]:
    """One model of mp's, and a Deployment of others in the same namespace that was taken over."""
    with fleet_of(1, simulated, registry, tmp_path) as fleet:
        fleet.project.applied()
        fleet.kubectl(0, "apply", "-f", "-", stdin=json.dumps(foreign(0)))
        assert fleet.project.mp("import", "kubernetes", "east", "--add").code == 0
        manifest = yaml.safe_load((tmp_path / "models.yaml").read_text())
        del manifest["models"]["llm-00"]["targets"]["east"]["manage"]
        fleet.project.write(manifest)
        fleet.project.applied("--adopt")
        fleet.nothing_to_do()
        yield fleet


def served_by_mp(fleet: Fleet, **options: Any) -> Manifest:
    """The same entry, which is to be served by mp's own image."""
    manifest = copy.deepcopy(fleet.project.manifest)
    entry = manifest["models"][model_name(0)]
    manifest["models"]["llm-00"] = copy.deepcopy(entry)
    manifest["models"]["llm-00"]["targets"]["east"] |= options
    return manifest


@pytest.mark.registry
def test_what_was_taken_over_moves_to_mps_image_under_its_name(moving: Fleet) -> None:
    before = moving.generations()
    moving.project.write(served_by_mp(moving, name="llm-00"))
    planned = moving.project.mp("plan")
    assert "1 to replace" in planned.out, planned.text
    moving.project.applied()
    moving.nothing_to_do()
    (one,) = [each for each in moving.get("deployments") if each["metadata"]["name"] == "llm-00"]
    assert "app" not in one["spec"]["selector"]["matchLabels"]
    assert [each["name"] for each in one["spec"]["template"]["spec"]["containers"]] == ["server"]
    assert moving.generations()[model_name(0)] == before[model_name(0)]


@pytest.mark.registry
def test_what_was_taken_over_moves_beside_itself_under_another_name(moving: Fleet) -> None:
    moving.project.write(served_by_mp(moving, name="llm-new"))
    moving.project.applied()
    moving.nothing_to_do()
    names = moving.cluster.get(moving.namespaces[0], "deployments")["items"]
    assert {each["metadata"]["name"] for each in names} == {model_name(0), "llm-new"}
