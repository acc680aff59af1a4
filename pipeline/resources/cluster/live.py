"""What a cluster has of ours: listed by kind and namespace, never one request an object."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pipeline.clients.kube import (
    CLAIM,
    EVENT,
    INFERENCE_SET,
    KINDS,
    POD,
    REPLICA_SET,
    USUAL,
    WORKSPACE,
    Cluster,
    Kind,
    Object,
)
from pipeline.core.errors import Missing
from pipeline.core.frozen import frozen
from pipeline.core.resource import Locator, Mark
from pipeline.resources.cluster.fields import is_leaving, labels_in
from pipeline.resources.cluster.marks import key_of, mark_of
from pipeline.resources.cluster.pods import Trouble, is_ready, troubles, waits_for_storage
from pipeline.resources.cluster.workloads import INSTANCE, workload_of

MANAGED = "app.kubernetes.io/managed-by"
OURS = f"{MANAGED}=mp"

KAITO = frozenset((WORKSPACE.name, INFERENCE_SET.name))

Live: TypeAlias = Mapping[str, Object]  # "Deployment/qwen" → the object as it is


@frozen
class Place:
    """One namespace of one cluster."""

    context: str | None
    namespace: str

    @staticmethod
    def of(locator: Locator) -> "Place":
        return Place(locator["context"] or None, locator["namespace"])


def kinds_of(keys: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds to look at: the usual ones, and those that the keys name ("LeaderWorkerSet/qwen").

    Of Workspaces and InferenceSets one may give way to the other.
    """
    named = {key.partition("/")[0] for key in keys}
    if named & KAITO:
        named |= KAITO
    return tuple(kind for name, kind in KINDS.items() if kind in USUAL or name in named)


def listed(cluster: Cluster, namespace: str, wanted: Iterable[str], known: Iterable[str] = ()) -> Live:
    """Everything with our label, and what bears a wanted name without it. What is being deleted is not there any more.

    `known`: keys of what was there before, so that kinds which are not wanted any more are looked at.
    """
    missing = set(wanted)
    found: dict[str, Object] = {}
    for kind in kinds_of((*missing, *known)):
        objects = known_in(cluster, kind, namespace, OURS)
        found |= {key_of(one): one for one in objects}
        lacking = {key for key in missing - found.keys() if key.startswith(f"{kind.name}/")}
        if lacking:  # another one's object may have the name
            others = known_in(cluster, kind, namespace)
            found |= {key_of(one): one for one in others if key_of(one) in lacking}
    return _staying(found)


def listed_of(
    cluster: Cluster, namespace: str, name: str, wanted: Collection[str] = (), known: Iterable[str] = ()
) -> Live:
    """The same of one deployment alone."""
    found: dict[str, Object] = {}
    for kind in kinds_of((*wanted, *known)):
        objects = known_in(cluster, kind, namespace, f"{OURS},{INSTANCE}={name}")
        found |= {key_of(one): one for one in objects}
    for key in wanted:
        kind_name, _, object_name = key.partition("/")
        if key not in found and (one := cluster.get(KINDS[kind_name], namespace, object_name)):
            found[key] = one
    return _staying(found)


def known_in(cluster: Cluster, kind: Kind, namespace: str, selector: str = "") -> tuple[Object, ...]:
    """A list; nothing of a kind whose definition is not installed. Raises Missing for what every server has."""
    try:
        return cluster.list(kind, namespace, selector)
    except Missing:
        if kind in USUAL:
            raise
        return ()


def _staying(found: Live) -> Live:
    return {key: one for key, one in found.items() if not is_leaving(one)}


def uids_of(live: Live) -> tuple[str, ...]:
    return tuple(str(one["metadata"]["uid"]) for one in live.values())


def _instance(one: Object) -> str:
    return str(labels_in(one).get(INSTANCE))


@frozen
class Pods:
    """What a cluster says of pods: of one deployment, or of all of ours in a namespace."""

    sets: tuple[Object, ...]
    pods: tuple[Object, ...]
    events: tuple[Object, ...]

    def of(self, workload: Object) -> list[Mapping[str, Any]]:
        """The pods of a workload's present version."""
        return workload_of(key_of(workload)).pods(workload, self.sets, self.pods)

    def troubles(self, workload: Object) -> list[Trouble]:
        found = troubles(self.of(workload), self.events, datetime.now(UTC))
        name = _instance(workload)
        if any(is_leaving(pod) and _instance(pod) == name for pod in self.pods):
            return [
                replace(one, lasting=one.lasting and not one.unscheduled) for one in found
            ]  # it makes room
        return found


def pods_in(cluster: Cluster, namespace: str, selector: str = OURS) -> Pods:
    """Events are asked for only where a pod is not ready."""
    sets, pods = cluster.list(REPLICA_SET, namespace, selector), cluster.list(POD, namespace, selector)
    if all(map(is_ready, pods)):
        return Pods(sets, pods, ())
    events = cluster.list(EVENT, namespace, fields="involvedObject.kind=Pod")
    if any(map(waits_for_storage, pods)):
        events = (*events, *cluster.list(EVENT, namespace, fields=f"involvedObject.kind={CLAIM.name}"))
    return Pods(sets, pods, events)


class Owned:
    """What carries fitting marks, by mark and by the name of the deployment that it belongs to."""

    def __init__(self, live: Live) -> None:
        self._found: defaultdict[tuple[Mark, str], dict[str, Object]] = defaultdict(dict)
        for key, one in live.items():
            if (mark := mark_of(one)) is not None:
                name = labels_in(one).get(INSTANCE) if labelled(one) else one["metadata"]["name"]
                self._found[mark, str(name)][key] = one

    def by(self, mark: Mark, name: str) -> Live:
        return dict(self._found.get((mark, name), {}))


def labelled(one: Mapping[str, Any]) -> bool:
    """Whether lists by our label give it: what we made, not what we took over."""
    return f"{MANAGED}={labels_in(one).get(MANAGED)}" == OURS
