"""Carry out a plan: changes as soon as what they need is done, side by side; the only room that writes.

One scheduler (the calling thread) owns all state; workers only run drivers. A failure stops what needs it and
nothing else. Each step is in the journal before it is taken.
"""

import queue
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.errors import Corrupt, LockHeld, MpError, Stale
from pipeline.core.plan import Plan
from pipeline.core.protocols import Driver
from pipeline.core.report import Emit, Event, Finished, Outcome, Report, Started, Status
from pipeline.core.resource import Absent, Address, Entry, Observed, Resource, fields_of
from pipeline.engine.diff import PREVIOUS
from pipeline.store.inventory import Run

# How many of a kind run at once: downloads and pushes saturate a disk or a link with two, a build takes the machine.
PARALLEL = {"artifact": 2, "environment": 1, "engine": 1, "image": 2, "local": 2, "docker": 4}
DEFAULT_PARALLEL = 4
POLL_S = 0.2


@dataclass(frozen=True)
class Crew:
    """Who carries out a plan: drivers, the journal's pen, and where events go."""

    drivers: Mapping[str, Driver[Any]]
    run: Run
    emit: Emit
    commit: str | None = None  # of the checkout
    local: Mapping[Address, tuple[Resource[Any], ...]] = field(
        default_factory=dict
    )  # what changes need of this machine


@dataclass(frozen=True)
class _Done:
    change: Change[Any]
    outcome: Outcome
    observed: Observed[Any] | None
    fatal: MpError | None = None  # the lease is not ours: nothing more may be started


@dataclass
class _Progress:
    """What the scheduler knows while it works."""

    waiting: dict[Address, int] = field(default_factory=dict)  # changes → needs not done yet
    dependants: defaultdict[Address, list[Address]] = field(default_factory=lambda: defaultdict(list))
    ready: defaultdict[str, deque[Change[Any]]] = field(default_factory=lambda: defaultdict(deque))
    running: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    inputs: dict[Address, Observed[Any]] = field(default_factory=dict)
    outcomes: dict[Address, Outcome] = field(default_factory=dict)
    fatal: MpError | None = None

    @property
    def in_flight(self) -> int:
        return sum(self.running.values())


def execute(plan: Plan, crew: Crew, stop: threading.Event) -> Report:
    """Do what the plan says. `stop` set: start nothing more, finish what runs. Raises LockHeld and Stale."""
    began = time.monotonic()
    active = {change.address: change for change in plan.active}
    progress = _prepare(plan, active)
    crew = replace(crew, local=_local(plan))
    _widen(active, crew.run, stop)
    done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
    with ThreadPoolExecutor(max_workers=sum(PARALLEL.values()), thread_name_prefix="apply") as pool:
        while True:
            if not stop.is_set() and progress.fatal is None:
                for change, inputs in _startable(progress, plan):
                    pool.submit(_work, change, inputs, crew, done)
            if not progress.in_flight:
                break
            try:
                finished = done.get(timeout=POLL_S)
            except queue.Empty:
                continue
            _finish(progress, active, finished, crew.emit)
    if progress.fatal is None:
        _record_unchanged(plan, crew)
    crew.run.close(crew.commit)
    if progress.fatal is not None:
        raise progress.fatal
    return _report(plan, progress, interrupted=stop.is_set(), seconds=time.monotonic() - began)


def _widen(active: Mapping[Address, Change[Any]], run: Run, stop: threading.Event) -> None:
    """Remember the old places of things that move before their entries name the new ones: a kill leaks nothing."""
    if stop.is_set():
        return
    for address, change in active.items():
        if address.endswith(PREVIOUS):
            run.begin(address, change.action, change.entry)


def _prepare(plan: Plan, active: Mapping[Address, Change[Any]]) -> _Progress:
    progress = _Progress()
    progress.inputs = {c.address: c.observed for c in plan.changes if c.action is Action.NOOP and c.observed}
    blocked = []
    for address, change in active.items():
        needs = plan.needs.get(address, ())
        if address.endswith(PREVIOUS):  # what replaces it is proven before it goes
            needs = (Address(address.removesuffix(PREVIOUS)),)
        if any(need in plan.unreadable for need in needs):
            blocked.append(address)
        waits_for = [need for need in needs if need in active]
        progress.waiting[address] = len(waits_for)
        for need in waits_for:
            progress.dependants[need].append(address)
        if not waits_for and address not in blocked:
            progress.ready[change.kind].append(change)
    for address in blocked:
        _skip(progress, active[address], "something it needs could not be read")
        _skip_dependants(progress, active, address)
    return progress


def _startable(progress: _Progress, plan: Plan) -> Iterator[tuple[Change[Any], dict[Address, Observed[Any]]]]:
    """Take from the ready queues what its kind's limit allows, with the inputs it needs."""
    for kind, waiting in progress.ready.items():
        while waiting and progress.running[kind] < PARALLEL.get(kind, DEFAULT_PARALLEL):
            change = waiting.popleft()
            progress.running[kind] += 1
            needs = plan.needs.get(change.address, ())
            yield change, {need: progress.inputs[need] for need in needs if need in progress.inputs}


def _work(
    change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew, done: "queue.SimpleQueue[_Done]"
) -> None:
    done.put(_step(change, inputs, crew))


