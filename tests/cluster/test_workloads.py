"""Workloads on nodes that only seem to have GPUs: several nodes, GPUs that are spare or not, and autoscalers.

The LeaderWorkerSet's controller is played: its pods and its status are made as it would. All else is the real one.
"""

import json
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import pytest

from pipeline.clients.kube import Cluster
from pipeline.core.change import Action, Change, differences
from pipeline.core.errors import Refused, StartFailed
from pipeline.core.model import Hardware, Model
from pipeline.core.resource import Address, Entry, Mark, Observed, Resource, fields_of
from pipeline.resources.cluster.driver import ClusterDriver
from pipeline.resources.cluster.marks import TEMPLATE
from pipeline.resources.cluster.pods import is_ready
from pipeline.resources.cluster.state import ClusterState
from tests.parts.cluster import RealCluster
from tests.parts.deployments import a_model, deployment

pytestmark = pytest.mark.cluster

Object = dict[str, Any]  # Any: an object of the API
DIGEST = f"sha256:{'c' * 64}"
SLOW_S = 60.0


@dataclass
class Room:
    """A namespace, nodes of a product that no other test has, and a driver; `kept` is what an inventory would know."""

    cluster: RealCluster
    namespace: str
    product: str
    driver: ClusterDriver
    kept: dict[Address, Entry] = field(default_factory=dict)

    def model(self, gpus: int, nodes: int = 1, **changed: Any) -> Model:
        hardware = Hardware("gpu", gpus, self.product, cpus=1, memory_bytes=2**30, nodes=nodes)
        return replace(a_model("vllm", hardware), **changed)

    def wanted(self, model: Model, **options: Any) -> Resource[ClusterState]:
        return deployment(model, spec={"namespace": self.namespace}, prove="skip", **options)

    def apply(self, wanted: Resource[ClusterState], said: Callable[[Any], None] = lambda _: None) -> None:
        """As `mp apply` does one change, and remembers it."""
        recipe = wanted.desired.recipe
        assert recipe is not None
        image = Observed(wanted.desired, digest=DIGEST)  # type: ignore[arg-type]
        entry = self.kept.get(wanted.address)
        change = Change(wanted.address, wanted.kind, Action.UPDATE, wanted, None, entry)
        made = self.driver.apply(change, dict.fromkeys(recipe.images.values(), image), said)
        assert made is not None
        state = fields_of(made.state)
        self.kept[wanted.address] = Entry(
            wanted.address, wanted.kind, wanted.locator, None, None, applied=state, good=state
        )

    def remove(self, wanted: Resource[ClusterState]) -> None:
        entry = self.kept.pop(wanted.address)
        self.driver.apply(
            Change(entry.address, entry.kind, Action.DELETE, None, None, entry), {}, lambda _: None
        )

    def seen(self, wanted: Resource[ClusterState]) -> Observed[ClusterState]:
        found = self.driver.observe([wanted], [])[wanted.address]
        assert isinstance(found, Observed), found
        return found

    def differs(self, wanted: Resource[ClusterState]) -> list[str]:
        """Paths of what a plan would change."""
        seen = self.seen(wanted)
        return [
            one.path for one in differences(fields_of(seen.state), fields_of(seen.would_be or wanted.desired))
        ]

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, *what: str) -> Any:
        return self.cluster.get(self.namespace, *what)

    def spec(self, name: str = "qwen") -> Any:
        return self.get("deployment", name)["spec"]


@pytest.fixture
def room(simulated: RealCluster) -> Iterator[Room]:
    product = f"NVIDIA-{uuid.uuid4().hex[:8].upper()}"
    connection = Cluster(simulated.context, {"KUBECONFIG": str(simulated.kubeconfig)})
    driver = ClusterDriver(lambda _: connection, Mark("acme", "default", Address("")), lambda _: "")
    with simulated.namespace() as namespace:
        yield Room(simulated, namespace, product, driver)
        simulated.kubectl("delete", "nodes", "-l", f"nvidia.com/gpu.product={product}", "--wait=false")


