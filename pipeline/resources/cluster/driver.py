"""Brings deployments of one or more clusters to their desired state. What fails gives way to the last good version."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.clients.kube import Cluster
from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Denied, Missing, Refused
from pipeline.core.model import Secret
from pipeline.core.protocols import Findings
from pipeline.core.report import Emit, Line, Progress
from pipeline.core.resource import (
    Address,
    Entry,
    Mark,
    Observed,
    Proof,
    Resource,
    Unreadable,
    Version,
    current_of,
)
from pipeline.resources.cluster.canary import beside, leaving
from pipeline.resources.cluster.comparing import observed
from pipeline.resources.cluster.completing import completed, made_anew, whole
from pipeline.resources.cluster.fields import controller_of
from pipeline.resources.cluster.ignoring import settled, without
from pipeline.resources.cluster.live import Live, Owned, Place, listed_of, uids_of
from pipeline.resources.cluster.looking import Answer, identified, look
from pipeline.resources.cluster.managers import slips
from pipeline.resources.cluster.marks import mark_of
from pipeline.resources.cluster.preflight import preflight
from pipeline.resources.cluster.remaking import goes_back, lacking, refuse_unplanned, rehearse, said
from pipeline.resources.cluster.restoring import as_it_was, recalled
from pipeline.resources.cluster.rollout import Rollout
from pipeline.resources.cluster.rotation import Secrets, recorded, recording
from pipeline.resources.cluster.scalers import freed, left_alone, obsolete, scalers_in
from pipeline.resources.cluster.sending import digests_in
from pipeline.resources.cluster.standing import as_found, in_the_way, take, unlabelled
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState, keys_of, objects_in, recipe_of
from pipeline.resources.cluster.turns import Turns
from pipeline.resources.cluster.volumes import with_its_filler
from pipeline.resources.cluster.workloads import renamed_in, workload_in


class ClusterDriver:
    """Objects of one project and environment, in any number of clusters and namespaces."""

    def __init__(
        self,
        connect: Callable[[str | None], Cluster],
        owner: Mark,  # whose objects these are; the address is filled in for each
        secret: Callable[[Secret], str],
        take_from: frozenset[str] = frozenset(),  # field managers whose fields may be taken
    ) -> None:
        self._connect = connect
        self._owner = owner
        self._secret = secret
        self._take_from = take_from
        self._turns = Turns()
        self._managers: set[str] = set()
        self._unread = False
        self._wanted: dict[str, tuple[str, ...]] = {}  # uid → the locator under which it is wanted now

    looks_back = True

    def observe(
        self, wanted: Sequence[Resource[ClusterState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """One list per kind and namespace; a dry-run for objects that differ, pods for deployments that are not healthy."""
        places: defaultdict[Place, tuple[list[Resource[ClusterState]], list[Entry]]]
        places = defaultdict(lambda: ([], []))
        for each in wanted:
            places[Place.of(each.locator)][0].append(each)
        for entry in known:
            places[Place.of(entry.locator)][1].append(entry)
        answers: dict[Address, Answer] = {}
        for place, (resources, entries) in places.items():
            try:
                cluster = self._connect(place.context)
                identity = cluster.identity()
                seen = look(cluster, place, resources, entries, self._owner, self._take_from)
                answers |= {each: identified(answer, identity) for each, answer in seen.answers.items()}
                self._managers |= seen.managers
                for each in resources:
                    self._remember(each, seen.uids.get(each.address, ()))
            except (BackendError, Refused) as problem:
                nothing, self._unread = Unreadable(problem.message, problem.hint), True
                answers |= {each.address: nothing for each in resources}
                answers |= {entry.address: nothing for entry in entries}
        return answers

    def remarks(self) -> Sequence[Diagnostic]:
        """Of --take-from: managers that have nothing here, unless they may have it where nobody answered."""
        return () if self._unread else slips(self._take_from, self._managers)

    def check(self, changes: Sequence[Change[Any]]) -> Findings:
        """Whether the clusters would take these changes: asked once a namespace and a cluster."""
        return preflight(self._connect, changes)

    def apply(
        self, change: Change[ClusterState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[ClusterState] | None:
        """Apply, wait, prove, and clear away what the version before had more. Raises StartFailed, Conflict, Denied.

        After a failure the last good version is applied again, before the failure is reported.
        """
        if change.resource is None or change.action is Action.DELETE:
            assert change.entry is not None, "what is deleted was known"
            self._delete(change.entry, emit)
            return None
        good = change.entry.good if change.entry else {}
        resource, rollout = self._started(change.resource, emit)
        before = self._before(rollout, resource, change.entry, adopting=change.action is Action.ADOPT)
        resource = completed(with_its_filler(resource, before), before)
        refuse_unplanned(replace(change, resource=resource), before)
        digests = {**digests_in(*before.values()), **_digests(resource, inputs)}
        if change.action is Action.ADOPT and not change.interrupts:
            return self._take(rollout, resource, before, digests)
        emit(Progress(resource.address, "start"))
        recipe, wanted = recipe_of(resource), objects_in(resource.desired.objects)
        if canary := leaving(before, wanted, recipe.name):
            rollout.remove(canary)
            before = {key: one for key, one in before.items() if key not in canary}
        revisions = _revisions(rollout, before)
        sent, fixed = _sent(resource, before, revisions), _first(resource, before)
        rehearse(rollout, fixed, _whole(resource, fixed, sent), digests)
        with self._turns.turn(rollout.cluster, sent, before, digests, may_interrupt=recipe.recreate) as turn:
            rollout = replace(rollout, old_first=turn.old_first)
            first = {**fixed, **{key: before[key] for key in turn.leaving}}
            try:
                rollout.remove({**first, **obsolete(before, wanted)})
                return self._bring(
                    rollout, resource, before, _whole(resource, first, sent), digests, revisions
                )
            except (BackendError, Refused) as problem:
                if goes_back(problem, recipe.on_failure, first):
                    old = objects_in(good.get("objects"))
                    if change.action is Action.ADOPT and recipe.standing:
                        old = as_found(resource.desired.objects, before)
                    self._go_back(rollout, resource, before, old, digests, problem, first)
                raise

    def recall(
        self, resource: Resource[ClusterState], inputs: Mapping[Address, Observed[Any]]
    ) -> Mapping[str, Json]:
        return recalled(resource, inputs)

    def restore(self, entry: Entry, version: Version) -> Resource[ClusterState]:
        return as_it_was(entry, version)

    def beside(
        self, wanted: Resource[ClusterState], good: Resource[ClusterState]
    ) -> Resource[ClusterState] | None:
        return beside(wanted, good)

    def _started(
        self, resource: Resource[ClusterState], emit: Emit
    ) -> tuple[Resource[ClusterState], Rollout]:
        """What is to be brought, and who brings it; replicas that an autoscaler sets are left to it."""
        place = Place.of(resource.locator)
        scalers = scalers_in(self._connect(place.context), place.namespace, resource.desired.objects)
        resource = left_alone(resource, scalers)
        rollout = self._rollout(resource.locator, recipe_of(resource), resource.address, emit)
        return resource, replace(rollout, take_from=rollout.take_from | freed(resource, scalers))

    def _before(
        self, rollout: Rollout, resource: Resource[ClusterState], entry: Entry | None, *, adopting: bool
    ) -> Live:
        """What is there now, of names that are wanted and of ours. Raises Denied when something is another one's."""
        mark, wanted = self._mark(resource.address), resource.desired.objects
        namespace, name = resource.locator["namespace"], resource.locator["name"]
        others = unlabelled(objects_in(entry.applied.get("objects"))) if entry else ()
        live = listed_of(rollout.cluster, namespace, name, (*wanted, *others), keys_of(entry))
        taken = {}
        for key in wanted:
            if key not in live or mark_of(live[key]) == mark:
                continue
            maker = controller_of(live[key])
            if adopting and mark_of(live[key]) is None and not maker:
                taken[key] = live[key]
            else:
                whose = f"{key} in {namespace} is not ours{f': {maker} made it' if maker else ''}"
                hint = (
                    "give this entry another name"
                    if maker
                    else "remove it by hand, or give this entry another name"
                )
                raise Denied(rollout.cluster.system, whose, hint)
        return {**Owned(live).by(mark, name), **taken}

    def _take(
        self, rollout: Rollout, resource: Resource[ClusterState], before: Live, digests: dict[str, str]
    ) -> Observed[ClusterState]:
        """Our mark on what runs, which goes on running. Nothing is waited for, and nothing is asked."""
        wanted, ignored = resource.desired.objects, recipe_of(resource).ignored
        made = take(rollout, settled(wanted, wanted, before, ignored), before, digests)
        self._remember(resource, uids_of(made))
        seen = observed(made, wanted, resource.locator, ignored)
        return replace(seen, mark=self._mark(resource.address), accepted=True)

    def _bring(
        self,
        rollout: Rollout,
        resource: Resource[ClusterState],
        before: Live,
        sent: Live,
        digests: dict[str, str],
        revisions: Mapping[str, str],
    ) -> Observed[ClusterState]:
        recipe, wanted = recipe_of(resource), resource.desired.objects
        made = rollout.bring(sent, digests, recipe.start_timeout_s)
        self._remember(resource, uids_of(made))
        proof = self._proof(rollout, resource, made)
        made = {**made, **rollout.finish(sent, digests)}
        rollout.remove({key: one for key, one in before.items() if key not in wanted})
        seen = observed(made, wanted, resource.locator, recipe.ignored)
        state = replace(seen.state, revisions=revisions)
        return replace(
            seen, state=state, mark=self._mark(resource.address), proof=proof, accepted=proof is None
        )

    def _proof(self, rollout: Rollout, resource: Resource[ClusterState], made: Live) -> Proof | None:
        recipe = recipe_of(resource)
        key = recipe.tried or workload_in(resource.desired.objects)
        if recipe.prove == "skip" or recipe.port is None or key is None:
            return None
        if (made[key].get("spec") or {}).get("replicas") == 0:  # an autoscaler has none of it now
            return None
        api_key = None if recipe.api_key is None else self._secret(recipe.api_key)
        return rollout.prove(key, recipe.port, api_key)

    def _go_back(
        self,
        rollout: Rollout,
        resource: Resource[ClusterState],
        before: Live,
        good: Live,
        digests: dict[str, str],
        problem: BackendError | Refused,
        removed: Live,
    ) -> None:
        """The last good version again, with the digests that it ran with; a second failure must not hide the first.

        `removed`: what was deleted to make room is made again as it was, whatever the last good version was.
        """
        wanted, ignored = objects_in(resource.desired.objects), recipe_of(resource).ignored
        if good == without(wanted, ignored) and not removed:
            return  # it is the last good version that does not start
        known = {**digests, **digests_in(*before.values())}
        try:
            if removed:
                rollout.remove(self._left(rollout, resource, {}, before))
                good = lacking(rollout, removed, self._mark(resource.address))
            if good:
                again = recording(objects_in(settled(good, wanted, before, ignored)), recorded(before))
                rollout.bring(again, known, recipe_of(resource).start_timeout_s)
                rollout.finish(again, known)
            if not removed:
                rollout.remove(self._left(rollout, resource, good, before))
        except (BackendError, Refused) as second:
            problem.hint = said(problem, f"going back failed too: {second.message}")
            return
        nothing = "what was there runs on" if removed else "nothing of it is left in the cluster"
        problem.hint = said(problem, "the last good version serves again" if good else nothing)

    def _left(self, rollout: Rollout, resource: Resource[ClusterState], good: Live, before: Live) -> Live:
        """What the version that failed has more than the one that serves; what was there before it stays."""
        namespace, name = resource.locator["namespace"], resource.locator["name"]
        known = (*resource.desired.objects, *before)
        own = Owned(listed_of(rollout.cluster, namespace, name, (), known)).by(
            self._mark(resource.address), name
        )
        return {key: one for key, one in own.items() if key not in (good or before)}

    def _delete(self, entry: Entry, emit: Emit) -> None:
        """What carries our fitting mark, and is not wanted under another locator: two contexts may name one cluster."""
        place, name = Place.of(entry.locator), entry.locator["name"]
        others = unlabelled(objects_in(entry.applied.get("objects")))
        live = listed_of(self._connect(place.context), place.namespace, name, others, keys_of(entry))
        own = Owned(live).by(self._mark(current_of(entry.address)), name)
        here = _key(entry.locator)
        leaving = {
            key: one
            for key, one in own.items()
            if self._wanted.get(str(one["metadata"]["uid"]), here) == here
        }
        recipe = ClusterRecipe(
            {}, place.namespace, place.context, name, "", None, (), None, "skip", "hold", 0
        )
        self._rollout(entry.locator, recipe, entry.address, emit).remove(leaving)

    def _remember(self, resource: Resource[ClusterState], uids: Iterable[str]) -> None:
        self._wanted |= dict.fromkeys(uids, _key(resource.locator))

    def _rollout(
        self, locator: Mapping[str, str], recipe: ClusterRecipe, address: Address, emit: Emit
    ) -> Rollout:
        cluster = self._connect(locator["context"] or None)
        return Rollout(cluster, address, recipe, partial(_say, emit, address), self._take_from)

    def _mark(self, address: Address) -> Mark:
        return replace(self._owner, address=address)


