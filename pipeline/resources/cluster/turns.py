"""Whose new pods come beside the old ones, and when: GPUs that are spare are used by one roll-out after the other.

What is written down is always that a new pod comes first. Where no GPU is spare for it, the old one goes first for as long
as that roll-out takes, if the entry allows it; afterwards the object is as it was, so that no plan depends on who uses the
cluster today.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pipeline.clients.kube import REPLICA_SET, Cluster, Object
from pipeline.core.errors import BackendError, Refused
from pipeline.core.frozen import frozen
from pipeline.resources.cluster.capacity import Ask, gpu_nodes, gpus_of, unplaced
from pipeline.resources.cluster.fields import is_leaving
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.preflight.gpus import grows
from pipeline.resources.cluster.preflight.steps import pods_of
from pipeline.resources.cluster.returning import comes_back
from pipeline.resources.cluster.rotation import recorded
from pipeline.resources.cluster.sending import digests_in
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.workloads import workload_in, workloads_in

LOOK_S = 5.0  # between two looks at what others have freed


@frozen
class Turn:
    """How one roll-out goes about it."""

    old_first: bool = False
    leaving: tuple[str, ...] = ()  # workloads of another kind that are deleted before: "Deployment/qwen"


class Turns:
    """Who has which spare GPUs of which cluster; shared by the roll-outs of a driver."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: dict[str, list[tuple[Ask, ...]]] = {}

    @contextmanager
    def turn(
        self, cluster: Cluster, wanted: Live, before: Live, digests: Mapping[str, str], *, may_interrupt: bool
    ) -> Iterator[Turn]:
        """Waits until GPUs are spare for what comes beside the old pods, and keeps them for the block.

        Raises Refused where none can become free and nothing may be interrupted; nothing was changed by then.
        """
        asks = beside(wanted, before, digests)
        if asks and _comes_back(cluster, wanted, digests):
            asks = ()
        held = bool(asks) and self._take(cluster, asks, may_interrupt=may_interrupt)
        if asks and not held:
            others = tuple(key for key in before if workload_in({key: before[key]}) and key not in wanted)
            yield Turn(old_first=True, leaving=others)
            return
        try:
            yield Turn()
        finally:
            if held:
                with self._changed:
                    self._held[cluster.system].remove(asks)
                    self._changed.notify_all()

    def _take(self, cluster: Cluster, asks: tuple[Ask, ...], *, may_interrupt: bool) -> bool:
        """Whether the GPUs are there, and kept for us then. Where we may not look, they are not counted on if we need not."""
        with self._changed:
            held = self._held.setdefault(cluster.system, [])
            while not _fits(cluster, [*held, asks], unknown=not may_interrupt):
                if not held:
                    if may_interrupt:
                        return False
                    if grows(cluster):
                        break
                    raise _none_spare(cluster, asks)
                self._changed.wait(LOOK_S)
            held.append(asks)
            return True


def beside(wanted: Live, before: Live, digests: Mapping[str, str]) -> tuple[Ask, ...]:
    """Pods with GPUs that come while those of the version before are still there."""
    key = workload_in(wanted)
    others = [one for name, one in before.items() if name != key and workload_in({name: one})]
    if key is None:
        return ()
    live = before.get(key)
    if live is None:  # of another kind: all of it comes beside the other
        counts = [(pods, pods.count) for pods in pods_of(wanted[key])] if others else []
    elif int((live.get("spec") or {}).get("replicas", 1)) and restarts(wanted[key], live, digests):
        counts = [(pods, pods.surge) for pods in pods_of(wanted[key])]
    else:
        counts = []
    counts += [
        (pods, pods.count)
        for name in workloads_in(wanted)
        if name != key and name not in before  # a canary
        for pods in pods_of(wanted[name])
    ]
    return tuple(
        Ask(key, gpus, count, pods.spec) for pods, count in counts if count and (gpus := gpus_of(pods.spec))
    )


def _comes_back(cluster: Cluster, wanted: Live, digests: Mapping[str, str]) -> bool:
    """The pods of all that is wanted are there: none comes."""
    found = [wanted[key] for key in workloads_in(wanted)]
    sets = cluster.list(REPLICA_SET, str(found[0]["metadata"]["namespace"]))
    return all(comes_back(one, sets, lambda new, old: restarts(new, old, digests)) for one in found)


def restarts(wanted: Object, live: Object, digests: Mapping[str, str]) -> bool:
    """Whether its pods are made anew."""
    seen = shaped(live, wanted)
    assert isinstance(seen, dict), "an object is a mapping"
    if recorded({key_of(live): live}) != recorded({key_of(wanted): wanted}):
        return True
    moved = any(digests.get(image, digest) != digest for image, digest in digests_in(live).items())
    return moved or [pods.spec for pods in pods_of(seen)] != [pods.spec for pods in pods_of(wanted)]


def giving_way(objects: Live) -> Live:
    """The same with a workload whose old pods go before new ones come."""
    key = workload_in(objects)
    if key is None:
        return objects
    one = objects[key]
    spec: Object = one.get("spec") or {}  # a Workspace has none
    alone = int(spec.get("replicas", 1)) == 1
    one_by_one = {"maxSurge": 0, "maxUnavailable": 1}
    match one["kind"]:
        case "Deployment" if alone:  # its controller waits until the old pod has left
            changed: Object = {"strategy": {"type": "Recreate"}}
        case "Deployment":
            changed = {"strategy": {"type": "RollingUpdate", "rollingUpdate": one_by_one}}
        case "LeaderWorkerSet":
            rolling = {"partition": 0, **one_by_one}
            changed = {"rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": rolling}}
        case _:
            return objects
    return {**objects, key: {**one, "spec": {**spec, **changed}}}


def _fits(cluster: Cluster, asks: Sequence[tuple[Ask, ...]], *, unknown: bool) -> bool:
    """Whether all find GPUs. Those of pods that are leaving are free in a moment."""
    try:
        nodes = gpu_nodes(cluster, leaving=is_leaving)
    except BackendError:  # no right to look, for instance: the scheduler says it then
        return unknown
    return not unplaced(nodes, [ask for each in asks for ask in each])


def _none_spare(cluster: Cluster, asks: Sequence[Ask]) -> Refused:
    need = " and ".join(f"{ask.pods} × {ask.gpus}" for ask in asks)
    return Refused(
        f"{cluster.system}: no GPU is spare for a new pod beside the old one: it needs {need}",
        "free some, or say rollout: {when_no_spare: recreate}, which interrupts it",
    )