def add_node(room: Room, gpus: int) -> None:
    resources = {"cpu": "96", "memory": "1Ti", "pods": "250", "nvidia.com/gpu": str(gpus)}
    metadata = {
        "name": f"node-{uuid.uuid4().hex[:8]}",
        "annotations": {"kwok.x-k8s.io/node": "fake"},
        "labels": {"nvidia.com/gpu.product": room.product},
    }
    status = {"allocatable": resources, "capacity": resources}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}
    room.cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
    room.cluster.kubectl("wait", "--for=condition=Ready", f"node/{metadata['name']}", "--timeout=60s")


@contextmanager
def watching(room: Room) -> Iterator[dict[str, int]]:
    """The fewest pods of each Deployment that were available in the block: every change of a status is looked at."""
    fewest: dict[str, int] = {}
    line = "jsonpath={.metadata.name} {.status.availableReplicas}{'\\n'}"
    flags = (f"--kubeconfig={room.cluster.kubeconfig}", "-n", room.namespace)
    command = (room.cluster.kubectl_path, *flags, "get", "deployments", "--watch", "-o", line)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        first = watcher.stdout.readline()
        try:
            yield fewest
        finally:
            time.sleep(1)
            watcher.terminate()
            for name, _, available in map(str.partition, [first, *watcher.stdout], repeat(" ")):
                count = int(available.strip() or 0)
                fewest[name] = min(count, fewest.get(name, count))


# GPUs that are spare


def test_new_versions_come_beside_old_ones_while_a_gpu_is_spare_and_then_nothing_is_to_do(room: Room) -> None:
    add_node(room, 3)
    room.apply(room.wanted(room.model(1), replicas=2))
    with watching(room) as fewest:
        for number in ("1", "2"):
            room.apply(room.wanted(room.model(1, env={"VERSION": number}), replicas=2))
    assert fewest["qwen"] == 2
    assert room.differs(room.wanted(room.model(1, env={"VERSION": "2"}), replicas=2)) == []


def test_without_a_spare_gpu_a_new_version_is_refused_and_the_old_one_stays(room: Room) -> None:
    add_node(room, 1)
    room.apply(room.wanted(room.model(1)))
    before = room.get("deployment", "qwen")["metadata"]["generation"]
    with pytest.raises(Refused, match="no GPU is spare"):
        room.apply(room.wanted(room.model(1, env={"VERSION": "2"})))
    assert room.get("deployment", "qwen")["metadata"]["generation"] == before