def _step(change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew) -> _Done:
    """One change in a worker: journal, driver, journal."""
    began = time.monotonic()
    tracked = change.resource is None or change.resource.tracked
    try:
        if tracked:
            crew.run.begin(change.address, change.action, _begun(change))
        crew.emit(Started(change.address, change.action))
        seen = _apply(change, inputs, crew)
        if tracked:
            crew.run.end(change.address, _entry(change, seen, crew.commit))
    except (LockHeld, Stale) as problem:
        return _Done(change, _failed(change, problem.message, problem.hint, began), None, problem)
    except MpError as problem:
        return _Done(change, _failed(change, problem.message, problem.hint, began), None)
    except Exception as problem:  # ours: one broken driver is one failure, its traceback is in the journal
        crew.run.note(change.address, traceback.format_exc())
        summary = f"internal error: {type(problem).__name__}: {problem}"
        return _Done(
            change, _failed(change, summary, "this is a bug of mp: report it with .mp's journal", began), None
        )
    seconds = time.monotonic() - began
    outcome = Outcome(
        change.address,
        change.action,
        Status.APPLIED,
        seconds,
        proof=seen.proof if seen else None,
        endpoint=seen.endpoint if seen else None,
    )
    return _Done(change, outcome, seen)


def _apply(change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew) -> Observed[Any] | None:
    if change.action is Action.FORGET:
        return None
    driver = crew.drivers[change.kind]
    try:
        return driver.apply(change, inputs, crew.emit)
    except Corrupt:
        if not crew.local.get(change.address):
            raise
        _mend(change, crew)
        return driver.apply(change, inputs, crew.emit)


def _mend(change: Change[Any], crew: Crew) -> None:
    """Bring again what this machine lost of what a change needs: a file was damaged on its disk, and is gone from the cache."""

    def emit(event: Event) -> None:
        crew.emit(event if isinstance(event, Finished) else replace(event, address=change.address))

    for need in crew.local[change.address]:
        driver = crew.drivers[need.kind]
        if isinstance(driver.observe([need], [])[need.address], Absent):
            driver.apply(Change(need.address, need.kind, Action.CREATE, need, None, None), {}, emit)


def _local(plan: Plan) -> dict[Address, tuple[Resource[Any], ...]]:
    """For every change the resources it needs that are this machine's own: caches, which can be filled again."""
    own = {c.address: c.resource for c in plan.changes if c.resource is not None and not c.resource.tracked}
    return {
        change.address: tuple(own[need] for need in plan.needs.get(change.address, ()) if need in own)
        for change in plan.active
    }


def _failed(change: Change[Any], message: str, hint: str | None, began: float) -> Outcome:
    return Outcome(change.address, change.action, Status.FAILED, time.monotonic() - began, message, hint)


def _begun(change: Change[Any]) -> Entry | None:
    """The widened entry: from now on this may exist. What was applied before stays known until the step ends."""
    old, resource = change.entry, change.resource
    if resource is None:
        return old
    return Entry(
        resource.address,
        resource.kind,
        resource.locator,
        old.remote_id if old else None,
        old.digest if old else None,
        old.applied if old else {},
        old.good if old else {},
        old.commit if old else None,
        resource.lifecycle.protect,
        resource.lifecycle.on_remove,
        resource.keep,
    )


def _entry(change: Change[Any], seen: Observed[Any] | None, commit: str | None) -> Entry | None:
    """The entry after a step: None when the thing is gone or no longer ours."""
    resource = change.resource
    if resource is None or seen is None:
        return None
    state = fields_of(seen.state)
    return Entry(
        resource.address,
        resource.kind,
        resource.locator,
        seen.remote_id,
        seen.digest,
        state,
        state,
        commit,
        resource.lifecycle.protect,
        resource.lifecycle.on_remove,
        resource.keep,
    )


def _finish(progress: _Progress, active: Mapping[Address, Change[Any]], done: _Done, emit: Emit) -> None:
    address = done.change.address
    progress.running[done.change.kind] -= 1
    progress.fatal = progress.fatal or done.fatal
    progress.outcomes[address] = done.outcome
    emit(Finished(done.outcome))
    if done.outcome.status is not Status.APPLIED:
        _skip_dependants(progress, active, address)
        return
    if done.observed is not None:
        progress.inputs[address] = done.observed
    for dependant in progress.dependants[address]:
        progress.waiting[dependant] -= 1
        if progress.waiting[dependant] == 0 and dependant not in progress.outcomes:
            change = active[dependant]
            progress.ready[change.kind].append(change)


def _skip(progress: _Progress, change: Change[Any], why: str) -> None:
    progress.outcomes[change.address] = Outcome(change.address, change.action, Status.SKIPPED, error=why)


def _skip_dependants(progress: _Progress, active: Mapping[Address, Change[Any]], failed: Address) -> None:
    stack = list(progress.dependants[failed])
    while stack:
        address = stack.pop()
        if address in progress.outcomes:
            continue
        _skip(progress, active[address], f"needs {failed}")
        stack.extend(progress.dependants[address])


def _record_unchanged(plan: Plan, crew: Crew) -> None:
    """Remember what is as wanted and was not known to be: after a lost inventory, a cut-off run, a changed lifecycle."""
    for change in plan.changes:
        if change.action is not Action.NOOP or change.resource is None or not change.resource.tracked:
            continue
        entry = _entry(change, change.observed, change.entry.commit if change.entry else crew.commit)
        if entry is not None and entry != change.entry:
            crew.run.begin(change.address, Action.NOOP, None)
            crew.run.end(change.address, entry)


def _report(plan: Plan, progress: _Progress, *, interrupted: bool, seconds: float) -> Report:
    why = "interrupted" if interrupted else progress.fatal.message if progress.fatal else "not reached"
    outcomes = [
        progress.outcomes.get(c.address) or Outcome(c.address, c.action, Status.SKIPPED, error=why)
        for c in plan.active
    ]
    return Report(tuple(outcomes), interrupted, seconds)
