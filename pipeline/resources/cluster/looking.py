"""What a namespace has of deployments that are wanted, and of those that are known: one look for all of them. Used by driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from pipeline.clients.kube import Cluster
from pipeline.core.digest import Json
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Identity,
    Mark,
    Observed,
    Resource,
    Unreadable,
    current_of,
)
from pipeline.resources.cluster.added import added
from pipeline.resources.cluster.comparing import compared, told
from pipeline.resources.cluster.completing import completed, why_anew
from pipeline.resources.cluster.health import Health, Word
from pipeline.resources.cluster.live import OURS, Live, Owned, Place, labelled, listed, pods_in, uids_of
from pipeline.resources.cluster.managers import managers_of
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.rotation import Secrets, rotated
from pipeline.resources.cluster.scalers import freed, left_alone, remark, scalers_in
from pipeline.resources.cluster.standing import unlabelled
from pipeline.resources.cluster.state import ClusterState, keys_of, objects_in, recipe_of
from pipeline.resources.cluster.volumes import volumes_lost, with_its_filler
from pipeline.resources.cluster.workloads import workload_of

Answer: TypeAlias = Observed[ClusterState] | Absent | Unreadable


@dataclass
class Look:
    """The answers for a namespace, the uids of the objects behind each that is ours and wanted, and who has fields of them."""

    answers: dict[Address, Answer] = field(default_factory=dict)
    uids: dict[Address, tuple[str, ...]] = field(default_factory=dict)
    managers: frozenset[str] = frozenset()


def look(
    cluster: Cluster,
    place: Place,
    resources: Sequence[Resource[ClusterState]],
    entries: Sequence[Entry],
    owner: Mark,
    take_from: frozenset[str],
) -> Look:
    """`entries`: of what is gone, and of what is wanted. `owner` is ours; its address is filled in for each.

    Raises Denied, Unreachable.
    """
    wanted = [key for each in resources for key in each.desired.objects]
    known = [key for entry in entries for key in keys_of(entry)]
    before = {entry.address: objects_in(entry.applied.get("objects")) for entry in entries}
    gone = [entry for entry in entries if entry.address not in {each.address for each in resources}]
    others = [key for objects in before.values() for key in unlabelled(objects)]
    live = listed(cluster, place.namespace, (*wanted, *others), known)
    owned, secrets = Owned(live), Secrets(cluster, place.namespace)
    scalers = scalers_in(cluster, place.namespace, wanted)
    found = Look(managers=managers_of(live, wanted))
    for declared in resources:
        each = completed(with_its_filler(left_alone(declared, scalers), live), live)
        mark = replace(owner, address=each.address)
        own = owned.by(mark, each.locator["name"])
        taking = take_from | freed(each, scalers)
        seen = compared(cluster, each, live, own, mark, taking, before.get(each.address))
        if isinstance(seen, Observed):
            sent = _sent(each, seen)
            lost = "" if each.watched else volumes_lost(cluster, place.namespace, own, sent)
            # what stood before mp came has fields of others, all of which were shown then
            theirs = "" if each.watched or recipe_of(each).standing else added(own, sent)
            parts = (remark(declared, scalers), seen.note, theirs, lost, why_anew(each, live))
            seen = replace(seen, note="; ".join(filter(None, parts)))
            if seen.mark == mark:
                found.uids[each.address] = uids_of(own)
            if not each.watched:
                seen = rotated(seen, live, each.desired, secrets)
        lacking = isinstance(seen, Absent) and recipe_of(each).standing and not each.watched
        found.answers[each.address] = _nothing_stands(each) if lacking else seen
    for entry in gone:
        mark = replace(owner, address=current_of(entry.address))
        own = owned.by(mark, entry.locator["name"])
        lost = volumes_lost(cluster, place.namespace, own, {})
        answer = replace(told(own, entry), mark=mark, note=lost) if own else Absent()
        found.answers[entry.address] = answer
    found.answers |= _explained(cluster, place, found.answers, live)
    return found


def identified(answer: Answer, identity: Identity) -> Answer:
    """The answer with which cluster gave it."""
    match answer:
        case Unreadable():
            return answer
        case Absent():
            return replace(answer, identity=identity)
    otherwise = replace(answer.otherwise, identity=identity) if answer.otherwise else None
    return replace(answer, identity=identity, otherwise=otherwise)


def _explained(
    cluster: Cluster, place: Place, answers: Mapping[Address, Answer], live: Live
) -> dict[Address, Answer]:
    """Deployments that do not serve, told with their pods' own reasons. Nothing is asked when all are well."""
    unwell = {
        address: seen
        for address, seen in answers.items()
        if isinstance(seen, Observed) and seen.state.health.startswith((Word.PROGRESSING, Word.DEGRADED))
    }
    if not unwell:
        return {}
    workloads = {str(one["metadata"]["uid"]): one for one in live.values()}
    ours = all(_shows(workloads[str(seen.remote_id)]) for seen in unwell.values())
    pods = pods_in(cluster, place.namespace, OURS if ours else "")
    found: dict[Address, Answer] = {}
    for address, seen in unwell.items():
        worst = next(iter(pods.troubles(workloads[str(seen.remote_id)])), None)
        if worst is not None:
            word = Word.DEGRADED if worst.lasting else Word.PROGRESSING
            health = str(Health(word, worst.reason))
            found[address] = replace(seen, state=replace(seen.state, health=health))
    return found


def _sent(resource: Resource[ClusterState], seen: Observed[ClusterState]) -> Mapping[str, Json]:
    """The objects as they would become: replicas that an autoscaler sets are not among what is sent."""
    return (seen.would_be or resource.desired).objects


def _shows(workload: Mapping[str, Any]) -> bool:
    """Whether its pods bear our label."""
    return labelled(workload) and workload_of(key_of(workload)).labelled


def _nothing_stands(resource: Resource[ClusterState]) -> Unreadable:
    """What mp writes a part of has to be there: that part alone makes no object."""
    what = ", ".join(resource.desired.objects)
    hint = "make it the way it was made before, or remove runs: from this entry, so that mp makes its own"
    return Unreadable(f"there is no {what} in {resource.locator['namespace']} to take over", hint)
