"""One change, in a worker: remembered before it is taken, carried out by its driver, remembered after. Used by execute."""

import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError, Corrupt, LockHeld, MpError, Stale, Unreachable
from pipeline.core.frozen import frozen
from pipeline.core.plan import Plan
from pipeline.core.report import Event, Finished, Outcome, Started, Status
from pipeline.core.resource import Absent, Address, Observed, Resource
from pipeline.engine.crew import Crew
from pipeline.engine.entries import begun, entry_after


@frozen
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
            crew.run.end(change.address, replace(begun(change, change.resource, crew), applied={}))
    return done


def _attempt(change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew) -> Done:
    began = time.monotonic()
    tracked = change.resource is None or change.resource.tracked
    try:
        if tracked:
            crew.run.begin(
                change.address,
                change.action,
                begun(change, change.resource, crew) if change.resource else change.entry,
            )
        crew.tell(Started(change.address, change.action))
        seen = _apply(change, inputs, crew)
        if tracked:
            crew.run.end(change.address, entry_after(change, seen, inputs, crew))
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
    inputs = {c.address: c.observed for c in plan.changes if c.action is Action.NOOP and c.observed}
    for change in plan.changes:
        if change.action is not Action.NOOP or change.resource is None or not change.resource.tracked:
            continue
        entry = entry_after(change, change.observed, inputs, crew)
        if change.entry is not None and entry is not None:
            entry = replace(entry, commit=change.entry.commit)
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


def saved(crew: Crew) -> str | None:
    """Close the run; what could not be written, in words. Nothing is lost by it: the journal is replayed."""
    try:
        crew.run.close(crew.commit)
    except BackendError as problem:
        return f"{problem.message}; the journal keeps what was done"
    return None
