"""Whether pods find GPUs of their product, and drivers new enough for their image. Used by preflight.

Nodes and pods are listed once for a cluster, whatever changes. What a deployment's own pods hold is free for it where they
go before the new ones come.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from pipeline.clients.kube import CONFIG_MAP, POD, REPLICA_SET, Cluster, Object
from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.resources.cluster.canary import SUFFIX, canary_key
from pipeline.resources.cluster.capacity import (
    HOLDING,
    Ask,
    GpuNode,
    counted,
    gpus_of,
    gpus_of_node,
    unplaced,
    usable,
)
from pipeline.resources.cluster.fields import is_leaving, labels_in
from pipeline.resources.cluster.preflight.steps import Step, pods_of, returns, stays
from pipeline.resources.cluster.products import PRODUCT
from pipeline.resources.cluster.workloads import INSTANCE, WORKLOADS

# Node labels of the driver, by NVIDIA's GPU feature discovery: of k8s-device-plugin 0.16 and newer, and before.
DRIVER = (("nvidia.com/cuda.driver-version.major", "nvidia.com/cuda.driver-version.minor"),
          ("nvidia.com/cuda.driver.major", "nvidia.com/cuda.driver.minor"))  # fmt: skip
NO_ROOM = f"free some, take fewer replicas, or use another hardware class: kubectl get nodes -L {PRODUCT}"
BESIDE = "free some, or let the old pod go first, which interrupts it: rollout: {when_no_spare: recreate}"
KARPENTER = "karpenter.sh"  # API group of Karpenter
AUTOSCALER = ("kube-system", "cluster-autoscaler-status")  # ConfigMap that cluster-autoscaler writes


def wants_gpus(steps: Iterable[Step]) -> bool:
    return any(gpus_of(pods.spec) for step in steps for one in step.wanted.values() for pods in pods_of(one))


@frozen
class Wish:
    """Pods of a step that need places of their own."""

    step: Step
    key: str  # of the workload: "Deployment/qwen"
    ask: Ask
    beside: bool  # only while a new version comes beside the old one: one roll-out after the other (turns.py)


def gpus(cluster: Cluster, nodes: Sequence[Object], steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """Refusals for what finds no GPU, and warnings where it may find one later. `steps` are those of the whole cluster."""
    wishes = [wish for step in steps for wish in _wishes(step)]
    wishes = _without_returning(cluster, wishes)
    if not wishes:
        return
    pods = [one for one in cluster.list(POD, "", fields=HOLDING) if not is_leaving(one)]
    with_gpus = [node for node in nodes if gpus_of_node(node)]
    replaced = _own(steps, _goes) | set(_canaries(steps))
    removed = _own(steps, lambda step: not step.wanted)
    now = counted(with_gpus, (pod for pod in pods if _key(pod) not in replaced))
    if not (lacking := _lacking(now, wishes)):
        return
    then = counted(with_gpus, (pod for pod in pods if _key(pod) not in replaced | removed))
    later = "a node may be added" if grows(cluster) else ""
    later = later or ("" if _lacking(then, wishes) else "they are free once what is deleted is gone")
    for wish, count in lacking:
        text = f"{wish.step.model}: {_said(wish, count, usable(now, wish.ask.spec))} in {cluster.system}"
        yield _judged(wish, text, later)


def _without_returning(cluster: Cluster, wishes: Sequence[Wish]) -> list[Wish]:
    """Those of versions whose pods are not there already."""
    namespaces = {wish.step.namespace for wish in wishes if wish.beside}
    sets = {name: cluster.list(REPLICA_SET, name) for name in sorted(namespaces)}
    return [
        wish
        for wish in wishes
        if not (wish.beside and returns(wish.step, wish.key, sets[wish.step.namespace]))
    ]


def _lacking(nodes: Sequence[GpuNode], wishes: Iterable[Wish]) -> list[tuple[Wish, int]]:
    """How many pods of each find no place: what stays all together, what comes beside others each by itself."""
    by_number = dict(enumerate(wishes))
    asks = {number: replace(wish.ask, name=str(number)) for number, wish in by_number.items()}
    staying = [asks[number] for number, wish in by_number.items() if not wish.beside]
    found = unplaced(nodes, staying)
    for number, wish in by_number.items():
        if wish.beside and (count := unplaced(nodes, [*staying, asks[number]]).get(str(number))):
            found[str(number)] = count
    return [(by_number[number], count) for number, count in sorted((int(k), v) for k, v in found.items())]


def _judged(wish: Wish, text: str, later: str) -> Diagnostic:
    step = wish.step
    if wish.beside and step.recipe and step.recipe.recreate:
        return warning(
            f"{text}: it does not answer while its old pod goes first", step.where, None, step.model
        )
    if later:
        return warning(f"{text}; {later}", step.where, "apply waits for it and may fail", step.model)
    return error(text, step.where, BESIDE if wish.beside else NO_ROOM, step.model)


def drivers(cluster: Cluster, nodes: Sequence[Object], steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """Refusals for images that need a newer driver than any node that their pods may go to has."""
    found = counted([node for node in nodes if gpus_of_node(node)], ())
    for step in steps:
        floor = step.recipe.gpu_driver if step.recipe else None
        if floor is None:
            continue
        places = [node for ask in _asks(step) for node in usable(found, ask.spec) if driver_of(node.node)]
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
    labels = labels_in(node)
    for major, minor in DRIVER:
        if str(labels.get(major, "")).isdigit():
            return _numbers(f"{labels[major]}.{labels.get(minor, '0')}")
    return ()


def _asks(step: Step) -> list[Ask]:
    """All pods of a step that have GPUs."""
    found = [pods for one in step.wanted.values() for pods in pods_of(one)]
    return [
        Ask(step.model, gpus_of(each.spec), each.count, each.spec) for each in found if gpus_of(each.spec)
    ]


def _wishes(step: Step) -> Iterator[Wish]:
    """What a step needs besides what stays: all its pods where the old ones go first, else those that come besides."""
    for key, one in step.wanted.items():
        if key == canary_key(step.name):
            yield from () if stays(step, key) else _whole(step, key)
            continue
        live = [pods.count for pods in pods_of(step.live[key])] if key in step.live else []
        beside = bool(live) and not _goes(step)
        for pods, before in zip_longest(pods_of(one), live if beside else ()):
            if pods is None or not (each := gpus_of(pods.spec)):
                continue
            if (more := pods.count - (before or 0)) > 0:
                yield Wish(step, key, Ask(step.model, each, more, pods.spec), beside=False)
            if beside and pods.surge and not stays(step, key):
                yield Wish(step, key, Ask(step.model, each, pods.surge, pods.spec), beside=True)


def _whole(step: Step, key: str) -> Iterator[Wish]:
    for pods in pods_of(step.wanted[key]):
        if each := gpus_of(pods.spec):
            yield Wish(step, key, Ask(step.model, each, pods.count, pods.spec), beside=False)


def _goes(step: Step) -> bool:
    """The pods of this deployment go before new ones come."""
    canary = canary_key(step.name)
    keys = [key for key in step.wanted if key.partition("/")[0] in WORKLOADS and key != canary]
    return any(
        key in step.live and not stays(step, key) and not any(p.surge for p in pods_of(step.wanted[key]))
        for key in keys
    )


def _canaries(steps: Iterable[Step]) -> Iterator[tuple[str, str]]:
    """Those whose pod goes before anything comes: they are promoted, replaced or taken away."""
    for step in steps:
        key = canary_key(step.name)
        if key in step.live and not (key in step.wanted and stays(step, key)):
            yield step.namespace, step.name + SUFFIX


def _own(steps: Iterable[Step], chosen: Callable[[Step], bool]) -> set[tuple[str, str]]:
    return {(step.namespace, step.name) for step in steps if chosen(step)}


def _key(pod: Object) -> tuple[str, str]:
    """Namespace and deployment of a pod."""
    return str(pod["metadata"].get("namespace")), str(labels_in(pod).get(INSTANCE))


def _said(wish: Wish, count: int, allowed: Sequence[GpuNode]) -> str:
    """ "needs 4 × NVIDIA-L40S for each of 2 pods, and 2 are free"."""
    ask = wish.ask
    products = sorted({one.product for one in allowed if one.product})
    pods = f" for each of {ask.pods} pods" if ask.pods > 1 else ""
    old = " beside its old pod" if wish.beside else ""
    need = f"needs {ask.gpus} × {' or '.join(products) or _wanted(ask)}{pods}{old}"
    if not allowed:
        return f"{need}, and no node that it may go to has any"
    free, most = sum(one.free for one in allowed), max(one.free for one in allowed)
    if free >= ask.gpus and most < ask.gpus:
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


def grows(cluster: Cluster) -> bool:
    """An autoscaler adds nodes when pods wait: Karpenter, or the cluster autoscaler of clouds."""
    try:
        return KARPENTER in cluster.groups() or cluster.get(CONFIG_MAP, *AUTOSCALER) is not None
    except BackendError:  # not to be seen: then it is not known
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
