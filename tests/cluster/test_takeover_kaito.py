"""Thirty Workspaces and InferenceSets that others made: imported, watched, taken over without a restart, made anew only when asked.

KAITO's controllers are played; the nodes are simulated: their pods are ready at once, and a pod that is made anew has another uid.
"""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.cluster.test_takeover import CHANGES, OURS, REFUSED, Object, Town, flat
from tests.parts.cluster import RealCluster
from tests.parts.kaito import Kaito, install, playing
from tests.parts.project import Manifest, Project

pytestmark = pytest.mark.cluster

COUNT = 30
COMMIT = "c" * 40
KINDS = "workspaces,inferencesets"
FLUX = {"kustomize.toolkit.fluxcd.io/name": "models", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}


def name_of(number: int) -> str:
    return f"served-{number:02d}"


def foreign(number: int) -> list[Object]:
    """What somebody wrote by hand or keeps in Flux: presets, every fifth an InferenceSet, every sixth a pod template."""
    name = name_of(number)
    nodes = {"labelSelector": {"matchLabels": {"type": "kwok"}}}
    resource = {"instanceType": "Standard_NC24ads_A100_v4"} if number % 2 else {}
    if number % 6 == 5:
        containers = [
            {"name": "logs", "image": f"registry.example/logs@sha256:{'a' * 64}"},
            {
                "name": "server",
                "image": "registry.example/vllm:v1",
                "args": ["--model", f"acme/model-{number}"],
                "env": [{"name": "LEVEL", "value": "INFO"}],
                "ports": [{"containerPort": 5000}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
            },
        ]
        inference: Object = {
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
        }
    else:
        preset = f"acme/model-{number}" if number % 3 else "phi-4"
        inference = {"preset": {"name": preset}, "config": f"{name}-config"}
        if number % 4 == 1:
            inference["preset"]["presetOptions"] = {"modelAccessSecret": "hub"}
        if number % 7 == 1:
            inference["adapters"] = [
                {"source": {"name": "fr", "image": "ghcr.io/acme/fr:1"}, "strength": "0.5"}
            ]
    metadata = {"name": name, "labels": {"team": "search", **FLUX}}
    api = "kaito.sh/v1beta1"
    if number % 5 == 0:
        spec = {"replicas": 2, **nodes, "template": {"resource": resource, "inference": inference}}
        made: Object = {"apiVersion": api, "kind": "InferenceSet", "metadata": metadata, "spec": spec}
    else:
        both = {"resource": {**resource, **nodes}, "inference": inference}
        made = {"apiVersion": api, "kind": "Workspace", "metadata": metadata, **both}
    settings = f"vllm: {{served-model-name: {name}, revision: {COMMIT}, max-model-len: 8192}}"
    config = {"metadata": {"name": f"{name}-config"}, "data": {"inference_config.yaml": settings}}
    return [{"apiVersion": "v1", "kind": "ConfigMap", **config}, made]


# What the server refuses to create, whatever the plan said: one preset, and another only under the name that it shall have.
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: refused-presets}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [kaito.sh], apiVersions: ["*"], operations: [CREATE], resources: [workspaces]}]
  validations:
  - {expression: "object.?inference.preset.name.orValue('') != 'acme/refused'", message: "no such preset here"}
  - expression: "object.?inference.preset.name.orValue('') != 'acme/late' || object.metadata.name != 'served-04'"
    message: "refused after all"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: refused-presets}