def _sent(resource: Resource[ClusterState], before: Live, revisions: Mapping[str, str]) -> Live:
    """What is wanted, with what is left to others as they have it: replicas that an autoscaler sets."""
    wanted = resource.desired.objects
    return objects_in(recording(settled(wanted, wanted, before, recipe_of(resource).ignored), revisions))


def _revisions(rollout: Rollout, before: Live) -> dict[str, str]:
    """Of the secrets that restart it: as they are, or as its pods have them where they may not be read."""
    rotating = rollout.recipe.rotating
    known = {name: value for name, value in recorded(before).items() if name in rotating}
    return known | Secrets(rollout.cluster, rollout.recipe.namespace).revisions(rotating)


def _digests(resource: Resource[ClusterState], inputs: Mapping[Address, Observed[Any]]) -> dict[str, str]:
    found = dict(recipe_of(resource).digests)
    for image, address in recipe_of(resource).images.items():
        digest = inputs[address].digest if address in inputs else None
        if digest is None:
            raise Missing(image, "its digest is not known", "run mp apply")
        found[image] = str(digest)
    return found


def _first(resource: Resource[ClusterState], before: Live) -> Live:
    """What is deleted before: what cannot be written over, and the old one of what is made anew where nothing is spare."""
    recipe, wanted = recipe_of(resource), resource.desired.objects
    old = [key for key in renamed_in(before) if recipe.recreate and key not in wanted]
    fixed = {**in_the_way(wanted, before, partial=recipe.standing), **made_anew(resource, before)}
    return {**fixed, **{key: before[key] for key in old}}


def _whole(resource: Resource[ClusterState], removed: Live, sent: Live) -> Live:
    """Of what others made the entry says a part: what was deleted is made again with all that it had."""
    return objects_in(whole(removed, sent)) if recipe_of(resource).standing else sent


def _key(locator: Mapping[str, str]) -> tuple[str, ...]:
    return (locator["context"], locator["namespace"], locator["name"])


def _say(emit: Emit, address: Address, text: str) -> None:
    emit(Line(address, text))
