"""In which order deployments are changed: sizes of waves, what shares a cause, and where a run stops."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.change import Change
from pipeline.core.errors import StartFailed
from pipeline.core.frozen import frozen
from pipeline.core.plan import Plan
from pipeline.core.report import Emit, Report, Status
from pipeline.core.resource import Address, Contents, Mark, Observed, Resource, State
from pipeline.engine.crew import Crew
from pipeline.engine.diff import diff
from pipeline.engine.execute import execute
from pipeline.engine.observe import observe
from pipeline.engine.rollout import rollouts_of, wave_sizes
from pipeline.store.file import FileStore
from pipeline.targets.docker import DockerSpec
from pipeline.targets.rollouts import Wave, WavesSpec
from tests.fakes.memory import MemoryDriver

OLD, NEW = "vllm-1 (aaa)", "vllm-2 (bbb)"

WAVES = st.lists(
    st.one_of(st.integers(1, 40), st.integers(1, 100).map(lambda part: f"{part}%")), min_size=1, max_size=5
)


@pytest.mark.parametrize(
    ("waves", "total", "sizes"),
    [
        ((1, "10%", "100%"), 20, (1, 2, 17)),
        ((1, "10%", "100%"), 1, (1,)),
        ((1, "10%", "100%"), 0, ()),
        ((1,), 3, (1, 1, 1)),
        (("1%",), 3, (1, 1, 1)),
        (("34%",), 10, (4, 4, 2)),
        (("100%",), 7, (7,)),
        ((50,), 7, (7,)),
    ],
)
def test_sizes_of_waves(waves: tuple[Wave, ...], total: int, sizes: tuple[int, ...]) -> None:
    assert wave_sizes(waves, total) == sizes


@given(WAVES, st.integers(0, 500))
def test_waves_hold_everything_once_and_none_is_empty(waves: list[Wave], total: int) -> None:
    sizes = wave_sizes(waves, total)
    assert sum(sizes) == total
    assert all(size > 0 for size in sizes)


@frozen
class ThingState(State):
    fingerprint: str


@dataclass
class Watched(MemoryDriver):
    """Remembers what was under way together; `bad` engines do not start."""

    bad: set[str] = field(default_factory=set)
    most: int = 0
    running: set[Address] = field(default_factory=set)
    together: list[frozenset[Address]] = field(default_factory=list)

    def apply(
        self, change: Change[Any], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[Any] | None:
        with self.guard:
            self.running.add(change.address)
            self.together.append(frozenset(self.running))
            self.most = max(self.most, len(self.running))
        try:
            threading.Event().wait(0.002)
            if change.resource is not None and change.resource.contents.engine in self.bad:
                with self.guard:
                    self.applied.append((change.action, change.address))
                raise StartFailed(change.address, "exit code 1")
            return super().apply(change, inputs, emit)
        finally:
            with self.guard:
                self.running.discard(change.address)


def deployment(name: str, engine: str, fingerprint: str = "1") -> Resource[ThingState]:
    return Resource(
        Address(f"{name}/docker:box"),
        "docker",
        {"name": name},
        ThingState(f"{engine} {fingerprint}"),
        contents=Contents("v1", engine),
    )


class Fleet:
    """Deployments of one target in memory, with a real inventory."""

    def __init__(self, folder: Path, **rule: Any) -> None:
        self.store = FileStore(folder / "inventory", "p", "default")
        self.driver = Watched("docker", "p")
        spec = DockerSpec(kind="docker", rollout=WavesSpec(**rule))
        self.targets = {"box": spec}

    def plan(self, resources: Sequence[Resource[Any]]) -> Plan:
        wanted = {each.address: each for each in resources}
        answers = observe(wanted, (), {"docker": self.driver})
        compared = diff(wanted, (), answers, self.store.load(), Mark("p", "default", Address("")))
        return Plan(
            "p", "default", compared.changes, {}, rollouts=rollouts_of(compared.changes, self.targets)
        )

    def apply(self, resources: Sequence[Resource[Any]]) -> Report:
        inventory = self.store.load()
        crew = Crew(
            {"docker": self.driver}, self.store.run(inventory), lambda event: None, "c", inventory.entries
        )
        plan = self.plan(resources)
        self.driver.applied.clear()
        self.driver.together.clear()
        self.driver.most = 0
        return execute(plan, crew, threading.Event())

    @property
    def touched(self) -> list[str]:
        return [address.partition("/")[0] for _, address in self.driver.applied]


def named(number: int) -> str:
    return f"m{number:02}"


def test_engine_that_does_not_start_stops_after_the_first_wave(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(1, "10%", "100%"))
    fleet.apply([deployment(named(n), OLD) for n in range(20)])
    fleet.driver.bad = {NEW}
    report = fleet.apply([deployment(named(n), NEW) for n in range(20)])
    assert fleet.touched == ["m00"]
    assert (report.count(Status.FAILED), report.count(Status.SKIPPED)) == (1, 19)
    assert report.outcomes[7].error == "1 deployment with the same engine failed (m00)"


def test_it_stops_again_when_it_is_run_again_and_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(1, "100%"))
    fleet.apply([deployment(named(n), OLD) for n in range(5)])
    fleet.driver.bad = {NEW}
    for _ in range(2):
        fleet.apply([deployment(named(n), NEW) for n in range(5)])
        assert fleet.touched == ["m00"]
    fleet.driver.bad = set()
    report = fleet.apply([deployment(named(n), NEW) for n in range(5)])
    assert report.count(Status.APPLIED) == 5


def test_failures_of_one_cause_do_not_stop_another(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(2, "100%"))
    fleet.apply([deployment(named(n), OLD) for n in range(8)])
    fleet.driver.bad = {NEW}
    mixed = [deployment(named(n), NEW if n % 2 else OLD, "2") for n in range(8)]
    report = fleet.apply(mixed)
    done = {outcome.address.partition("/")[0]: outcome.status for outcome in report.outcomes}
    assert {name for name, status in done.items() if status is Status.APPLIED} == {"m00", "m02", "m04", "m06"}
    assert [status for status in done.values()].count(Status.FAILED) == 2  # both began in the first wave
    assert [status for status in done.values()].count(Status.SKIPPED) == 2


def test_models_that_fail_for_their_own_reasons_stop_nobody(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(1,))
    fleet.apply([deployment(named(n), OLD) for n in range(4)])
    fleet.driver.broken = {Address("m01/docker:box"): "no such head"}
    report = fleet.apply([deployment(named(n), OLD, "2") for n in range(4)])
    assert (report.count(Status.APPLIED), report.count(Status.FAILED)) == (3, 1)
    assert fleet.touched == ["m00", "m01", "m02", "m03"]


def test_new_deployments_stop_nobody_either(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.driver.broken = {Address("m00/docker:box"): "no such head"}
    report = fleet.apply([deployment(named(n), OLD) for n in range(9)])
    assert (report.count(Status.APPLIED), report.count(Status.FAILED)) == (8, 1)


def test_more_failures_are_borne_when_that_is_said(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(1,), max_failures=3)
    fleet.apply([deployment(named(n), OLD) for n in range(6)])
    fleet.driver.bad = {NEW}
    report = fleet.apply([deployment(named(n), NEW) for n in range(6)])
    assert report.count(Status.FAILED) == 3
    assert report.outcomes[5].error == "3 deployments with the same engine failed (m00, m01, m02)"


def test_a_limit_of_the_target_holds(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, max_parallel=2)
    report = fleet.apply([deployment(named(n), OLD) for n in range(12)])
    assert report.count(Status.APPLIED) == 12
    assert fleet.driver.most <= 2


@settings(deadline=None, max_examples=30)  # each writes an inventory: a busy disk is no failure
@given(waves=WAVES, total=st.integers(1, 24))
def test_a_wave_begins_when_the_one_before_has_ended(
    waves: list[Wave], total: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"), waves=tuple(waves))
    resources = [deployment(named(n), OLD) for n in range(total)]
    (rollout,) = fleet.plan(resources).rollouts
    number = {address: n for n, wave in enumerate(rollout.waves) for address in wave}
    assert set(number) == {each.address for each in resources}
    report = fleet.apply(resources)
    assert report.count(Status.APPLIED) == total
    began = [number[address] for _, address in fleet.driver.applied]
    assert began == sorted(began)
    assert all(len({number[address] for address in group}) == 1 for group in fleet.driver.together)


def test_what_most_share_is_tried_first(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(1, "100%"))
    fleet.apply([deployment(named(n), OLD) for n in range(4)])
    own = deployment("m00", OLD, "2")
    (rollout,) = fleet.plan([own, *(deployment(named(n), NEW) for n in range(1, 4))]).rollouts
    assert rollout.waves[0] == ("m01/docker:box",)
    assert rollout.causes[own.address] == own.address


def test_lost_inventory_takes_every_engine_for_new(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, waves=(1, "100%"))
    fleet.apply([deployment(named(n), OLD) for n in range(3)])
    fleet.store.snapshot.unlink()
    changed = [deployment(named(n), OLD, "2") for n in range(3)]
    (rollout,) = fleet.plan(changed).rollouts
    assert set(rollout.causes.values()) == {OLD}