@pytest.mark.parametrize("replicas", [1, 2])
def test_without_a_spare_gpu_the_old_pod_goes_first_where_that_is_allowed(room: Room, replicas: int) -> None:
    add_node(room, replicas)
    options = {"replicas": replicas, "rollout": {"when_no_spare": "recreate"}}
    room.apply(room.wanted(room.model(1), **options))
    with watching(room) as fewest:
        room.apply(room.wanted(room.model(1, env={"VERSION": "2"}), **options))
    assert fewest["qwen"] == replicas - 1  # one after the other
    assert room.spec()["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert room.differs(room.wanted(room.model(1, env={"VERSION": "2"}), **options)) == []


def test_one_spare_gpu_serves_one_roll_out_after_the_other(room: Room) -> None:
    add_node(room, 4)
    names = ("one", "two", "three")
    for name in names:
        room.apply(room.wanted(room.model(1, name=name)))
    with watching(room) as fewest, ThreadPoolExecutor(3) as pool:
        changed = [room.wanted(room.model(1, name=name, env={"VERSION": "2"})) for name in names]
        list(pool.map(room.apply, changed))
    assert fewest == dict.fromkeys(names, 1)


# Autoscalers


def wait_for(what: Callable[[], bool], limit_s: float = SLOW_S) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, what
        time.sleep(0.5)


def test_replicas_that_somebody_elses_autoscaler_sets_are_left_alone_and_taken_back_when_it_is_gone(
    room: Room,
) -> None:
    wanted = room.wanted(a_model())
    room.apply(wanted)
    room.kubectl("autoscale", "deployment", "qwen", "--min=3", "--max=4", "--cpu=50%")
    wait_for(lambda: bool(room.spec()["replicas"] == 3))  # the real controller
    wait_for(lambda: room.differs(wanted) == [])  # once the new pods are ready
    assert room.seen(wanted).note == "HorizontalPodAutoscaler/qwen sets its replicas: they are left alone"
    room.apply(room.wanted(a_model(env={"VERSION": "2"})))
    assert room.spec()["replicas"] == 3
    assert room.differs(room.wanted(a_model(env={"VERSION": "2"}))) == []

    room.kubectl("delete", "hpa", "qwen")
    assert room.differs(wanted)
    room.apply(wanted)
    assert room.spec()["replicas"] == 1
    assert room.differs(wanted) == []


def test_our_own_autoscaler_sets_replicas_and_gives_them_back(room: Room) -> None:
    scaled = room.wanted(a_model(), autoscale={"min": 1, "max": 4})
    room.apply(scaled)
    room.kubectl("patch", "hpa", "qwen", "-p", '{"spec": {"minReplicas": 3}}')
    wait_for(lambda: bool(room.spec()["replicas"] == 3))
    by_hand = ["objects/HorizontalPodAutoscaler~1qwen/spec/minReplicas"]
    wait_for(lambda: room.differs(scaled) == by_hand)  # once the new pods are ready
    room.apply(scaled)
    assert room.spec()["replicas"] == 3
    assert room.differs(scaled) == []

    plain = room.wanted(a_model(), replicas=2)
    assert "objects/Deployment~1qwen/spec/replicas" in room.differs(plain)
    room.apply(plain)
    assert room.get("hpa")["items"] == []
    assert room.spec()["replicas"] == 2
    assert room.differs(plain) == []


def test_another_number_at_first_is_no_change_later(room: Room) -> None:
    room.apply(room.wanted(a_model(), autoscale={"by": "other"}, replicas=2))
    room.kubectl("scale", "deployment", "qwen", "--replicas=4")
    wanted = room.wanted(a_model(), autoscale={"by": "other"}, replicas=2)
    wait_for(lambda: room.differs(wanted) == [])  # once the new pods are ready


def test_one_old_pod_of_four_that_were_set_by_others_is_not_all_of_them(room: Room) -> None:
    add_node(room, 4)
    wanted = room.wanted(room.model(1), autoscale={"by": "other"})
    room.apply(wanted)
    room.kubectl("scale", "deployment", "qwen", "--replicas=4")
    wait_for(lambda: room.differs(wanted) == [])  # once the new pods are ready
    amounts = {"nvidia.com/gpu": "9"}  # no node has so many
    server = {"name": "server", "resources": {"limits": amounts, "requests": amounts}}
    by_hand = {
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 3}},
        "template": {"spec": {"containers": [server]}},
    }
    room.kubectl("patch", "deployment", "qwen", "-p", json.dumps({"spec": by_hand}))
    wait_for(lambda: room.get("deployment", "qwen")["status"].get("availableReplicas") == 1)
    room.apply(room.wanted(room.model(1, name="other"), replicas=3))  # it takes what is free
    with pytest.raises(Refused, match="no GPU is spare"):  # and does not wait for three that never come
        room.apply(wanted)


# Several nodes


