"""One change, in a worker: remembered before it is taken, carried out by its driver, remembered after. Used by execute."""

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.errors import BackendError, Corrupt, LockHeld, MpError, Stale, Unreachable
from pipeline.core.plan import Plan
from pipeline.core.protocols import Driver
from pipeline.core.report import Emit, Event, Finished, Outcome, Started, Status
from pipeline.core.resource import Absent, Address, Entry, Made, Observed, Resource, fields_of
from pipeline.store.inventory import Run


@dataclass(frozen=True)
class Crew:
    """Who carries out a plan: drivers, the journal's pen, and where events go."""

    drivers: Mapping[str, Driver[Any]]
    run: Run
    emit: Emit
    commit: str | None = None  # of the checkout
    known: Mapping[Address, Entry] = field(default_factory=dict)  # the inventory as it was read
    local: Mapping[Address, tuple[Resource[Any], ...]] = field(
        default_factory=dict
    )  # needs that are this machine's
    clock: Callable[[], float] = time.time

    def tell(self, event: Event) -> None:
        """Emit; whoever watches may be gone (a closed pipe), and that is no reason to fail work."""
        with suppress(Exception):
            self.emit(event)


@dataclass(frozen=True)
class Done:
    """A step that ended, one way or another."""

    change: Change[Any]
    outcome: Outcome
    observed: Observed[Any] | None = None
    fatal: MpError | None = None  # the lease is not ours: nothing more may be started


def step(change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew) -> Done:
    """Never raises: what goes wrong is the outcome. After a failure nobody knows what is applied: the next plan looks."""
    done = _attempt(change, inputs, crew)
    if (
        done.outcome.status is not Status.APPLIED
        and done.fatal is None
        and change.resource
        and change.resource.tracked
    ):
        with suppress(BackendError):  # then the entry stays as it was begun
            crew.run.end(change.address, replace(_begun(change, change.resource, crew), applied={}))
    return done


def _attempt(change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew) -> Done:
    began = time.monotonic()
    tracked = change.resource is None or change.resource.tracked
    try:
        if tracked:
            crew.run.begin(
                change.address,
                change.action,
                _begun(change, change.resource, crew) if change.resource else change.entry,
            )
        crew.tell(Started(change.address, change.action))
        seen = _apply(change, inputs, crew)
        if tracked:
            crew.run.end(change.address, _entry(change, seen, crew, crew.commit))
    except (LockHeld, Stale) as problem:
        return Done(change, _failed(change, problem, began), fatal=problem)
    except Unreachable as problem:  # no answer: it may have been done all the same
        return Done(
            change,
            replace(_failed(change, problem, began), status=Status.UNKNOWN if tracked else Status.FAILED),
        )
    except MpError as problem:
        return Done(change, _failed(change, problem, began))
    except OSError as problem:  # this machine's disk, permissions, limits: no bug, wherever it was met
        world = MpError(
            f"{problem.filename or 'this machine'}: {problem.strerror or problem}",
            "look at its disk and permissions",
        )
        return Done(change, _failed(change, world, began))
    except Exception as problem:  # ours: one broken driver is one failure, its traceback is in the journal
        with suppress(Exception):  # a journal that cannot be written is no second failure
            crew.run.note(change.address, _frames(problem))
        bug = MpError(
            f"internal error: {type(problem).__name__}: {problem}",
            "this is a bug of mp: see the journal in .mp",
        )
        return Done(change, _failed(change, bug, began))
    outcome = Outcome(
        change.address,
        change.action,
        Status.APPLIED,
        time.monotonic() - began,
        proof=seen.proof if seen else None,
        endpoint=seen.endpoint if seen else None,
    )
    return Done(change, outcome, seen)


def widen(plan: Plan, crew: Crew) -> None:
    """Before anything is done, remember the old places of what moves, and what is there and was not known.

    A kill then leaks nothing, a lost inventory is found again by its marks, and a changed protection holds at once.
    Raises LockHeld and Stale before anything was done.
    """
    if any(change.resource is None or change.resource.tracked for change in plan.active):
        crew.run.ready()
    for change in plan.active:
        if (
            change.entry is not None
            and change.entry != crew.known.get(change.address)
            and change.resource is None
        ):
            crew.run.begin(change.address, change.action, change.entry)
    for change in plan.changes:
        if change.action is not Action.NOOP or change.resource is None or not change.resource.tracked:
            continue
        entry = _entry(change, change.observed, crew, change.entry.commit if change.entry else crew.commit)
        if entry is not None and entry != crew.known.get(change.address):
            crew.run.end(change.address, entry)


