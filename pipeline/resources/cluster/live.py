"""What a cluster has of ours: listed by namespace, compared in the fields that mp writes, never one request an object."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pipeline.clients.kube import (
    DEPLOYMENT,
    EVENT,
    INFERENCE_SET,
    KINDS,
    MANAGER,
    POD,
    REPLICA_SET,
    USUAL,
    WORKSPACE,
    Cluster,
    Conflict,
    Kind,
    Object,
    address_of,
)
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Missing, Unreachable
from pipeline.core.resource import Absent, Locator, Mark, Observed, Resource
from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.ignoring import settled, without
from pipeline.resources.cluster.marks import key_of, mark_of
from pipeline.resources.cluster.moved import moved, staying
from pipeline.resources.cluster.pods import Trouble, is_ready, troubles
from pipeline.resources.cluster.sending import images_of, written
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.state import ClusterState
from pipeline.resources.cluster.workloads import INSTANCE, workload_in, workload_of

MANAGED = "app.kubernetes.io/managed-by"
OURS = f"{MANAGED}=mp"
NO_WORKLOAD = Health(Word.MISSING, "nothing that runs pods is there")
HAND = "kubectl"  # what kubectl's field managers begin with: kubectl-edit, kubectl-patch, kubectl of kubectl scale

KAITO = frozenset((WORKSPACE.name, INFERENCE_SET.name))

Live: TypeAlias = Mapping[str, Object]  # "Deployment/qwen" → the object as it is


@dataclass(frozen=True)
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


def is_leaving(one: Object) -> bool:
    return "deletionTimestamp" in one["metadata"]


def _instance(one: Object) -> str:
    return str((one["metadata"].get("labels") or {}).get(INSTANCE))


def strangers(cluster: Cluster, namespace: str) -> tuple[Object, ...]:
    """Deployments that nobody's mp made or took over. Raises Denied, Unreachable."""
    found = cluster.list(DEPLOYMENT, namespace)
    return tuple(one for one in found if mark_of(one) is None and not is_leaving(one))


@dataclass(frozen=True)
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
    return Pods(sets, pods, cluster.list(EVENT, namespace, fields="involvedObject.kind=Pod"))


class Owned:
    """What carries fitting marks, by mark and by the name of the deployment that it belongs to."""

    def __init__(self, live: Live) -> None:
        self._found: defaultdict[tuple[Mark, str], dict[str, Object]] = defaultdict(dict)
        for key, one in live.items():
            if (mark := mark_of(one)) is not None:
                labels = one["metadata"].get("labels") or {}
                name = labels.get(INSTANCE) if labelled(one) else one["metadata"]["name"]
                self._found[mark, str(name)][key] = one

    def by(self, mark: Mark, name: str) -> Live:
        return dict(self._found.get((mark, name), {}))


def labelled(one: Mapping[str, Any]) -> bool:
    """Whether lists by our label give it: what we made, not what we took over."""
    labels = (one.get("metadata") or {}).get("labels") or {}
    return "=".join((MANAGED, str(labels.get(MANAGED)))) == OURS


def compared(
    cluster: Cluster,
    resource: Resource[ClusterState],
    live: Live,
    own: Live,
    mark: Mark,
    take_from: frozenset[str] = frozenset(),
) -> Observed[ClusterState] | Absent:
    """One deployment as it is, and what it would become; `own` is what has its mark. Raises Unreachable."""
    wanted, recipe = resource.desired.objects, resource.desired.recipe
    ignored = recipe.ignored if recipe else ()
    named = {key: live[key] for key in wanted if key in live}
    extra = {key: one for key, one in own.items() if key not in wanted}
    if resource.watched:
        named, extra = {key: _unowned(one) for key, one in named.items()}, {}
    if not named and not extra:
        return Absent()
    seen = observed(named | extra, wanted, resource.locator, ignored)
    strange = [whose for one in named.values() if (whose := mark_of(one)) != mark]
    if resource.watched or any(strange):
        return replace(seen, mark=next(filter(None, strange), None))
    if not strange and seen.state.objects == (same := without(wanted, ignored)):  # as nearly always
        return replace(seen, mark=mark, would_be=replace(resource.desired, objects=same))
    if not strange and (kept := _kept(resource, named | extra, replace(seen, mark=mark))):
        return kept
    would_be, refused = _would_be(cluster, settled(wanted, wanted, named, ignored), named, take_from)
    return replace(
        seen,
        mark=None if strange else mark,
        would_be=replace(resource.desired, objects=without(would_be, ignored)),
        refused=refused,
    )