@dataclass
class Controller:
    """Does what LeaderWorkerSet's controller does: pods of each group, by the templates as they are, and the status."""

    room: Room
    broken: str = ""  # version of the template whose leaders end with exit code 1
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.is_set():
            for one in self.room.get("leaderworkersets")["items"]:
                self.reconcile(one)
            time.sleep(0.2)

    def reconcile(self, one: Object) -> None:
        template, name = one["spec"]["leaderWorkerTemplate"], one["metadata"]["name"]
        wanted = {f"{name}-{group}" for group in range(one["spec"]["replicas"])}
        own = self.room.get("pods", "-l", f"leaderworkerset.sigs.k8s.io/name={name}")["items"]
        pods = {pod["metadata"]["name"]: pod for pod in own}
        version = template["workerTemplate"]["metadata"]["annotations"][TEMPLATE]
        for pod_name, pod in pods.items():
            if pod["metadata"]["annotations"][TEMPLATE] != version:
                self.room.kubectl("delete", "pod", pod_name, "--grace-period=0", "--force")
        for group in sorted(wanted):
            for rank in range(template["size"]):
                self.pod(one, group, rank)
        ready = sum(self.is_ready(group, template["size"]) for group in wanted)
        status = {
            "observedGeneration": one["metadata"]["generation"],
            "replicas": len(wanted),
            "updatedReplicas": len(wanted),
            "readyReplicas": ready,
        }
        if one.get("status") != status:
            patch = json.dumps({"status": status})
            self.room.kubectl(
                "patch", "leaderworkerset", name, "--subresource=status", "--type=merge", "-p", patch
            )

    def pod(self, one: Object, group: str, rank: int) -> None:
        key = "leaderTemplate" if rank == 0 else "workerTemplate"
        template = one["spec"]["leaderWorkerTemplate"][key]
        name = group if rank == 0 else f"{group}-{rank}"
        labels = {
            **template["metadata"]["labels"],
            "leaderworkerset.sigs.k8s.io/name": one["metadata"]["name"],
            "leaderworkerset.sigs.k8s.io/worker-index": str(rank),
        }
        owner = {key: one["metadata"][key] for key in ("name", "uid")}
        metadata = {
            "name": name,
            "labels": labels,
            "annotations": template["metadata"]["annotations"],
            "ownerReferences": [{"apiVersion": one["apiVersion"], "kind": one["kind"], **owner}],
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        if any(found["metadata"]["name"] == name for found in self.room.get("pods")["items"]):
            return
        self.room.kubectl("create", "-f", "-", stdin=json.dumps(pod))
        if rank == 0 and template["metadata"]["annotations"][TEMPLATE] == self.broken:
            wait_for(lambda: self.room.get("pod", name)["status"].get("containerStatuses") is not None)
            ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
            status = {
                "name": "server",
                "ready": False,
                "state": ended,
                "image": "i",
                "imageID": "",
                "restartCount": 1,
            }
            unready = {"type": "Ready", "status": "False"}
            patch = json.dumps({"status": {"containerStatuses": [status], "conditions": [unready]}})
            self.room.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)

    def is_ready(self, group: str, size: int) -> bool:
        """Whether all its pods are."""
        names = {group, *(f"{group}-{rank}" for rank in range(1, size))}
        pods = [pod for pod in self.room.get("pods")["items"] if pod["metadata"]["name"] in names]
        return len(pods) == size and all(map(is_ready, pods))


@contextmanager
def controlled(room: Room, broken: str = "") -> Iterator[None]:
    room.cluster.install("LeaderWorkerSet")
    controller = Controller(room, broken)
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        yield
    finally:
        controller.over.set()
        thread.join()


def test_a_model_on_two_nodes_is_rolled_out_compared_and_removed(room: Room) -> None:
    for _ in range(3):
        add_node(room, 8)
    first = room.wanted(room.model(8, nodes=2))
    with controlled(room):
        room.apply(first)
        nodes = {pod["spec"]["nodeName"] for pod in room.get("pods")["items"]}
        assert len(nodes) == 2  # a group has one pod a node
        assert room.differs(first) == []
        second = room.wanted(
            room.model(8, nodes=2, env={"VERSION": "2"}), rollout={"when_no_spare": "recreate"}
        )
        room.apply(second)  # nothing is spare for a second group: the old one goes first
        assert room.differs(second) == []
        assert room.seen(second).state.health == "Healthy"
    room.remove(second)
    assert (
        room.get("leaderworkersets,services,configmaps", "-l", "app.kubernetes.io/instance=qwen")["items"]
        == []
    )


def test_a_group_whose_leader_ends_says_why_and_the_version_before_serves_again(room: Room) -> None:
    for _ in range(4):
        add_node(room, 8)
    first, second = room.wanted(room.model(8, nodes=2)), room.wanted(room.model(8, nodes=2, env={"A": "1"}))
    one: Any = second.desired.objects["LeaderWorkerSet/qwen"]
    broken = one["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["metadata"]["annotations"][TEMPLATE]
    with controlled(room, broken):
        room.apply(first)
        with pytest.raises(StartFailed, match="exit code 1") as caught:
            room.apply(second)
        assert caught.value.hint == "the last good version serves again"
        assert room.differs(first) == []


def test_a_model_that_moves_to_two_nodes_leaves_no_deployment_behind(room: Room) -> None:
    for _ in range(3):
        add_node(room, 8)
    room.apply(room.wanted(room.model(8)))
    wide = room.wanted(room.model(8, nodes=2))
    with controlled(room):
        room.apply(wide)
        assert room.differs(wide) == []
    assert room.get("deployments")["items"] == []