spec: {policyName: refused-presets, validationActions: [Deny]}
"""


@dataclass
class Harbour(Town):
    """The same with Workspaces."""

    kaito: Kaito

    def workspaces(self) -> dict[str, Object]:
        """By kind and name, without what changes by itself and without our marks."""
        found = self.get(KINDS, "--show-managed-fields=false")["items"]
        for one in found:
            one.pop("status", None)
            for key in ("resourceVersion", "generation"):
                one["metadata"].pop(key)
            annotations = one["metadata"].get("annotations", {})
            one["metadata"]["annotations"] = {k: v for k, v in annotations.items() if not k.startswith(OURS)}
        return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}

    def ready(self) -> None:
        """Until everything serves."""
        deadline = time.monotonic() + 120
        while not all(map(_serves, self.get(KINDS)["items"])):
            assert time.monotonic() < deadline, "not all of them serve"
            time.sleep(0.5)

    def changed(self, name: str, **runs: Any) -> Manifest:
        manifest = self.manifest()
        manifest["models"][name]["targets"]["prod"]["runs"] |= runs
        self.project.write(manifest)
        return manifest


def _serves(one: Object) -> bool:
    status = one.get("status") or {}
    if one["kind"] == "InferenceSet":
        return bool(status.get("readyReplicas") == one["spec"].get("replicas", 1))
    return bool(status.get("state") == "Ready")


@pytest.fixture(scope="module")
def harbour(simulated: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    """Thirty of them, made by hand and by Flux."""
    install(simulated)
    folder = tmp_path_factory.mktemp("harbour")
    image = "registry.example/kaito:1"
    with simulated.namespace() as namespace, playing(simulated, namespace, image) as kaito:
        project = Project(
            folder, folder / "cache", {"KUBECONFIG": str(simulated.kubeconfig), "NO_COLOR": "1"}
        )
        target = {"kind": "kaito", "context": simulated.context, "namespace": namespace}
        head: Manifest = {"version": 1, "project": "acme", "targets": {"prod": target}, "models": {}}
        text = yaml.safe_dump(head, sort_keys=False).replace("models: {}\n", "models:\n")
        (folder / "models.yaml").write_text(f"# written by hand\n{text}")
        made = Harbour(project, simulated, namespace, kaito)
        ways = (("create",), ("apply", "--server-side", "--field-manager=kustomize-controller"))
        for turn, way in enumerate(ways):
            items = [one for number in range(turn, COUNT, 2) for one in foreign(number)]
            made.kubectl(
                *way, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            )
        made.ready()
        yield made


@pytest.fixture(scope="module")
def taken(harbour: Harbour) -> Harbour:
    """The story of all of them; what it leaves is what the other tests begin with."""
    before, uids = harbour.workspaces(), harbour.uids()

    done = harbour.project.mp("import", "kaito", "prod", "--add")
    assert done.code == 0, done.text
    assert "InferenceSet/served-00 made it, it is left out" in flat(done.err)
    validated = harbour.project.mp("validate")
    assert validated.code == 0, validated.text
    text = (harbour.project.folder / "models.yaml").read_text()
    assert text.startswith("# written by hand\n")
    assert "Flux applies it from Kustomization flux-system/models" in text
    assert "ConfigMap served-01-config is left as it is, and says max-model-len" in text
    models = harbour.manifest()["models"]
    assert list(models) == [name_of(number) for number in range(COUNT)]
    first, options = models["served-01"], models["served-01"]["targets"]["prod"]
    assert (first["source"], first["version"]) == ("hf://acme/model-1", COMMIT)
    assert harbour.manifest()["hardware"][first["hardware"]]["instance_type"] == "Standard_NC24ads_A100_v4"
    assert options["adapters"] == [{"name": "fr", "image": "ghcr.io/acme/fr:1", "strength": 0.5}]
    assert options["runs"] == {"preset": "acme/model-1", "config": "served-01-config"}
    assert options["node_labels"] == {"type": "kwok"}
    assert models["served-05"]["targets"]["prod"]["runs"]["args"] == ["--model", "acme/model-5"]

    harbour.nothing_to_do()  # they are only watched
    drift = harbour.project.mp("drift")
    assert drift.code == 0, drift.text
    harbour.project.applied()
    assert harbour.workspaces() == before

    harbour.declare()
    refused = harbour.plan()
    assert refused.code == REFUSED, refused.text
    adopting = harbour.plan("--adopt")
    assert adopting.code == CHANGES, adopting.text
    assert f"{COUNT} to adopt" in flat(adopting.out), adopting.out
    harbour.project.applied("--adopt")
    assert harbour.uids() == uids
    assert harbour.workspaces() == before
    harbour.nothing_to_do()
    return harbour


@pytest.fixture
def restored(taken: Harbour) -> Iterator[Harbour]:
    """The project as it was after everything was taken over, also after a test that changed it."""
    manifest = taken.manifest()
    yield taken
    taken.project.write(manifest)
    taken.project.applied()
    taken.nothing_to_do()


def test_thirty_workspaces_are_taken_over_and_no_pod_is_made_anew(taken: Harbour) -> None:
    taken.nothing_to_do()


def test_another_preset_is_a_replacement_and_the_plan_says_why(restored: Harbour) -> None:
    before = restored.workspaces()["Workspace/served-04"]
    uids = restored.uids()
    restored.changed("served-04", preset="acme/model-other")
    planned = restored.plan()
    assert planned.code == CHANGES, planned.text
    assert "1 to replace" in flat(planned.out), planned.out
    assert "KAITO changes nothing of what runs: Workspace/served-04 is deleted" in flat(planned.text)
    restored.project.applied()
    restored.nothing_to_do()
    after = restored.workspaces()["Workspace/served-04"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["resource"] == before["resource"]
    expected = copy.deepcopy(before["inference"])
    expected["preset"]["name"] = "acme/model-other"
    assert after["inference"] == expected
    assert len(uids - restored.uids()) == 1


def test_arguments_of_a_pod_template_keep_what_the_entry_does_not_say(restored: Harbour) -> None:
    before = restored.workspaces()["Workspace/served-11"]["inference"]["template"]
    restored.changed("served-11", args=["--model", "acme/model-11", "--max-model-len", "4096"])
    refused = restored.plan()
    assert refused.code == REFUSED, refused.text
    assert "managed by kustomize-controller" in flat(refused.out), refused.out
    assert "registry.example/logs" not in refused.out
    restored.project.applied("--take-from", "kustomize-controller")
    restored.nothing_to_do()
    expected = copy.deepcopy(before)
    expected["spec"]["containers"][1]["args"] += ["--max-model-len", "4096"]
    assert restored.workspaces()["Workspace/served-11"]["inference"]["template"] == expected


def test_replicas_of_an_inference_set_change_in_place(restored: Harbour) -> None:
    uid = restored.get("inferenceset", "served-10")["metadata"]["uid"]
    manifest = restored.manifest()
    manifest["models"]["served-10"]["targets"]["prod"]["replicas"] = 3
    restored.project.write(manifest)
    restored.project.applied("--take-from", "kustomize-controller")
    restored.nothing_to_do()
    found = restored.get("inferenceset", "served-10")
    assert (found["metadata"]["uid"], found["spec"]["replicas"]) == (uid, 3)


def test_what_would_have_to_be_made_anew_is_not_taken_over_unless_asked_for(restored: Harbour) -> None:
    items = foreign(31)
    restored.kubectl(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    restored.ready()
    assert restored.project.mp("import", "kaito", "prod", "served-31", "--add").code == 0
    restored.declare("served-31")
    restored.changed("served-31", preset="acme/model-other")
    uids = restored.uids()
    refused = restored.project.mp("apply", "--yes", "--adopt")
    assert refused.code == REFUSED, refused.text
    assert "KAITO changes nothing of what runs" in flat(refused.text), refused.text
    assert restored.uids() == uids
    restored.project.applied("--adopt-restart")
    restored.nothing_to_do()
    assert restored.get("workspace", "served-31")["inference"]["preset"]["name"] == "acme/model-other"


@pytest.fixture
def refusing(restored: Harbour) -> Iterator[Harbour]:
    """A server that refuses some presets by now."""
    restored.kubectl("apply", "-f", "-", stdin=POLICY)
    _, one = foreign(1)
    one["metadata"]["name"], one["inference"]["preset"]["name"] = "probe", "acme/refused"
    deadline = time.monotonic() + 60
    while True:
        try:
            restored.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(one))
        except Exception as problem:  # kubectl said no
            assert "no such preset here" in str(problem) + str(getattr(problem, "stderr", "")), problem
            break
        assert time.monotonic() < deadline, "the policy has no effect"
        time.sleep(0.5)
    yield restored
    names = ("validatingadmissionpolicybinding/refused-presets", "validatingadmissionpolicy/refused-presets")
    restored.kubectl("delete", *names)


def test_nothing_is_deleted_that_the_server_would_not_make_again(refusing: Harbour) -> None:
    before, uids = refusing.workspaces(), refusing.uids()
    refusing.changed("served-04", preset="acme/refused")
    failed = refusing.project.mp("apply", "--yes")
    assert failed.code != 0, failed.text
    assert "Workspace/served-04 is not deleted" in flat(failed.text), failed.text
    assert "no such preset here" in flat(failed.text), failed.text
    assert (refusing.workspaces(), refusing.uids()) == (before, uids)


def test_what_was_deleted_is_made_again_when_the_new_one_is_refused_after_all(refusing: Harbour) -> None:
    before = refusing.workspaces()["Workspace/served-04"]
    refusing.changed("served-04", preset="acme/late")
    failed = refusing.project.mp("apply", "--yes")
    assert failed.code != 0, failed.text
    assert "refused after all" in flat(failed.text), failed.text
    assert "the last good version serves again" in flat(failed.text), failed.text
    refusing.ready()
    after = refusing.workspaces()["Workspace/served-04"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert (after["resource"], after["inference"]) == (before["resource"], before["inference"])


def test_what_was_deleted_is_made_again_when_the_new_one_does_not_start(restored: Harbour) -> None:
    before = restored.workspaces()["Workspace/served-08"]
    restored.changed("served-08", preset="acme/large")
    restored.kaito.unavailable = "acme/large"
    failed = restored.project.mp("apply", "--yes")
    assert failed.code != 0, failed.text
    assert "all requested instance types were unavailable" in flat(failed.text), failed.text
    restored.ready()
    after = restored.workspaces()["Workspace/served-08"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert (after["resource"], after["inference"]) == (before["resource"], before["inference"])


def test_what_another_object_made_is_not_taken_over(restored: Harbour) -> None:
    (name, *_) = [
        one["metadata"]["name"]
        for one in restored.get("workspaces")["items"]
        if one["metadata"]["name"].startswith("served-00-")
    ]
    manifest = restored.manifest()
    manifest["models"]["served-made"] = copy.deepcopy(manifest["models"]["served-02"])
    manifest["models"]["served-made"]["targets"]["prod"]["name"] = name
    restored.project.write(manifest)
    for how in ("--adopt", "--adopt-restart"):
        refused = restored.project.mp("apply", "--yes", how)
        assert refused.code == REFUSED, refused.text
        assert "InferenceSet/served-00 made it" in flat(refused.text), refused.text
        assert "give this entry another name" in flat(refused.text), refused.text


def test_what_an_entry_leaves_behind_under_its_name_is_shown_and_removed(restored: Harbour) -> None:
    items = foreign(32)
    _, other = foreign(40)
    other["metadata"]["name"] = "served-32"
    other["spec"]["template"]["inference"]["config"] = "served-32-config"
    restored.kubectl(
        "create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    restored.ready()
    assert restored.project.mp("import", "kaito", "prod", "served-32", "--add").code == 0
    restored.declare("served-32")
    restored.project.applied("--adopt")
    restored.kubectl("create", "-f", "-", stdin=json.dumps(other))
    restored.declare("served-32", object="InferenceSet", replicas=2)
    restored.changed("served-32", preset="acme/model-40")
    assert "taking it over would change what runs: Workspace" in flat(restored.plan("--adopt").text)
    planned = restored.plan("--adopt-restart")
    assert "Workspace removed" in flat(planned.out), planned.text
    restored.project.applied("--adopt-restart")
    restored.nothing_to_do()
    assert "Workspace/served-32" not in restored.workspaces()
