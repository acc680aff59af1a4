"""What is about to change in one namespace, as the questions of preflight see it. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.change import Change
from pipeline.core.diagnostic import Where
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.resource import current_of, owner_of, place_of
from pipeline.resources.cluster.fields import record
from pipeline.resources.cluster.live import Place
from pipeline.resources.cluster.returning import comes_back
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState


@frozen
class Step:
    """One deployment that is made, changed or deleted."""

    model: str
    target: str  # its key in `targets:`
    namespace: str
    name: str  # of the deployment: what the instance label of its pods says
    where: Where | None
    recipe: ClusterRecipe | None  # None: it is deleted
    wanted: Mapping[str, Object]
    live: Mapping[str, Object]  # in the fields that mp writes; {} of what is not there

    @property
    def whole(self) -> bool:
        """It is brought by mp alone: of what others made and mp writes a part of, nobody knows here what it needs."""
        return bool(self.wanted) and not (self.recipe and self.recipe.standing)


@frozen
class Pods:
    """Pods of one kind that a workload runs."""

    spec: Mapping[str, Any]
    count: int
    surge: int  # so many more while a new version comes, at most


def steps_in(changes: Iterable[Change[ClusterState]]) -> Mapping[Place, list[Step]]:
    """By namespace of a cluster."""
    found: defaultdict[Place, list[Step]] = defaultdict(list)
    for change in changes:
        resource, entry = change.resource, change.entry
        locator = resource.locator if resource else entry.locator if entry else None
        if locator is None:
            continue
        address = current_of(change.address)
        found[Place.of(locator)].append(
            Step(
                owner_of(address),
                place_of(address) or "",
                locator["namespace"],
                locator["name"],
                resource.where if resource else None,
                resource.desired.recipe if resource else None,
                _wanted(resource.desired) if resource else {},
                _objects(change.observed.state.objects) if change.observed else {},
            )
        )
    return found


def pods_of(one: Object) -> Iterator[Pods]:
    """What a workload runs; nothing of what is none. Fields are those of Kubernetes 1.36 and LeaderWorkerSet v1."""
    spec = one.get("spec") or {}
    match one["kind"]:
        case "Deployment" | "StatefulSet":
            replicas = int(spec.get("replicas", 1))
            yield Pods(_pod(spec), replicas, _surge(spec, replicas))
        case "Job":
            yield Pods(_pod(spec), int(spec.get("parallelism", 1)), 0)
        case "LeaderWorkerSet":
            replicas, group = int(spec.get("replicas", 1)), spec["leaderWorkerTemplate"]
            rolling = (spec.get("rolloutStrategy") or {}).get("rollingUpdateConfiguration") or {}
            surge = _share(rolling.get("maxSurge", 0), replicas)
            workers, worker = int(group.get("size", 1)) - 1, group["workerTemplate"]["spec"]
            yield Pods((group.get("leaderTemplate") or group["workerTemplate"])["spec"], replicas, surge)
            yield Pods(worker, replicas * workers, surge * workers)


def _pod(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the template; {} where mp writes no part of it."""
    return dict((spec.get("template") or {}).get("spec") or {})


def stays(step: Step, key: str) -> bool:
    """The pods of a workload that is there are of the version that is wanted: only their number may change."""
    live = step.live.get(key)
    return live is not None and _specs(live) == _specs(step.wanted[key])


def returns(step: Step, key: str, sets: Iterable[Object]) -> bool:
    """The wanted version of a workload comes back, and `sets` of its namespace still have its pods."""
    return comes_back(
        step.wanted[key], sets, lambda wanted, old: _specs(record(shaped(old, wanted))) != _specs(wanted)
    )


def _specs(one: Object) -> list[Mapping[str, Any]]:
    return [pods.spec for pods in pods_of(one)]


def _surge(spec: Mapping[str, Any], replicas: int) -> int:
    strategy = spec.get("strategy") or {}
    if strategy.get("type") != "RollingUpdate":
        return 0
    return _share((strategy.get("rollingUpdate") or {}).get("maxSurge", "25%"), replicas)


def _share(value: int | str, replicas: int) -> int:
    """A number, or a part rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return -int(-Fraction(int(value[:-1]), 100) * replicas // 1)
    return int(value)


def _wanted(desired: ClusterState) -> dict[str, Object]:
    """With what fills its claims first."""
    tasks = desired.recipe.tasks.values() if desired.recipe else ()
    filling = {f"{one['kind']}/{_name(one)}": one for each in tasks for one in each if isinstance(one, dict)}
    return filling | _objects(desired.objects)


def _name(one: Mapping[str, Any]) -> str:
    return str(one["metadata"]["name"])


def _objects(found: Mapping[str, Json]) -> dict[str, Object]:
    return {key: one for key, one in found.items() if isinstance(one, dict)}
