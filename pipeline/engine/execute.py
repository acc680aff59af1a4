"""Carry out a plan: changes as soon as what they need is done, side by side; the only room that writes.

One scheduler (the calling thread) owns all state; workers only run drivers. A failure stops what needs it and, when a
roll-out has had enough of them, what changes for the same cause; nothing else. Each step is in the journal before it is taken.
"""

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError, MpError
from pipeline.core.plan import Plan
from pipeline.core.report import Finished, Outcome, Report, Status
from pipeline.core.resource import Address, Observed
from pipeline.engine.crew import Crew
from pipeline.engine.history import past_of
from pipeline.engine.rollout import Turns
from pipeline.engine.step import Done, local_needs, saved, step, widen

# How many of a kind run at once: downloads and pushes saturate a disk or a link with two, a build takes the machine.
PARALLEL = {
    "artifact": 2,
    "environment": 1,
    "engine": 1,
    "image": 2,
    "local": 2,
    "docker": 4,
    "kubernetes": 8,
    "kaito": 8,
}
DEFAULT_PARALLEL = 4
POLL_S = 0.2


@dataclass
class _Progress:
    """What the scheduler knows while it works."""

    turns: Turns
    waiting: dict[Address, int] = field(default_factory=dict)  # changes → needs not done yet
    dependants: defaultdict[Address, list[Address]] = field(default_factory=lambda: defaultdict(list))
    ready: defaultdict[str, deque[Change[Any]]] = field(
        default_factory=lambda: defaultdict(deque)
    )  # by lane: a kind, or a target with a limit of its own
    limits: dict[str, int] = field(default_factory=dict)
    running: defaultdict[str, set[Address]] = field(default_factory=lambda: defaultdict(set))
    inputs: dict[Address, Observed[Any]] = field(default_factory=dict)
    outcomes: dict[Address, Outcome] = field(default_factory=dict)
    fatal: MpError | None = None

    @property
    def in_flight(self) -> int:
        return sum(map(len, self.running.values()))

    def enqueue(self, change: Change[Any]) -> None:
        lane, limit = self.turns.lane(change)
        self.limits[lane] = limit or PARALLEL.get(change.kind, DEFAULT_PARALLEL)
        self.ready[lane].append(change)


def execute(plan: Plan, crew: Crew, stop: threading.Event) -> Report:
    """Do what the plan says. `stop` set: start nothing more, finish what runs. Raises LockHeld and Stale."""
    began = time.monotonic()
    active = {change.address: change for change in plan.active}
    progress = _prepare(plan, active)
    crew = replace(crew, local=local_needs(plan))
    if not stop.is_set():
        widen(plan, crew)
    done: queue.SimpleQueue[Done] = queue.SimpleQueue()
    workers = sum(PARALLEL.values()) + sum(rollout.max_parallel or 0 for rollout in plan.rollouts)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="apply") as pool:
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
            _finish(progress, active, finished, crew)
    unsaved = saved(crew)
    if progress.fatal is not None:
        raise progress.fatal
    outcomes = _outcomes(plan, progress, "interrupted" if stop.is_set() else "not reached")
    return Report(outcomes, stop.is_set(), time.monotonic() - began, unsaved)


def _prepare(plan: Plan, active: Mapping[Address, Change[Any]]) -> _Progress:
    progress = _Progress(Turns(plan.rollouts))
    progress.inputs = {c.address: c.observed for c in plan.changes if c.action is Action.NOOP and c.observed}
    for address, change in active.items():
        waits_for = [need for need in plan.needs_of(change) if need in active]
        progress.waiting[address] = len(waits_for)
        for need in waits_for:
            progress.dependants[need].append(address)
        if not waits_for:
            progress.enqueue(change)
    return progress


def _startable(progress: _Progress, plan: Plan) -> Iterator[tuple[Change[Any], dict[Address, Observed[Any]]]]:
    """Take from the ready queues what its lane's limit and its roll-out allow, with the inputs it needs."""
    for lane, waiting in progress.ready.items():
        room = progress.limits[lane] - len(progress.running[lane])
        for change in list(islice((c for c in waiting if _may_start(progress, c)), room)):
            waiting.remove(change)
            progress.running[lane].add(change.address)
            needs = plan.needs.get(change.address, ())
            yield change, {need: progress.inputs[need] for need in needs if need in progress.inputs}


def _may_start(progress: _Progress, change: Change[Any]) -> bool:
    return change.address not in progress.outcomes and progress.turns.has_come(change.address)


def _work(
    change: Change[Any], inputs: Mapping[Address, Observed[Any]], crew: Crew, done: "queue.SimpleQueue[Done]"
) -> None:
    done.put(step(change, inputs, crew))


def _finish(progress: _Progress, active: Mapping[Address, Change[Any]], done: Done, crew: Crew) -> None:
    address = done.change.address
    progress.running[progress.turns.lane(done.change)[0]].discard(address)
    progress.fatal = progress.fatal or done.fatal
    progress.outcomes[address] = done.outcome
    crew.tell(Finished(done.outcome))
    if done.change.resource is None or done.change.resource.tracked:
        with suppress(BackendError):  # a history with a gap fails no work
            crew.run.record(past_of(done.change, done.outcome, crew))
    failed = done.outcome.status is not Status.APPLIED
    _stop(progress, active, progress.turns.ended(address, failed=failed))
    if failed:
        _skip_dependants(progress, active, address)
        return
    if done.observed is not None:
        progress.inputs[address] = done.observed
    for dependant in progress.dependants[address]:
        progress.waiting[dependant] -= 1
        if progress.waiting[dependant] == 0 and dependant not in progress.outcomes:
            progress.enqueue(active[dependant])


def _stop(progress: _Progress, active: Mapping[Address, Change[Any]], reasons: Mapping[Address, str]) -> None:
    """Leave as they are those that have not begun; what has begun ends by itself."""
    begun = set().union(*progress.running.values())
    for address, why in reasons.items():
        if address not in progress.outcomes and address not in begun:
            _skip(progress, active[address], why)
            _skip_dependants(progress, active, address)


def _skip(progress: _Progress, change: Change[Any], why: str) -> None:
    progress.turns.ended(change.address)
    progress.outcomes[change.address] = Outcome(change.address, change.action, Status.SKIPPED, error=why)


def _skip_dependants(progress: _Progress, active: Mapping[Address, Change[Any]], failed: Address) -> None:
    stack = list(progress.dependants[failed])
    while stack:
        address = stack.pop()
        if address in progress.outcomes:
            continue
        _skip(progress, active[address], f"needs {failed}")
        stack.extend(progress.dependants[address])


def _outcomes(plan: Plan, progress: _Progress, why: str) -> tuple[Outcome, ...]:
    return tuple(
        progress.outcomes.get(c.address) or Outcome(c.address, c.action, Status.SKIPPED, error=why)
        for c in plan.active
    )