def _kept(
    resource: Resource[ClusterState], live: Live, seen: Observed[ClusterState]
) -> Observed[ClusterState] | None:
    """What a registry that moved leaves, where nothing else is to change; None for everything else."""
    wanted, recipe = resource.desired.objects, resource.desired.recipe
    again, runs = moved(live, wanted, recipe.images if recipe else {})
    if not runs or recipe is None:
        return None
    same = observed(again, wanted, resource.locator, recipe.ignored)
    left = without(wanted, recipe.ignored)
    if same.state.objects != left or same.state.health != resource.desired.health:
        return None
    would_be = replace(resource.desired, objects=left)
    otherwise = replace(seen, would_be=would_be)
    return replace(otherwise, state=same.state, runs=runs, otherwise=otherwise, note=staying(live, runs))


def _unowned(one: Object) -> Object:
    """Without what mp wrote when it was ours: of a thing that is only watched, what its entry says is compared."""
    kept = {key: value for key, value in one["metadata"].items() if key != "managedFields"}
    return {**one, "metadata": kept}


def observed(
    live: Live, wanted: Mapping[str, Json], locator: Locator, ignored: Sequence[str] = ()
) -> Observed[ClusterState]:
    """The state of objects that are there, but for fields that are left to others."""
    name, namespace = locator["name"], locator["namespace"]
    present = {key: one for key, one in live.items() if key in wanted}
    key = workload_in(present) or workload_in(live) or workload_in(wanted)
    workload = live.get(key) if key else None
    shapes = {key: shaped(one, _record(wanted.get(key))) for key, one in live.items()}
    return Observed(
        ClusterState(
            without(shapes, ignored), health=str(workload_of(key).health_of(workload) if key else NO_WORKLOAD)
        ),
        remote_id=None if workload is None else str(workload["metadata"]["uid"]),
        endpoint=None if f"Service/{name}" not in live else f"http://{name}.{namespace}.svc",
    )


def put(
    cluster: Cluster,
    wanted: Mapping[str, Json],
    *,
    dry_run: bool = False,
    take_from: frozenset[str] = frozenset(),
) -> Object:
    """Server-side apply. What somebody set by hand with kubectl is taken back, and what the named managers have; what
    another tool manages is not.

    Raises Conflict, which names who manages what.
    """
    try:
        return cluster.apply(wanted, dry_run=dry_run)
    except Conflict as problem:
        live = cluster.get(*address_of(wanted))
        if live is None or not _takeable(problem, live, take_from):
            raise
        return cluster.apply(wanted, dry_run=dry_run, force=True)


def _takeable(conflict: Conflict, live: Object, take_from: frozenset[str]) -> bool:
    """All of it was set by kubectl's imperative commands, or is to be taken: an Apply says that somebody else declares it."""
    declaring = {
        one.get("manager")
        for one in live["metadata"].get("managedFields") or ()
        if one.get("operation") == "Apply" and one.get("manager") != MANAGER
    }
    managers = {manager for manager, _ in conflict.held}
    return bool(managers) and all(
        m in take_from or (m.startswith(HAND) and m not in declaring) for m in managers
    )


def digests_in(*objects: Object) -> dict[str, str]:
    """The digest of each image that live objects name: "repo:tag" → "sha256:…"."""
    found = (image.partition("@") for one in objects for image in images_of(one))
    return {name: digest for name, _, digest in found if digest}


def _would_be(
    cluster: Cluster, wanted: Mapping[str, Json], named: Live, take_from: frozenset[str]
) -> tuple[dict[str, Json], str | None]:
    """What the server would make of every wanted object, and why it may not be asked to. One dry-run for what differs.

    An object that lacks nothing but our mark needs none.
    """
    found: dict[str, Json] = dict(wanted)
    for key, live in named.items():
        if _unmarked(shaped(live, _record(wanted[key]))) == _unmarked(wanted[key]):
            continue
        one = dict(_record(wanted[key]))
        try:
            answer = put(cluster, written(one, digests_in(live)), dry_run=True, take_from=take_from)
        except Conflict as problem:
            return dict(wanted), _conflict(key, problem)
        except Unreachable:
            raise
        except BackendError:  # not allowed to, or refused: apply says why
            return dict(wanted), None
        found[key] = shaped(answer, one)
    return found, None


def _unmarked(one: Json) -> Json:
    whole = _record(one)
    metadata = {key: value for key, value in _record(whole.get("metadata")).items() if key != "annotations"}
    return {**whole, "metadata": metadata}


def _conflict(key: str, problem: Conflict) -> str:
    held = ", ".join(f"{field} is managed by {manager}" for manager, field in problem.held)
    return f"{key}: {held or problem.message}"


def _record(one: Any) -> Mapping[str, Any]:
    return one if isinstance(one, dict) else {}
