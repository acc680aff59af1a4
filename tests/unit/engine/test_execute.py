"""How a plan is carried out: order, independence of failures, interruption, what the inventory remembers."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.change import Action, Change
from pipeline.core.errors import Corrupt, LockHeld
from pipeline.core.frozen import frozen
from pipeline.core.model import Lifecycle
from pipeline.core.plan import Plan
from pipeline.core.protocols import Answer
from pipeline.core.report import Emit, Event, Finished, Report, Status
from pipeline.core.resource import Address, Entry, Mark, Observed, Resource, State, previous_of
from pipeline.engine.crew import Crew
from pipeline.engine.diff import diff, orphans
from pipeline.engine.execute import execute
from pipeline.engine.observe import observe
from pipeline.store.file import FileStore
from tests.fakes.memory import MemoryDriver

MARK = Mark("p", "default", Address(""))


@frozen
class ThingState(State):
    size_bytes: int = 1


def thing(
    address: str, *needs: str, kind: str = "docker", size: int = 1, protect: bool = False
) -> Resource[ThingState]:
    locator = {"name": address}
    return Resource(
        Address(address),
        kind,
        locator,
        ThingState(size),
        tuple(Address(need) for need in needs),
        tracked=kind != "artifact",
        lifecycle=Lifecycle(protect),
    )


class Project:
    """Two kinds of things in memory and a real inventory on disk."""

    def __init__(self, folder: Path) -> None:
        self.store = FileStore(folder / "inventory", "p", "default")
        self.drivers = {kind: MemoryDriver(kind, "p") for kind in ("artifact", "docker")}
        self.events: list[Event] = []

    def plan(self, *resources: Resource[Any]) -> Plan:
        wanted = {resource.address: resource for resource in resources}
        inventory = self.store.load()
        gone = orphans(wanted, inventory)
        answers = observe(wanted, gone, self.drivers)
        compared = diff(wanted, gone, answers, inventory, MARK)
        needs = {resource.address: resource.needs for resource in resources}
        return Plan("p", "default", compared.changes, needs, compared.unreadable, refusals=compared.refusals)

    def apply(self, *resources: Resource[Any], stop: threading.Event | None = None) -> Report:
        plan = self.plan(*resources)
        inventory = self.store.load()
        crew = Crew(self.drivers, self.store.run(inventory), self.events.append, "abc", inventory.entries)
        return execute(plan, crew, stop or threading.Event())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def results(report: Report) -> dict[str, Status]:
    return {outcome.address: outcome.status for outcome in report.outcomes}


def test_needs_come_first_and_a_second_plan_is_empty(project: Project) -> None:
    chain = [thing("m/artifact", kind="artifact"), thing("m/a", "m/artifact"), thing("m/b", "m/a")]
    report = project.apply(*reversed(chain))
    assert report.count(Status.APPLIED) == 3
    assert project.plan(*chain).active == ()


def test_one_failure_stops_only_what_needs_it(project: Project) -> None:
    project.drivers["docker"].broken[Address("b/image")] = "no space"
    resources = []
    for model in "abcd":
        resources += [
            thing(f"{model}/image"),
            thing(f"{model}/run", f"{model}/image"),
            thing(f"{model}/more", f"{model}/run"),
        ]
    report = project.apply(*resources)
    assert {a for a, status in results(report).items() if status is not Status.APPLIED} == {
        "b/image",
        "b/run",
        "b/more",
    }
    assert results(report)["b/image"] is Status.FAILED
    assert [o.error for o in report.outcomes if o.address == "b/run"] == ["needs b/image"]


@dataclass
class Rotting:
    """Things that lean on weights: `rots` times they find them damaged, and take them out of the cache."""

    whole: MemoryDriver
    weights: MemoryDriver
    rots: int

    def observe(self, wanted: Sequence[Resource[Any]], known: Sequence[Entry]) -> Mapping[Address, Answer]:
        return self.whole.observe(wanted, known)

    def apply(
        self, change: Change[Any], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[Any] | None:
        if self.rots:
            self.rots -= 1
            self.weights.things.clear()
            raise Corrupt("cache", "a file is not what its sha256 says")
        assert self.weights.things, "the weights are there again"
        return self.whole.apply(change, inputs, emit)


@pytest.mark.parametrize(("rots", "status"), [(1, Status.APPLIED), (2, Status.FAILED)])
def test_what_a_change_found_damaged_on_this_machine_is_brought_again_once(
    project: Project, rots: int, status: Status
) -> None:
    chain = [thing("m/artifact", kind="artifact"), thing("m/run", "m/artifact")]
    project.apply(chain[0])
    docker, weights = project.drivers["docker"], project.drivers["artifact"]
    crew = Crew(
        {"docker": Rotting(docker, weights, rots), "artifact": weights},
        project.store.run(project.store.load()),
        project.events.append,
    )

    report = execute(project.plan(*chain), crew, threading.Event())

    assert results(report) == {"m/run": status}


def test_a_failed_creation_is_remembered_as_maybe_there(project: Project) -> None:
    project.drivers["docker"].broken[Address("m/run")] = "exploded"
    project.apply(thing("m/run"))
    entry = project.store.load().entries[Address("m/run")]
    assert (entry.applied, entry.locator) == ({}, {"name": "m/run"})


def test_what_cannot_be_read_blocks_what_needs_it_and_nothing_else(project: Project) -> None:
    project.drivers["docker"].unreadable[Address("a/image")] = "401"
    things = (thing("a/image"), thing("a/run", "a/image"), thing("a/more", "a/run"), thing("b/run"))
    plan = project.plan(*things)
    assert plan.left_out == {"a/run": "a/image", "a/more": "a/image"}
    assert plan.count()[Action.CREATE] == 1, "what is counted is what apply does"
    assert results(project.apply(*things)) == {"b/run": Status.APPLIED}


def test_what_left_a_place_stays_there_while_its_new_place_cannot_be_read(project: Project) -> None:
    old = thing("m/run")
    project.apply(old)
    new = replace(old, locator={"name": "elsewhere"})
    project.drivers["docker"].unreadable[old.address] = "connection refused"
    plan = project.plan(new)
    left = previous_of(old.address, old.locator)
    assert plan.left_out == {left: old.address}
    assert plan.count()[Action.DELETE] == 0
    assert project.apply(new).outcomes == ()
    project.drivers["docker"].unreadable.clear()
    assert project.plan(new).count()[Action.DELETE] == 1, "it is not forgotten"


def test_stop_starts_nothing_more_and_reports_the_rest(project: Project) -> None:
    stop = threading.Event()
    stop.set()
    report = project.apply(thing("a/run"), thing("b/run"), stop=stop)
    assert report.interrupted
    assert results(report) == {"a/run": Status.SKIPPED, "b/run": Status.SKIPPED}
    assert project.drivers["docker"].applied == []


def test_deletes_leave_the_inventory(project: Project) -> None:
    project.apply(thing("a/run"), thing("b/run"))
    report = project.apply(thing("a/run"))
    assert [(o.address, o.action) for o in report.outcomes] == [("b/run", Action.DELETE)]
    assert set(project.store.load().entries) == {"a/run"}


def test_untracked_kinds_leave_no_entry(project: Project) -> None:
    project.apply(thing("m/artifact", kind="artifact"))
    assert project.store.load().entries == {}


def test_a_lost_inventory_is_found_again_by_marks(project: Project) -> None:
    project.apply(thing("a/run"))
    project.store.snapshot.unlink()
    report = project.apply(thing("a/run"))
    assert report.outcomes == ()
    assert project.store.load().entries[Address("a/run")].applied == {"size_bytes": 1}


def test_a_changed_protection_reaches_the_inventory_without_a_change(project: Project) -> None:
    project.apply(thing("a/run"))
    project.apply(thing("a/run", protect=True))
    assert project.store.load().entries[Address("a/run")].protect
    assert "protected" in project.plan().refusals[0].summary


def test_a_broken_driver_is_one_failure_and_its_traceback_is_kept_out_of_sight(project: Project) -> None:
    report = project.apply(thing("a/run", "nowhere/to-be-found"), thing("b/run"))
    assert results(report) == {"a/run": Status.FAILED, "b/run": Status.APPLIED}
    assert "internal error: AssertionError" in (report.outcomes[0].error or "")


def test_a_held_lease_stops_the_run_before_anything_is_written(project: Project) -> None:
    other = project.store.run(project.store.load())
    other.begin(Address("x/run"), Action.CREATE, None)
    with pytest.raises(LockHeld):
        project.apply(thing("a/run"))
    assert project.drivers["docker"].applied == []


def test_events_tell_every_outcome(project: Project) -> None:
    project.apply(thing("a/run"))
    assert [e.outcome.address for e in project.events if isinstance(e, Finished)] == ["a/run"]


def test_a_thousand_changes_keep_their_order_and_their_count(project: Project) -> None:
    resources = []
    for number in range(250):
        resources += [thing(f"m{number}/a"), thing(f"m{number}/b", f"m{number}/a")]
    report = project.apply(*resources)
    assert [o.address for o in report.outcomes] == [r.address for r in resources]
    assert project.plan(*resources).active == ()


def test_a_thing_that_moves_is_known_at_both_places_from_the_first_step(project: Project) -> None:
    project.apply(thing("a/run"))
    moved = replace(thing("a/run"), locator={"name": "elsewhere"})
    project.drivers["docker"].broken[Address("a/run")] = "exploded"
    project.apply(moved)
    locators = {a: dict(e.locator) for a, e in project.store.load().entries.items()}
    assert locators == {
        "a/run": {"name": "elsewhere"},
        previous_of(Address("a/run"), {"name": "a/run"}): {"name": "a/run"},
    }
    project.drivers["docker"].broken.clear()
    project.apply(moved)
    assert {key[1] for key in project.drivers["docker"].things} == {(("name", "elsewhere"),)}
    assert set(project.store.load().entries) == {"a/run"}


def test_after_a_failed_change_nobody_claims_that_somebody_else_drifted_it(project: Project) -> None:
    project.apply(thing("a/run"))
    project.drivers["docker"].broken[Address("a/run")] = "exploded"
    project.apply(thing("a/run", size=2))
    (change,) = project.plan(thing("a/run", size=2)).changes
    assert (change.action, change.drift, change.missing) == (Action.UPDATE, (), False)
    assert project.store.load().entries[Address("a/run")].good == {"size_bytes": 1}


def test_a_held_lease_is_found_before_anything_is_downloaded(project: Project) -> None:
    other = project.store.run(project.store.load())
    other.begin(Address("x/run"), Action.CREATE, None)
    with pytest.raises(LockHeld):
        project.apply(thing("a/artifact", kind="artifact"), thing("a/run", "a/artifact"))
    assert project.drivers["artifact"].applied == []


def test_a_watcher_that_is_gone_fails_no_work(project: Project) -> None:
    def closed(event: Event) -> None:
        raise BrokenPipeError

    plan = project.plan(thing("a/run"))
    inventory = project.store.load()
    report = execute(plan, Crew(project.drivers, project.store.run(inventory), closed), threading.Event())
    assert results(report) == {"a/run": Status.APPLIED}


def test_a_full_disk_met_by_a_driver_is_no_bug_of_ours(project: Project) -> None:
    class Full(MemoryDriver):
        def apply(self, change: Any, inputs: Any, emit: Any) -> Any:
            raise OSError(28, "No space left on device", "/srv/run.json")

    project.drivers["docker"] = Full("docker", "p")
    (outcome,) = project.apply(thing("a/run")).outcomes
    assert (outcome.status, outcome.error) == (Status.FAILED, "/srv/run.json: No space left on device")
