"""GPUs of a cluster: which node has which, how many are free, and which pods would find none. Used by preflight.

Free is what a node can allocate less what pods on it ask for. Labels are those of NVIDIA's GPU feature discovery.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.clients.kube import NODE, POD, Cluster, Object
from pipeline.core.frozen import frozen
from pipeline.resources.cluster.fields import labels_in, met
from pipeline.resources.cluster.placing import admits
from pipeline.resources.cluster.products import GPU, PRODUCT
from pipeline.resources.cluster.quantities import Amounts, amount, of_pod

# Pods that hold something of a node: those that have one and have not ended.
HOLDING = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


@frozen
class GpuNode:
    """One node that has GPUs. `node` is the object as it is: labels, taints, versions."""

    name: str
    product: str  # value of the label, "NVIDIA-L40S"; "" where nothing labels nodes
    gpus: int  # that pods can have
    free: int
    node: Object


@frozen
class Ask:
    """Pods that need GPUs."""

    name: str  # for messages: the model's
    gpus: int  # of each pod, all on one node
    pods: int
    spec: Mapping[str, Any]  # of the pod: it says which nodes it may go to


def gpu_nodes(cluster: Cluster, leaving: Callable[[Object], bool] = lambda pod: False) -> tuple[GpuNode, ...]:
    """Every node that has GPUs: one list of nodes and one of pods, of all namespaces. Raises Denied, Unreachable.

    What pods hold for which `leaving` is true counts as free.
    """
    nodes = [one for one in cluster.list(NODE, "") if gpus_of_node(one)]
    if not nodes:
        return ()
    return counted(nodes, (pod for pod in cluster.list(POD, "", fields=HOLDING) if not leaving(pod)))


def counted(nodes: Iterable[Object], pods: Iterable[Object]) -> tuple[GpuNode, ...]:
    """Nodes with what the pods leave of their GPUs, by name."""
    held: defaultdict[str, int] = defaultdict(int)
    for pod in pods:
        held[str(pod["spec"].get("nodeName"))] += gpus_of(pod["spec"])
    found = []
    for node in nodes:
        name, gpus = str(node["metadata"]["name"]), gpus_of_node(node)
        product = labels_in(node).get(PRODUCT, "")
        found.append(GpuNode(name, product, gpus, max(gpus - held[name], 0), node))
    return tuple(sorted(found, key=lambda one: one.name))


def free_by_product(nodes: Iterable[GpuNode]) -> Mapping[str, int]:
    """How many GPUs of each product are free on nodes that take pods now: {"NVIDIA-L40S": 3}."""
    found: Counter[str] = Counter()
    for one in nodes:
        found[one.product] += one.free if serves(one.node) else 0
    return found


def usable(nodes: Iterable[GpuNode], spec: Mapping[str, Any]) -> tuple[GpuNode, ...]:
    """The nodes that a pod may go to, whether there is room or not."""
    return tuple(one for one in nodes if serves(one.node) and admits(one.node, spec))


def serves(node: Object) -> bool:
    """A node that is ready and not cordoned."""
    return met(node, "Ready") is not None and not node["spec"].get("unschedulable")


def unplaced(nodes: Sequence[GpuNode], asks: Iterable[Ask]) -> dict[str, int]:
    """How many pods of each ask find no node, by its name. The largest and the choosiest go first, each to the fullest node."""
    free = {one.name: one.free for one in nodes}
    places = [(ask, usable(nodes, ask.spec)) for ask in asks]
    lacking: dict[str, int] = {}
    for ask, allowed in sorted(places, key=lambda pair: (-pair[0].gpus, len(pair[1]))):
        for _ in range(ask.pods):
            fitting = [one.name for one in allowed if free[one.name] >= ask.gpus]
            if fitting:
                free[min(fitting, key=lambda name: free[name])] -= ask.gpus
            else:
                lacking[ask.name] = lacking.get(ask.name, 0) + 1
    return lacking


def gpus_of(spec: Mapping[str, Any]) -> int:
    """GPUs that a pod asks for; those that run before the others may use the same ones."""
    return int(of_pod(spec, _gpus).get(GPU, 0))


def gpus_of_node(node: Object) -> int:
    return int(amount(((node.get("status") or {}).get("allocatable") or {}).get(GPU, 0)))


def _gpus(container: Mapping[str, Any]) -> Amounts:
    resources = container.get("resources") or {}
    asked = (resources.get("limits") or {}).get(GPU) or (resources.get("requests") or {}).get(GPU) or 0
    return {GPU: amount(asked)} if asked else {}