def local_needs(plan: Plan) -> dict[Address, tuple[Resource[Any], ...]]:
    """For every change the resources it needs that are this machine's own: caches, which can be filled again."""
    own = {c.address: c.resource for c in plan.changes if c.resource is not None and not c.resource.tracked}
    return {
        change.address: tuple(own[need] for need in plan.needs.get(change.address, ()) if need in own)
        for change in plan.active
    }


def _apply(change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew) -> Observed[Any] | None:
    if change.action is Action.FORGET:
        return None
    driver = crew.drivers[change.kind]
    try:
        return driver.apply(change, inputs, crew.tell)
    except Corrupt:
        if not _mend(change, crew):
            raise
        return driver.apply(change, inputs, crew.tell)


def _mend(change: Change[Any], crew: Crew) -> bool:
    """Bring again what this machine lost of what a change needs: a damaged file was found, and is gone from the cache."""

    def tell(event: Event) -> None:
        crew.tell(event if isinstance(event, Finished) else replace(event, address=change.address))

    mended = False
    for need in crew.local.get(change.address, ()):
        driver = crew.drivers[need.kind]
        if isinstance(driver.observe([need], [])[need.address], Absent):
            driver.apply(Change(need.address, need.kind, Action.CREATE, need, None, None), {}, tell)
            mended = True
    return mended


def _failed(change: Change[Any], problem: MpError, began: float) -> Outcome:
    seconds = time.monotonic() - began
    return Outcome(change.address, change.action, Status.FAILED, seconds, problem.message, problem.hint)


def _frames(problem: Exception) -> str:
    """Where it happened, without what: an error's text may hold what was sent."""
    frames = traceback.extract_tb(problem.__traceback__)
    return "".join([*traceback.format_list(frames), type(problem).__name__])


def _begun(change: Change[Any], resource: Resource[Any], crew: Crew) -> Entry:
    """The widened entry: from now on this may exist. What was applied before stays known until the step ends."""
    blank = Entry(
        resource.address, resource.kind, resource.locator, remote_id=None, digest=None, applied={}, good={}
    )
    return replace(
        change.entry or blank,
        locator=resource.locator,
        protect=resource.lifecycle.protect,
        on_remove=resource.lifecycle.on_remove,
        keep=resource.keep,
        made=_made(change, resource, crew),
    )


def _entry(change: Change[Any], seen: Observed[Any] | None, crew: Crew, commit: str | None) -> Entry | None:
    """The entry after a step: None when the thing is gone or no longer ours. Only what was proven is good."""
    resource = change.resource
    if resource is None or seen is None:
        return None
    state = fields_of(seen.state)
    proven = resource.keep or seen.proof is not None or seen.accepted or change.entry is None
    return Entry(
        address=resource.address,
        kind=resource.kind,
        locator=resource.locator,
        remote_id=seen.remote_id,
        digest=seen.digest,
        applied=state,
        good=state if proven or change.entry is None else change.entry.good,
        commit=commit,
        protect=resource.lifecycle.protect,
        on_remove=resource.lifecycle.on_remove,
        keep=resource.keep,
        made=_made(change, resource, crew),
        contents=resource.contents,
    )


def _made(change: Change[Any], resource: Resource[Any], crew: Crew) -> tuple[Made, ...]:
    """The images that were applied here, with the desired one: from its first byte on it is ours to prune."""
    full = fields_of(resource.desired).get("fingerprint") if resource.keep else None
    before = change.entry.made if change.entry else ()
    if full is None or (before and before[0].tag == image_tag(str(full))):
        return before
    own = Made(image_tag(str(full)), crew.clock())
    return (own, *(one for one in before if one.tag != own.tag))


def saved(crew: Crew) -> str | None:
    """Close the run; what could not be written, in words. Nothing is lost by it: the journal is replayed."""
    try:
        crew.run.close(crew.commit)
    except BackendError as problem:
        return f"{problem.message}; the journal keeps what was done"
    return None
