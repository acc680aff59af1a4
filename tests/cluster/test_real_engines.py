"""The real CPU engines on a real node, rolled out by `mp apply`: they say what they say everywhere, wherever their weights lie.

One pod at a time: it gets most of a small machine. Nothing is built here that a test has built before.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.manifest.lock import write_lock
from tests.parts import capability
from tests.parts.base_image import BaseImage
from tests.parts.cluster import RealCluster
from tests.parts.engines import ANSWER, CHECKPOINT, PROMPT, locked_engines
from tests.parts.project import Manifest, Project, chat
from tests.parts.registry import RealRegistry

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.docker,
    pytest.mark.registry,
    pytest.mark.transformers,
    pytest.mark.vllm,
]

# Where a pod finds its weights, by the word for it in models.yaml.
FOLDERS: Mapping[str, str] = {"baked": "/models", "volume": "/mnt/models", "pvc": "/mnt/models"}
SERVE = {"transformers": {}, "vllm": {"max_model_len": 256}}
OURS = pytest.mark.skipif("MP_TEST_KUBECONFIG" in os.environ, reason="its node is another machine")
# Every run has each way once, and both engines; each way of both is for `just test-all`. An engine's pods follow one another:
# the node unpacks its gigabytes for the first one. vLLM takes 50 s of CPU to start.
PODS = (
    pytest.param("transformers", "baked"),
    pytest.param("transformers", "pvc", marks=OURS),
    pytest.param("transformers", "volume", marks=pytest.mark.slow),
    pytest.param("vllm", "volume"),
    pytest.param("vllm", "pvc", marks=(OURS, pytest.mark.slow)),
    pytest.param("vllm", "baked", marks=pytest.mark.slow),
)


@dataclass
class Works:
    """A project with one model in a namespace of the cluster."""

    project: Project
    cluster: RealCluster
    namespace: str
    registry: RealRegistry
    base: BaseImage
    storage: Path  # for volumes: the node is this machine

    def declare(self, template: str, weights: str) -> None:
        options: Manifest = {"weights": weights}
        registry: Manifest = {"url": f"{self.registry.host}/acme"}
        if weights == "pvc":  # its Job pulls, and loopback is the pod itself
            options["claim"] = {"storage_class": self.namespace}
            registry = {"url": f"{self.node_host}/acme", "insecure": True}
        self.project.write(
            {
                "version": 1,
                "project": "acme",
                "defaults": {"template": template, "hardware": "cpu", "registry": "main"},
                "hardware": {"cpu": {"gpus": 0, "cpu": 1.8, "memory": "6Gi"}},
                "registries": {"main": registry},
                "engines": {each: {"base": self.base.reference} for each in SERVE},
                "targets": {
                    "prod": {
                        "kind": "kubernetes",
                        "context": self.cluster.context,
                        "namespace": self.namespace,
                    }
                },
                "models": {
                    "tiny": {
                        "source": "./weights",
                        "serve": SERVE[template],
                        "test": [{"prompt": PROMPT, "expect": {"contains": "models.yaml"}}],
                        "targets": {"prod": options},
                    }
                },
            }
        )

    @property
    def node_host(self) -> str:
        """The registry's name for whoever is not this machine."""
        return f"{self.cluster.node_address()}:{self.registry.port}"

    def volume(self, name: str) -> None:
        """A volume that the next claim is bound to; nothing makes any here."""
        folder = self.storage / name
        folder.mkdir()
        folder.chmod(0o777)  # pods have another user than this one
        spec = {
            "storageClassName": self.namespace,
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(folder)},
        }
        metadata = {"name": f"{self.namespace}-{name}", "labels": {"mp-test": self.namespace}}
        made = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}
        self.cluster.kubectl("create", "-f", "-", stdin=json.dumps(made))

    def hashes(self, folder: str) -> dict[str, str]:
        """The sha256 of every file that the pod sees there, by name."""
        command = ("sh", "-c", f"cd {folder} && sha256sum -- *")
        said = self.cluster.kubectl("-n", self.namespace, "exec", "deployment/tiny", "--", *command)
        return {name: sha256 for sha256, name in (line.split() for line in said.splitlines())}

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[str]:
        """The Service at an address of this machine, through the API server."""
        argv = [self.cluster.kubectl_path, f"--kubeconfig={self.cluster.kubeconfig}", "-n", self.namespace]
        with subprocess.Popen(
            [*argv, "port-forward", "service/tiny", ":80"], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                port = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
                assert port is not None, "kubectl port-forward ended"
                yield f"http://127.0.0.1:{port[1]}"
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def works(
    cluster: RealCluster,
    engine_registry: RealRegistry,
    engine_base: BaseImage,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Works]:
    folder = tmp_path_factory.mktemp("engines")
    shutil.copytree(CHECKPOINT, folder / "weights")
    write_lock(folder / "models.lock", locked_engines(engine_base))
    project = Project(
        folder, capability.CACHE, {"KUBECONFIG": str(cluster.kubeconfig), "NO_COLOR": "1", "COLUMNS": "200"}
    )
    storage = tmp_path_factory.mktemp("volumes")
    with cluster.namespace() as namespace:
        made = Works(project, cluster, namespace, engine_registry, engine_base, storage)
        cluster.speaks_http(made.node_host)
        try:
            yield made
        finally:
            cluster.kubectl("delete", "pv", "-l", f"mp-test={namespace}", "--wait=false")


@pytest.fixture
def emptied(works: Works) -> Iterator[Works]:
    """The node has room for one of these pods: each goes before the next one comes."""
    yield works
    gone = works.project.mp("destroy", "--all", "--yes")
    assert gone.code == 0, gone.text
    works.cluster.kubectl("-n", works.namespace, "wait", "--for=delete", "pod", "--all", "--timeout=120s")


@pytest.mark.parametrize(("template", "weights"), PODS)
def test_engine_on_a_node_says_what_it_says_everywhere(emptied: Works, template: str, weights: str) -> None:
    emptied.declare(template, weights)
    if weights == "pvc":
        emptied.volume(template)

    applied = emptied.project.applied()

    print(applied.err)
    assert ANSWER[:40] in " ".join(applied.out.split()), "the proof is its answer"
    with emptied.forwarded() as url:
        assert chat(url, "tiny", PROMPT) == ANSWER
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in CHECKPOINT.iterdir()}
    seen = emptied.hashes(FOLDERS[weights])
    assert {name: seen.get(name) for name in files} == files
    assert emptied.project.mp("plan", "--detailed-exitcode").code == 0
