"""The real CPU engines on a real node, rolled out by `mp apply`: they say what they say everywhere, wherever their weights lie.

One pod at a time: it gets most of a small machine. Nothing is built here that a test has built before.
"""

import contextlib
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from pipeline.manifest.lock import write_lock
from tests.parts import capability
from tests.parts.base_image import BaseImage
from tests.parts.cluster import RealCluster
from tests.parts.engines import ANSWER, CHECKPOINT, PROMPT, locked_engines
from tests.parts.project import Project, chat
from tests.parts.registry import RealRegistry

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.docker,
    pytest.mark.registry,
    pytest.mark.transformers,
    pytest.mark.vllm,
]

# Where a pod finds its weights, by the word for it in models.yaml.
FOLDERS: Mapping[str, str] = {"baked": "/models", "volume": "/mnt/models"}
SERVE = {"transformers": {}, "vllm": {"max_model_len": 256}}
# Every run has one pod an engine; both ways of both are for `just test-all`: a node unpacks gigabytes for each image.
PODS = (
    pytest.param("transformers", "baked"),
    pytest.param("vllm", "volume"),
    pytest.param("transformers", "volume", marks=pytest.mark.slow),
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

    def declare(self, template: str, weights: str) -> None:
        self.project.write(
            {
                "version": 1,
                "project": "acme",
                "defaults": {"template": template, "hardware": "cpu", "registry": "main"},
                "hardware": {"cpu": {"gpus": 0, "cpu": 1.8, "memory": "6Gi"}},
                "registries": {"main": {"url": f"{self.registry.host}/acme"}},
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
                        "targets": {"prod": {"weights": weights}},
                    }
                },
            }
        )

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
    with cluster.namespace() as namespace:
        yield Works(project, cluster, namespace, engine_registry, engine_base)


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

    applied = emptied.project.applied()

    print(applied.err)
    assert ANSWER[:40] in " ".join(applied.out.split()), "the proof is its answer"
    with emptied.forwarded() as url:
        assert chat(url, "tiny", PROMPT) == ANSWER
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in CHECKPOINT.iterdir()}
    seen = emptied.hashes(FOLDERS[weights])
    assert {name: seen.get(name) for name in files} == files
    assert emptied.project.mp("plan", "--detailed-exitcode").code == 0
