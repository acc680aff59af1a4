"""Whether pods find GPUs of their product, and drivers new enough for their image. Used by preflight.

Nodes and pods are listed once for a cluster, whatever changes. What a deployment's own pods hold is free for it where they
go before the new ones come.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from pipeline.clients.kube import CONFIG_MAP, POD, Cluster, Object
from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.errors import BackendError
from pipeline.resources.cluster.capacity import (
    HOLDING,
    PRODUCT,
    Ask,
    GpuNode,
    counted,
    gpus_of,
    gpus_of_node,
    unplaced,
    usable,
)
from pipeline.resources.cluster.preflight.steps import Step, pods_of, stays
from pipeline.resources.cluster.workloads import INSTANCE, WORKLOADS

# Node labels of the driver, by NVIDIA's GPU feature discovery: of k8s-device-plugin 0.16 and newer, and before.
DRIVER = (("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver-version.minor"),
          ("nvidia.com/cuda.driver.major", "nvidia.com/cuda.driver.minor"))  # fmt: skip
KARPENTER = "karpenter.sh"  # API group of Karpenter
AUTOSCALER = ("kube-system", "cluster-autoscaler-status")  # ConfigMap that cluster-autoscaler writes


def wants_gpus(steps: Iterable[Step]) -> bool:
    return any(gpus_of(pods.spec) for step in steps for one in step.wanted.values() for pods in pods_of(one))


def gpus(cluster: Cluster, nodes: Sequence[Object], steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """Refusals for what finds no GPU, and warnings where it may find one later. `steps` are those of the whole cluster."""
    each = [(step, ask) for step in steps for ask in _asks(step)]
    asks = {f"{index}": pair for index, pair in enumerate(each)}  # two targets may have one name
    if not asks:
        return
    pods = cluster.list(POD, "", fields=HOLDING)
    with_gpus = [node for node in nodes if gpus_of_node(node)]
    replaced, removed = _own(steps, _goes), _own(steps, lambda step: not step.wanted)
    now = counted(with_gpus, (pod for pod in pods if _key(pod) not in replaced))
    wanted = [Ask(name, ask.gpus, ask.pods, ask.spec) for name, (_, ask) in asks.items()]
    lacking = unplaced(now, wanted)
    if not lacking:
        return
    then = counted(with_gpus, (pod for pod in pods if _key(pod) not in replaced | removed))
    later = "a node may be added" if _grows(cluster) else None
    later = later or ("they are free once what is deleted is gone" if not unplaced(then, wanted) else None)
    for name, count in sorted(lacking.items()):
        step, ask = asks[name]
        summary = f"{step.model}: {_said(ask, count, usable(now, ask.spec), now)} in {cluster.system}"
        if later:
            yield warning(f"{summary}; {later}", step.where, "apply waits for it and may fail", step.model)
        else:
            hint = (
                "free some, take fewer replicas, or use another hardware class: kubectl get nodes -L "
                + PRODUCT
            )
            yield error(summary, step.where, hint, step.model)


def drivers(cluster: Cluster, nodes: Sequence[Object], steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """Refusals for images that need a newer driver than any node that their pods may go to has."""
    found = counted([node for node in nodes if gpus_of_node(node)], ())
    for step in steps:
        floor = step.recipe.gpu_driver if step.recipe else None
        if floor is None:
            continue
        places = [
            node
            for ask in _asks(step, everything=True)
            for node in usable(found, ask.spec)
            if driver_of(node.node)
        ]
        old = {node.name: driver_of(node.node) for node in places if driver_of(node.node) < _numbers(floor)}
        if not old:
            continue
        name, version = min(old.items())
        make = error if len(old) == len({node.name for node in places}) else warning
        yield make(
            f"{step.model}: its image needs GPU driver {floor}, and {len(old)} of {len(places)} nodes that it may go to "
            f"have an older one ({name}: {'.'.join(map(str, version))})",
            step.where,
            f"update the driver, or pin an engine version made for it: engines: {{…: {{version: …}}}} ({cluster.system})",
            step.model,
        )


def driver_of(node: Object) -> tuple[int, ...]:
    """The driver's version as its labels tell it: (580, 65); () where nothing tells it."""
    labels = node["metadata"].get("labels") or {}
    for major, minor in DRIVER:
        if str(labels.get(major, "")).isdigit():
            return _numbers(f"{labels[major]}.{labels.get(minor, '0')}")
    return ()


def _asks(step: Step, *, everything: bool = False) -> list[Ask]:
    """What a step needs besides what stays; `everything`: all its pods that have GPUs."""
    found = []
    for key, one in step.wanted.items():
        for index, pods in enumerate(pods_of(one)):
            count = pods.count if everything else _more(step, key, index)
            if (each := gpus_of(pods.spec)) and count > 0:
                found.append(Ask(step.model, each, count, pods.spec))
    return found


def _more(step: Step, key: str, index: int) -> int:
    """Pods that need a place of their own: all of them where the old ones go first, else those that come besides."""
    pods = list(pods_of(step.wanted[key]))[index]
    if _goes(step) or key not in step.live:
        return pods.count
    live = [each.count for each in pods_of(step.live[key])]
    before = live[index] if index < len(live) else 0
    return pods.count - before + (0 if stays(step, key) else pods.surge)


def _goes(step: Step) -> bool:
    """The pods of this deployment go before new ones come."""
    keys = [key for key in step.wanted if key.partition("/")[0] in WORKLOADS]
    return any(
        key in step.live and not stays(step, key) and not any(p.surge for p in pods_of(step.wanted[key]))
        for key in keys
    )


def _own(steps: Iterable[Step], chosen: Callable[[Step], bool]) -> set[tuple[str, str]]:
    return {(step.namespace, step.name) for step in steps if chosen(step)}


def _key(pod: Object) -> tuple[str, str]:
    """Namespace and deployment of a pod."""
    metadata = pod["metadata"]
    return str(metadata.get("namespace")), str((metadata.get("labels") or {}).get(INSTANCE))


def _said(ask: Ask, count: int, allowed: Sequence[GpuNode], nodes: Sequence[GpuNode]) -> str:
    """ "needs 4 × NVIDIA-L40S for each of 2 pods, and 2 are free"."""
    products = sorted({one.product for one in allowed if one.product})
    pods = f" for each of {ask.pods} pods" if ask.pods > 1 else ""
    need = f"needs {ask.gpus} × {' or '.join(products) or _wanted(ask)}{pods}"
    if not allowed:
        return f"{need}, and no node that it may go to has any"
    free = sum(one.free for one in allowed)
    most = max(one.free for one in allowed)
    if free >= ask.gpus * ask.pods and most < ask.gpus:
        return f"{need}, and {free} are free, on one node at most {most}"
    return f"{need}, and {free} are free" + (f": {count} find none" if count < ask.pods else "")


def _wanted(ask: Ask) -> str:
    """What a pod asks of the label, where no node has it."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    affinity = (ask.spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for rule in term.get("matchExpressions") or ():
            found[rule["key"]] += rule.get("values") or ()
    return " or ".join(found[PRODUCT]) or "GPUs"


def _grows(cluster: Cluster) -> bool:
    """An autoscaler adds nodes when pods wait: Karpenter, or the cluster autoscaler of clouds."""
    try:
        return KARPENTER in cluster.groups() or cluster.get(CONFIG_MAP, *AUTOSCALER) is not None
    except BackendError:  # not to be seen: then it is not known
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
