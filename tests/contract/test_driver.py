"""What every driver promises: it answers for all it is asked, brings what is wanted, and repeats without harm."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.change import Action, Change
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Mark,
    Observed,
    Resource,
    Version,
    fields_of,
    previous_of,
)
from pipeline.core.restoring import Restores
from tests.contract.benches import OWNER, Bench, Factory, parameters
from tests.fakes.engine import ignore


@pytest.fixture(params=parameters())
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    factory: Factory = request.param
    with factory(request, tmp_path) as made:
        yield made


def entry_of(resource: Resource[Any], address: str | None = None) -> Entry:
    state = fields_of(resource.desired)
    return Entry(
        Address(address or resource.address), resource.kind, resource.locator, None, None, state, state
    )


def look(bench: Bench, resource: Resource[Any] | None = None) -> Observed[Any] | Absent:
    asked = resource or bench.wanted
    answer = bench.driver.observe([asked], [])[asked.address]
    assert isinstance(answer, Observed | Absent)
    return answer


def bring(bench: Bench, resource: Resource[Any], action: Action = Action.CREATE) -> Observed[Any]:
    seen = bench.driver.observe([resource], [])[resource.address]
    observed = seen if isinstance(seen, Observed) else None
    change = Change(resource.address, resource.kind, action, resource, observed, None)
    made = bench.driver.apply(change, bench.inputs or {}, ignore)
    assert made is not None
    return made


def delete(bench: Bench) -> Observed[Any] | None:
    resource = bench.wanted
    change: Change[Any] = Change(
        resource.address, resource.kind, Action.DELETE, None, None, entry_of(resource)
    )
    return bench.driver.apply(change, {}, ignore)


def test_nothing_is_there_before_the_first_apply(bench: Bench) -> None:
    assert isinstance(look(bench), Absent)


def test_a_plan_after_apply_is_empty_and_a_second_apply_does_no_harm(bench: Bench) -> None:
    made = bring(bench, bench.wanted)
    seen = look(bench)
    assert isinstance(seen, Observed)
    assert fields_of(seen.state) == fields_of(made.state) == fields_of(bench.wanted.desired)
    assert seen.mark == (
        Mark(OWNER.project, OWNER.environment, bench.wanted.address) if bench.marked else None
    )
    again = bring(bench, bench.wanted)
    assert fields_of(again.state) == fields_of(bench.wanted.desired)


def test_another_wish_is_seen_as_a_difference_and_brought(bench: Bench) -> None:
    if bench.changed is None:
        pytest.skip("nothing about this kind can be wished differently at one address")
    bring(bench, bench.wanted)
    before = look(bench, bench.changed)
    assert isinstance(before, Absent) or fields_of(before.state) != fields_of(bench.changed.desired)
    bring(bench, bench.changed, Action.REPLACE)
    seen = look(bench, bench.changed)
    assert isinstance(seen, Observed)
    assert fields_of(seen.state) == fields_of(bench.changed.desired)


def test_what_somebody_spoils_is_seen_and_brought_back(bench: Bench) -> None:
    assert bench.spoil is not None
    bring(bench, bench.wanted)
    bench.spoil()
    seen = look(bench)
    assert isinstance(seen, Absent) or fields_of(seen.state) != fields_of(bench.wanted.desired)
    bring(bench, bench.wanted, Action.UPDATE)
    back = look(bench)
    assert isinstance(back, Observed)
    assert fields_of(back.state) == fields_of(bench.wanted.desired)


def test_delete_removes_it_and_deleting_twice_is_fine(bench: Bench) -> None:
    bring(bench, bench.wanted)
    assert delete(bench) is None
    assert isinstance(look(bench), Observed if bench.kept else Absent)
    assert delete(bench) is None


def test_a_thing_that_is_only_known_is_answered_for_under_its_own_address(bench: Bench) -> None:
    bring(bench, bench.wanted)
    known = entry_of(bench.wanted, previous_of(bench.wanted.address, bench.wanted.locator))
    answers = bench.driver.observe([], [known])
    assert set(answers) == {known.address}
    assert isinstance(answers[known.address], Observed if bench.findable else Absent)


def test_a_known_thing_that_moved_is_deleted_where_it_was(bench: Bench) -> None:
    bring(bench, bench.wanted)
    moved = entry_of(bench.wanted, previous_of(bench.wanted.address, bench.wanted.locator))
    change: Change[Any] = Change(moved.address, moved.kind, Action.DELETE, None, None, moved)
    assert bench.driver.apply(change, {}, ignore) is None
    assert isinstance(look(bench), Observed if bench.kept else Absent)


def test_an_earlier_version_comes_back_from_what_was_kept_of_it(bench: Bench) -> None:
    if not isinstance(bench.driver, Restores) or bench.changed is None:
        pytest.skip("nothing of this kind is brought back")
    made = bring(bench, bench.wanted)
    kept = json.loads(json.dumps(bench.driver.recall(bench.wanted, bench.inputs or {})))
    bring(bench, bench.changed, Action.REPLACE)
    version = Version(json.loads(json.dumps(fields_of(made.state))), 1.0, recipe=kept)
    earlier = bench.driver.restore(entry_of(bench.changed), version)
    assert (earlier.address, dict(earlier.locator)) == (bench.wanted.address, dict(bench.wanted.locator))
    seen = bench.driver.observe([earlier], [])[earlier.address]
    assert isinstance(seen, Observed)
    change = Change(earlier.address, earlier.kind, Action.REPLACE, earlier, seen, None)
    back = bench.driver.apply(change, {}, ignore)
    assert back is not None
    assert fields_of(back.state) == fields_of(earlier.desired) == fields_of(bench.wanted.desired)


def test_what_is_kept_of_a_version_holds_no_secret(bench: Bench) -> None:
    if not isinstance(bench.driver, Restores):
        pytest.skip("nothing of this kind is brought back")
    assert "value-of-" not in json.dumps(bench.driver.recall(bench.wanted, bench.inputs or {}))
