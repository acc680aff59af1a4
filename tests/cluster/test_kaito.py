"""From models.yaml to Workspaces that answer, on a real API server and a real node; KAITO's controllers are played.

One project is applied once. Every test uses that one and leaves it as it was.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.kube import Cluster
from pipeline.core.image import Engine, Registry
from pipeline.core.model import Hardware
from pipeline.manifest.lock import Lock, engine_key, write_lock
from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.image.recipe import engine_name
from pipeline.templates import TEMPLATES
from tests.fakes.hub import FakeHub
from tests.parts.cluster import RealCluster
from tests.parts.kaito import SET, WORKSPACE, Kaito, install, playing
from tests.parts.project import Manifest, Project, Result
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import PLATFORM, push_tiny_engine, tiny_engine
from tests.parts.workspaces import WORKSPACES, workspace

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
TINY = tiny_engine()
GPU = Hardware("gpu", gpus=1, gpu="A100")
ADAPTER = {"name": "fr", "image": "ghcr.io/acme/fr:1"}
ERROR, CHANGES = 1, 2
KINDS = "workspaces,inferencesets,services,serviceaccounts,configmaps"


@pytest.fixture(scope="module")
def installed(cluster: RealCluster) -> RealCluster:
    install(cluster)
    return cluster


def _vllm() -> Engine:
    """What a lock says of the template that serves presets; its image is never made."""
    variant = TEMPLATES["vllm"].variant(None, GPU)
    return Engine(
        "vllm",
        variant.version,
        variant.name,
        PLATFORM,
        variant.python,
        TINY.base,
        TINY.base_digest,
        TINY.index,
        (),
    )


def manifest_of(namespace: str, context: str, registry: str) -> Manifest:
    base = f"{TINY.base}@{TINY.base_digest}"
    nodes = {"node_labels": {"kubernetes.io/os": "linux"}}
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"registry": "main"},
        "hardware": {
            "cpu": {"gpus": 0, "cpu": 0.1, "memory": "256Mi"},
            "gpu": {"gpus": 1, "gpu": "A100"},
        },
        "registries": {"main": {"url": f"{registry}/acme"}},
        "engines": {"transformers": {"base": base}, "vllm": {"base": base}},
        "targets": {"aks": {"kind": "kaito", "context": context, "namespace": namespace}},
        "models": {
            "own": {
                "source": "./weights",
                "template": "transformers",
                "hardware": "cpu",
                "test": [{"prompt": "what is blue?", "expect": {"contains": "blue"}}],
                "targets": {"aks": nodes},
            },
            "hubbed": {
                "source": "hf://acme/tiny",
                "version": "main",
                "template": "vllm",
                "hardware": "gpu",
                "targets": {"aks": {"preset": "acme/tiny", **nodes}},
            },
        },
    }


@dataclass
class Acme:
    """A project, KAITO played, and the namespace that both are in."""

    project: Project
    cluster: RealCluster
    namespace: str
    kaito: Kaito
    hub: FakeHub
    first: Result

    def with_model(self, name: str, target: dict[str, Any] | None = None, **changes: Any) -> Manifest:
        manifest = copy.deepcopy(self.project.manifest)
        manifest["models"][name] |= changes
        manifest["models"][name]["targets"]["aks"] |= target or {}
        return manifest

    def get(self, *what: str) -> Any:  # Any: an object of the API
        return self.cluster.get(self.namespace, *what)

    def names(self, model: str, kinds: str = "workspaces,inferencesets") -> list[str]:
        found = self.get(kinds, "-l", f"app.kubernetes.io/instance={model}")["items"]
        return [f"{one['kind']}/{one['metadata']['name']}" for one in found]

    def main(self, model: str) -> str:
        (name,) = self.names(model)
        return name

    def selector(self, model: str) -> dict[str, str]:
        found: dict[str, str] = self.get("service", model)["spec"]["selector"]
        return found

    def served(self, model: str) -> str:
        """What the Service of the name that stays answers, through the API server."""
        path = f"/api/v1/namespaces/{self.namespace}/services/{model}:80/proxy/v1/models"
        return self.cluster.kubectl("get", "--raw", path)

    def nothing_to_do(self) -> None:
        planned = self.project.mp("plan", "--detailed-exitcode")
        assert planned.code == 0, planned.text

    def replaced(self, model: str) -> str:
        """Apply: the Workspace of a model is another one, the Service follows, and then nothing is to do."""
        before, services = self.main(model), self.get("service", model)["metadata"]["uid"]
        planned = self.project.mp("plan", "--json")
        (change,) = [one for one in planned.json()["changes"] if one["address"] == f"{model}/kaito:aks"]
        assert change["action"] == "replace", planned.text
        self.project.applied()
        after = self.main(model)
        assert after != before
        assert after.partition("/")[2] in self.selector(model).values()
        assert self.get("service", model)["metadata"]["uid"] == services
        self.nothing_to_do()
        return after


@pytest.fixture(scope="module")
def acme(
    installed: RealCluster, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Acme]:
    folder = tmp_path_factory.mktemp("kaito")
    shutil.copytree(CHECKPOINT, folder / "weights")
    (folder / "weights" / "answer.txt").write_text("the sky is blue")
    place = Registry("main", url=f"{registry.host}/acme")
    image = str(engine_name(push_tiny_engine(place, TINY), place))
    write_lock(folder / "models.lock", Lock({}, {engine_key(e, PLATFORM): e for e in (TINY, _vllm())}))
    with FakeHub() as hub, installed.namespace() as namespace, playing(installed, namespace, image) as kaito:
        hub.commit("acme/tiny", {"config.json": b"{}", "model.safetensors": b"\x02\0\0\0\0\0\0\0{}"})
        environ = {"KUBECONFIG": str(installed.kubeconfig), "NO_COLOR": "1", "HF_ENDPOINT": hub.endpoint}
        project = Project(folder, folder / "cache", environ)
        project.write(manifest_of(namespace, installed.context, registry.host))
        first = project.mp("apply", "--yes")
        assert first.code == 0, first.text
        yield Acme(project, installed, namespace, kaito, hub, first)


@pytest.fixture
def restored(acme: Acme) -> Iterator[Acme]:
    """The project as it was first applied, also after a test that changed it."""
    manifest = acme.project.manifest
    yield acme
    acme.kaito.no_instances = False
    acme.project.write(manifest)
    acme.project.applied()


@pytest.mark.parametrize("name", WORKSPACES)
def test_server_takes_every_form_strictly_and_would_change_nothing_of_it(
    name: str, installed: RealCluster
) -> None:
    server = Cluster(installed.context, {"KUBECONFIG": str(installed.kubeconfig)})
    options = {**WORKSPACES[name], "spec": {"namespace": "default", **WORKSPACES[name].get("spec", {})}}
    for wanted in ordered(workspace(**options).desired.objects):
        assert shaped(server.apply(written(wanted, {}), dry_run=True), wanted) == wanted


def test_own_image_and_preset_answer_under_their_names_and_then_nothing_is_to_do(acme: Acme) -> None:
    assert "the sky is blue" in acme.first.out
    commit = acme.hub.repositories["acme/tiny"].branches["main"]
    assert f"the preset of {commit}" in acme.first.out
    assert '"own"' in acme.served("own")
    assert '"hubbed"' in acme.served("hubbed")
    acme.nothing_to_do()


def test_moved_branch_is_new_pins_and_another_workspace(restored: Acme) -> None:
    commit = restored.hub.commit(
        "acme/tiny", {"config.json": b'{"a": 1}', "model.safetensors": b"\x02\0\0\0\0\0\0\0{}"}
    )
    locked = restored.project.mp("lock", "--upgrade", "hubbed")
    assert locked.code == 0, locked.text
    name = restored.replaced("hubbed")
    config = restored.get("workspace", name.partition("/")[2])["inference"]["config"]
    text = restored.get("configmap", config)["data"]["inference_config.yaml"]
    assert text.count(f'"{commit}"') == 3


def test_adapter_and_node_labels_are_another_workspace_since_kaito_changes_none(restored: Acme) -> None:
    restored.project.write(restored.with_model("hubbed", {"adapters": [ADAPTER]}))
    restored.replaced("hubbed")
    restored.project.write(restored.with_model("hubbed", {"node_labels": {"kubernetes.io/arch": "amd64"}}))
    restored.replaced("hubbed")


@pytest.mark.slow
def test_replicas_are_an_inference_set_and_their_number_is_changed_in_place(restored: Acme) -> None:
    restored.project.write(restored.with_model("own", {"replicas": 2}))
    name = restored.replaced("own")
    assert name.startswith("InferenceSet/")
    assert restored.selector("own") == {SET: name.partition("/")[2]}
    uid = restored.get("inferenceset", name.partition("/")[2])["metadata"]["uid"]
    restored.project.write(restored.with_model("own", {"replicas": 1, "object": "InferenceSet"}))
    restored.project.applied()
    kept = restored.get("inferenceset", name.partition("/")[2])
    assert (kept["metadata"]["uid"], kept["spec"]["replicas"]) == (uid, 1)


def test_version_that_does_not_start_leaves_the_old_one_and_its_service_alone(restored: Acme) -> None:
    before, selector = restored.main("own"), restored.selector("own")
    restored.project.write(
        restored.with_model("own", env={"TINY_ARGV": "--crash 'ValueError: no such head'"})
    )
    failed = restored.project.mp("apply", "--yes")
    assert failed.code == ERROR, failed.text
    assert "ValueError: no such head" in " ".join(failed.out.split()), failed.text
    assert "Drift" not in failed.out
    assert restored.main("own") == before
    assert restored.selector("own") == selector
    assert '"own"' in restored.served("own")


@pytest.mark.slow
def test_cloud_without_instances_is_told_soon_in_its_own_words(restored: Acme) -> None:
    restored.kaito.no_instances = True
    restored.project.write(restored.with_model("own", env={"A": "b"}))
    failed = restored.project.mp("apply", "--yes")
    assert failed.code == ERROR, failed.text
    assert "all requested instance types were unavailable" in " ".join(failed.out.split()), failed.text


@pytest.mark.slow
def test_old_one_goes_first_where_nothing_is_spare(restored: Acme) -> None:
    before = restored.main("own").partition("/")[2]
    recreate = {"rollout": {"when_no_spare": "recreate"}}
    restored.project.write(restored.with_model("own", recreate, env={"A": "c"}))
    known = len(restored.kaito.events)
    after = restored.replaced("own").partition("/")[2]
    assert restored.kaito.events[known:] == [("gone", before), ("made", after)]


def test_edit_by_hand_is_drift_and_is_put_back_without_another_workspace(restored: Acme) -> None:
    name = restored.main("hubbed").partition("/")[2]
    patch = json.dumps({"inference": {"adapters": [{"source": ADAPTER}]}})
    restored.cluster.kubectl(
        "-n", restored.namespace, "patch", "workspace", name, "--type=merge", "-p", patch
    )
    restored.cluster.kubectl(
        "-n",
        restored.namespace,
        "annotate",
        "workspace",
        name,
        "workspace.kaito.io/revision=7",
        "--overwrite",
    )
    restored.nothing_to_do()  # fields of others are theirs
    patch = json.dumps({"inference": {"config": "another"}})
    restored.cluster.kubectl(
        "-n", restored.namespace, "patch", "workspace", name, "--type=merge", "-p", patch
    )
    drift = restored.project.mp("drift")
    assert drift.code == CHANGES, drift.text
    assert "config" in drift.out
    restored.project.applied()
    assert restored.main("hubbed").partition("/")[2] == name
    restored.nothing_to_do()


@pytest.mark.slow
def test_renamed_model_is_made_under_its_new_name_and_nothing_of_the_old_one_stays(restored: Acme) -> None:
    restored.project.write(restored.with_model("own", {"name": "front-door"}))
    restored.project.applied()
    assert restored.names("own", KINDS) == []
    assert '"own"' in restored.served("front-door")
    assert restored.selector("front-door") == {WORKSPACE: restored.main("front-door").partition("/")[2]}


def test_removed_model_leaves_nothing(restored: Acme) -> None:
    manifest = copy.deepcopy(restored.project.manifest)
    del manifest["models"]["hubbed"]
    restored.project.write(manifest)
    restored.project.applied()
    assert restored.names("hubbed", KINDS) == []
