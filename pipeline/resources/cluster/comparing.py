"""One deployment as it is beside as it is wanted, and what the server would make of it. Used by looking and driver."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pipeline.clients.kube import Cluster, Conflict, Object
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Unreachable
from pipeline.core.resource import Absent, Entry, Locator, Mark, Observed, Resource
from pipeline.resources.cluster.applying import put
from pipeline.resources.cluster.fields import controller_of, record
from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.ignoring import settled, without
from pipeline.resources.cluster.live import Live
from pipeline.resources.cluster.marks import mark_of
from pipeline.resources.cluster.moved import moved, staying
from pipeline.resources.cluster.sending import digests_in, written
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.state import ClusterState, objects_in
from pipeline.resources.cluster.workloads import workload_in, workload_of, workloads_in

NO_WORKLOAD = Health(Word.MISSING, "nothing that runs pods is there")


def compared(
    cluster: Cluster,
    resource: Resource[ClusterState],
    live: Live,
    own: Live,
    mark: Mark,
    take_from: frozenset[str] = frozenset(),
    applied: Mapping[str, Json] | None = None,
) -> Observed[ClusterState] | Absent:
    """One deployment as it is, and what it would become; `own` is what has its mark. Raises Unreachable.

    `applied`: the objects of its last version, in whose fields those are told that are not wanted any more.
    """
    wanted, recipe = resource.desired.objects, resource.desired.recipe
    ignored = recipe.ignored if recipe else ()
    named = {key: live[key] for key in wanted if key in live}
    extra = {key: one for key, one in own.items() if key not in wanted}
    if resource.watched:
        named, extra = {key: _unowned(one) for key, one in named.items()}, {}
    if not named and not extra:
        return Absent()
    seen = observed(named | extra, wanted, resource.locator, ignored, applied or {})
    strange = [whose for one in named.values() if (whose := mark_of(one)) != mark]
    maker = next(filter(None, (controller_of(one) for one in named.values() if mark_of(one) is None)), "")
    if resource.watched or any(strange) or maker:
        return replace(seen, mark=next(filter(None, strange), None), maker=maker)
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
    live: Live,
    wanted: Mapping[str, Json],
    locator: Locator,
    ignored: Sequence[str] = (),
    applied: Mapping[str, Json] = MappingProxyType({}),
) -> Observed[ClusterState]:
    """The state of objects that are there, but for fields that are left to others."""
    name, namespace = locator["name"], locator["namespace"]
    present = {key: one for key, one in live.items() if key in wanted}
    key = workload_in(present) or workload_in(live) or workload_in(wanted)
    workload = live.get(key) if key else None
    keys = workloads_in(present) or workloads_in(live)
    shapes = {key: shaped(one, record(wanted.get(key, applied.get(key)))) for key, one in live.items()}
    return Observed(
        ClusterState(
            without(shapes, ignored), health=str(_health(live, keys or (key,)) if key else NO_WORKLOAD)
        ),
        remote_id=None if workload is None else str(workload["metadata"]["uid"]),
        endpoint=None if f"Service/{name}" not in live else f"http://{name}.{namespace}.svc",
    )


def told(live: Live, entry: Entry) -> Observed[ClusterState]:
    """What is there of an entry, in the fields that were applied last: for `mp status`, and before it goes.

    What has no replicas is well, and serves nobody: said here alone, for in a comparison their number is what differs.
    """
    seen = observed(live, objects_in(entry.applied.get("objects")), entry.locator)
    asleep = [record(live[key].get("spec")).get("replicas") == 0 for key in workloads_in(live)]
    if not asleep or not all(asleep) or seen.state.health != str(Word.HEALTHY):
        return seen
    return replace(seen, state=replace(seen.state, health=str(Health(Word.SUSPENDED, "scaled to 0"))))


def _health(live: Live, keys: Sequence[str]) -> Health:
    """Of what is not well, the first; of a canary with its name."""
    first, *others = ((key, workload_of(key).health_of(live.get(key))) for key in keys)
    if first[1].word is not Word.HEALTHY:
        return first[1]
    unwell = ((key, one) for key, one in others if one.word is not Word.HEALTHY)
    return next((Health(one.word, f"{key}: {one.reason}") for key, one in unwell), first[1])


def _would_be(
    cluster: Cluster, wanted: Mapping[str, Json], named: Live, take_from: frozenset[str]
) -> tuple[dict[str, Json], str | None]:
    """What the server would make of every wanted object, and why it may not be asked to. One dry-run for what differs.

    An object that lacks nothing but our mark needs none.
    """
    found: dict[str, Json] = dict(wanted)
    for key, live in named.items():
        if _unmarked(shaped(live, record(wanted[key]))) == _unmarked(wanted[key]):
            continue
        one = dict(record(wanted[key]))
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
    whole = record(one)
    metadata = {key: value for key, value in record(whole.get("metadata")).items() if key != "annotations"}
    return {**whole, "metadata": metadata}


def _conflict(key: str, problem: Conflict) -> str:
    held = ", ".join(f"{field} is managed by {manager}" for manager, field in problem.held)
    return f"{key}: {held or problem.message}"
