"""A real Kubernetes: the one that tests/cluster/cluster.py starts, or the one that MP_TEST_KUBECONFIG names."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.frozen import frozen
from tests.parts.schemas import definition

SCRIPT = Path(__file__).resolve().parents[1] / "cluster" / "cluster.py"
BUILT = Path(os.environ.get("MP_CLUSTER_CACHE", Path.home() / ".cache" / "mp-cluster"))
TOOLS = ("go", "runc", "gcc", "openssl", "ip", "iptables")
UP_S = 1500  # it is compiled on first use
SOON_S = 60


def missing(everything: bool) -> str | None:
    """Why no cluster can be had here; `everything`: it may be compiled, which takes minutes."""
    if os.environ.get("MP_TEST_KUBECONFIG"):
        return None if shutil.which("kubectl") else "kubectl is not installed"
    if os.geteuid() != 0:
        return "only root starts a node, and MP_TEST_KUBECONFIG is not set"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(lacking)} not installed"
    if not everything and not any(BUILT.glob("*/complete")):
        return "Kubernetes is not compiled: run just test-all once"
    return None


@frozen
class RealCluster:
    kubeconfig: Path
    context: str
    kubectl_path: str

    @property
    def folder(self) -> Path:
        """Where a cluster that was started here has its keys, logs and process ids."""
        return self.kubeconfig.parent

    def requests(self, agent: str) -> list[str]:
        """Each request of one program so far, "list /apis/apps/v1/…"; `agent`: what its User-Agent begins with."""
        lines = (self.folder / "logs" / "audit.log").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return [f"{e['verb']} {e['requestURI']}" for e in events if e.get("userAgent", "").startswith(agent)]

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [self.kubectl_path, f"--kubeconfig={self.kubeconfig}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}{done.stdout}"
        return done.stdout

    def get(self, namespace: str, *what: str) -> Any:  # Any: an object of the API
        return json.loads(self.kubectl("-n", namespace, "get", *what, "-o", "json"))

    def install(self, kind: str) -> None:
        """A kind of a custom resource, "LeaderWorkerSet"; nothing of its controller."""
        crd = definition(kind)
        name = str(crd["metadata"]["name"])
        if name not in self.kubectl("get", "customresourcedefinitions", "-o", "name"):
            self.kubectl("create", "-f", "-", stdin=json.dumps(crd))
        end = time.monotonic() + UP_S
        while not self._serves(name):
            assert time.monotonic() < end, f"{kind} is not served"
            time.sleep(0.2)

    def uninstall(self, kind: str) -> None:
        """A kind of a custom resource goes, and every object of it."""
        name = str(definition(kind)["metadata"]["name"])
        self.kubectl("delete", "customresourcedefinition", name, "--ignore-not-found")
        end = time.monotonic() + SOON_S
        while name in self.kubectl("api-resources", "--output=name").split():
            assert time.monotonic() < end, f"{kind} is still served"
            time.sleep(0.2)

    def _serves(self, definition_name: str) -> bool:
        status = json.loads(self.kubectl("get", f"crd/{definition_name}", "-o", "json")).get("status") or {}
        conditions = status.get("conditions") or ()  # null at first
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    def as_account(self, namespace: str, name: str, verbs: str, folder: Path) -> Path:
        """A kubeconfig of a service account that may do `verbs` ("get,list") in a namespace."""
        resources = (
            "deployments.apps,replicasets.apps,services,serviceaccounts,configmaps,pods,pods/log,events,"
            "poddisruptionbudgets.policy"
        )
        self.kubectl("-n", namespace, "create", "serviceaccount", name)
        self.kubectl("-n", namespace, "create", "role", name, f"--verb={verbs}", f"--resource={resources}")
        account = f"--serviceaccount={namespace}:{name}"
        self.kubectl("-n", namespace, "create", "rolebinding", name, f"--role={name}", account)
        config = json.loads(self.kubectl("config", "view", "--raw", "-o", "json"))
        config["users"][0]["user"] = {"token": self.kubectl("-n", namespace, "create", "token", name).strip()}
        file = folder / f"{name}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        return file

    def node_address(self) -> str:
        """Where pods reach what listens on the node, which is this machine."""
        (node,) = json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        found = {one["type"]: one["address"] for one in node["status"]["addresses"]}
        return str(found["InternalIP"])

    def speaks_http(self, host: str) -> None:
        """The node pulls from this registry without TLS; from loopback it does anyway."""
        folder = self.kubeconfig.parent / "certs.d" / host
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(f'server = "http://{host}"\n')

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        """One of your own; everything in it goes with it."""
        name = f"mp-test-{uuid.uuid4().hex[:6]}"
        self.kubectl("create", "namespace", name)
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def running_cluster() -> Iterator[RealCluster]:
    """A control plane and one node that runs pods; about eight seconds once it is compiled."""
    if given := os.environ.get("MP_TEST_KUBECONFIG"):
        kubectl = str(shutil.which("kubectl"))
        context = subprocess.check_output(
            [kubectl, f"--kubeconfig={given}", "config", "current-context"], text=True
        )
        yield RealCluster(Path(given), context.strip(), kubectl)
        return
    with _started("--node") as started:
        yield started


@contextlib.contextmanager
def simulated_cluster(nodes: int, gpus: int) -> Iterator[RealCluster]:
    """A control plane with a log of requests, and nodes whose pods are ready at once and do nothing; GPUs are NVIDIA L4."""
    with _started("--fake-nodes", str(nodes), "--gpus", str(gpus), "--audit") as started:
        yield started


@contextlib.contextmanager
def _started(*words: str) -> Iterator[RealCluster]:
    with tempfile.TemporaryDirectory(prefix="mpk", dir="/tmp") as folder:  # sockets need a short path
        root = Path(folder, "k")
        try:
            facts = json.loads(_run("up", str(root), *words))
            yield RealCluster(Path(facts["kubeconfig"]), facts["context"], facts["kubectl"])
        finally:
            _run("down", str(root))


def _run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], stdout=subprocess.PIPE, text=True, timeout=UP_S, check=True
    )
    return done.stdout
