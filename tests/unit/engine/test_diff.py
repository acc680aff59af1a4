"""What a plan says for every pairing of wanted, seen and remembered."""

from dataclasses import field, replace

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.change import Action, differences
from pipeline.core.digest import Digest, Json
from pipeline.core.frozen import frozen
from pipeline.core.model import Lifecycle
from pipeline.core.protocols import Answer
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Mark,
    Observed,
    Resource,
    State,
    Unreadable,
    fields_of,
    previous_of,
)
from pipeline.engine.diff import Adoption, Comparison, diff, guard_deletes, orphans
from pipeline.store.inventory import Inventory

ADDRESS = Address("m/docker:box")
MARK = Mark("p", "default", ADDRESS)


@frozen
class ThingState(State):
    memory_bytes: int = 1
    argv: tuple[str, ...] = ()
    name: str = field(default="a", metadata={"replace": True})
    recipe: str = field(default="", compare=False)


def wanted(state: ThingState | None = None, **changes: object) -> Resource[ThingState]:
    resource = Resource(ADDRESS, "docker", {"name": "m"}, state or ThingState())
    return replace(resource, **changes)  # type: ignore[arg-type]


def remembered(state: ThingState | None = None, **changes: object) -> Entry:
    fields = fields_of(state or ThingState())
    return replace(Entry(ADDRESS, "docker", {"name": "m"}, None, None, fields, fields), **changes)  # type: ignore[arg-type]


def compare(resource: Resource[ThingState] | None, answer: Answer, entry: Entry | None = None) -> Comparison:
    inventory = Inventory({entry.address: entry} if entry else {})
    desired = {resource.address: resource} if resource else {}
    gone = orphans(desired, inventory)
    answers = {address: answer for address in [*desired, *(e.address for e in gone)]}
    return diff(desired, gone, answers, inventory, MARK)


def test_what_is_not_there_is_created() -> None:
    (change,) = compare(wanted(), Absent()).changes
    assert (change.action, change.missing) == (Action.CREATE, False)


def test_what_was_applied_and_is_gone_is_missing() -> None:
    (change,) = compare(wanted(), Absent(), remembered()).changes
    assert (change.action, change.missing) == (Action.CREATE, True)


def test_equal_states_are_a_no_op_and_recipes_do_not_count() -> None:
    (change,) = compare(
        wanted(ThingState(recipe="x")), Observed(ThingState(recipe="y"), MARK), remembered()
    ).changes
    assert (change.action, change.diffs, change.drift) == (Action.NOOP, (), ())


def test_a_pending_change_is_not_drift() -> None:
    (change,) = compare(
        wanted(ThingState(2)), Observed(ThingState(1), MARK), remembered(ThingState(1))
    ).changes
    assert change.action is Action.UPDATE
    assert [d.path for d in change.diffs] == ["memory_bytes"]
    assert change.drift == ()


def test_a_live_edit_is_drift_and_is_healed() -> None:
    (change,) = compare(wanted(), Observed(ThingState(9), MARK), remembered()).changes
    assert (change.action, change.reason) == (Action.UPDATE, "drifted")
    assert [(d.path, d.before, d.after) for d in change.drift] == [("memory_bytes", 1, 9)]


def test_drift_and_a_pending_change_are_both_shown() -> None:
    seen = Observed(ThingState(9, ("x",)), MARK)
    (change,) = compare(wanted(ThingState(1, ("y",))), seen, remembered(ThingState(1, ("x",)))).changes
    assert [d.path for d in change.diffs] == ["argv/0", "memory_bytes"]
    assert [d.path for d in change.drift] == ["memory_bytes"]


def test_a_field_marked_replace_replaces() -> None:
    (change,) = compare(wanted(ThingState(name="b")), Observed(ThingState(), MARK), remembered()).changes
    assert change.action is Action.REPLACE


def test_server_defaults_are_not_drift() -> None:
    seen = Observed(ThingState(4), MARK, would_be=ThingState(4))
    (change,) = compare(wanted(), seen, remembered(ThingState(4))).changes
    assert (change.action, change.drift) == (Action.NOOP, ())


def test_a_moved_tag_is_drift_by_digest() -> None:
    entry = remembered(digest=Digest("sha256:a"))
    (change,) = compare(wanted(), Observed(ThingState(), MARK, digest=Digest("sha256:b")), entry).changes
    assert change.action is Action.UPDATE
    assert [(d.path, d.before, d.after) for d in change.drift] == [("digest", "sha256:a", "sha256:b")]


def test_what_somebody_else_manages_is_refused_with_the_drivers_words() -> None:
    seen = Observed(ThingState(4), MARK, refused="size is managed by scaler")
    (refusal,) = compare(wanted(), seen, remembered()).refusals
    assert refusal.summary.endswith("size is managed by scaler")


def test_what_is_not_ours_is_refused() -> None:
    found = compare(wanted(), Observed(ThingState(), None))
    assert "not ours" in found.refusals[0].summary


def test_what_another_thing_made_is_not_taken_over_whatever_is_said() -> None:
    @frozen
    class Takeable(ThingState):
        adoptable = True

    resource = wanted(Takeable())
    made = Observed(Takeable(), None, maker="Workspace/qwen")
    for adoption in Adoption:
        answers: dict[Address, Answer] = {ADDRESS: made}
        found = diff({ADDRESS: resource}, (), answers, Inventory(), MARK, adoption=adoption)
        (refusal,) = found.refusals
        assert "Workspace/qwen made it" in refusal.summary
        assert refusal.hint == "give this entry another name"
        assert [change.action for change in found.changes] != [Action.ADOPT]


def test_a_lost_mark_is_named_as_drift_and_refused() -> None:
    found = compare(wanted(), Observed(ThingState(), None), remembered())
    assert [d.path for d in found.changes[0].drift] == ["mark"]
    assert found.refusals


def test_unreadable_is_never_a_change() -> None:
    found = compare(wanted(), Unreadable("time-out"), remembered())
    assert found.changes == ()
    assert found.unreadable[ADDRESS].reason == "time-out"


def test_what_is_no_longer_declared_is_deleted() -> None:
    (change,) = compare(None, Observed(ThingState(), MARK), remembered()).changes
    assert change.action is Action.DELETE


def test_an_unreadable_orphan_is_not_deleted() -> None:
    assert compare(None, Unreadable("403"), remembered()).changes == ()


def test_an_orphan_without_our_mark_is_left_alone() -> None:
    found = compare(
        None, Observed(ThingState(), Mark("p", "default", Address("other/docker:box"))), remembered()
    )
    assert found.changes[0].action is Action.FORGET
    assert "left alone" in found.diagnostics[0].summary


def test_protection_outlives_its_entry() -> None:
    found = compare(None, Observed(ThingState(), MARK), remembered(protect=True))
    assert "protected" in found.refusals[0].summary


def test_on_remove_forget_drops_the_entry_only() -> None:
    (change,) = compare(None, Observed(ThingState(), MARK), remembered(on_remove="forget")).changes
    assert change.action is Action.FORGET


def test_images_are_never_deleted() -> None:
    assert compare(None, Observed(ThingState(), MARK), remembered(keep=True)).changes == ()


def test_a_thing_that_moved_is_made_anew_and_its_old_place_emptied() -> None:
    entry = remembered()
    resource = wanted(locator={"name": "other"}, lifecycle=Lifecycle())
    inventory = Inventory({ADDRESS: entry})
    gone = orphans({ADDRESS: resource}, inventory)
    answers: dict[Address, Answer] = {ADDRESS: Absent(), gone[0].address: Observed(ThingState(), MARK)}
    found = diff({ADDRESS: resource}, gone, answers, inventory, MARK)
    assert [(c.address, c.action) for c in found.changes] == [
        (ADDRESS, Action.CREATE),
        (previous_of(ADDRESS, {"name": "m"}), Action.DELETE),
    ]


def test_a_thing_that_is_wanted_again_where_it_was_is_not_deleted() -> None:
    # it was to move, the creation at the new place failed, and the file was put back
    old = replace(remembered(), address=previous_of(ADDRESS, {"name": "m"}))
    failed = replace(remembered(), locator={"name": "other"}, applied={})
    inventory = Inventory({old.address: old, ADDRESS: failed})
    gone = orphans({ADDRESS: wanted()}, inventory)
    answers: dict[Address, Answer] = {ADDRESS: Observed(ThingState(), MARK), gone[0].address: Absent()}
    found = diff({ADDRESS: wanted()}, gone, answers, inventory, MARK)
    assert [(c.address, c.action) for c in found.changes] == [
        (ADDRESS, Action.NOOP),
        (previous_of(ADDRESS, {"name": "other"}), Action.FORGET),
        (old.address, Action.FORGET),
    ]


def test_an_image_of_another_content_than_was_applied_has_not_drifted() -> None:
    entry = remembered(ThingState(2), digest=Digest("sha256:new"))
    (change,) = compare(
        wanted(ThingState(1)), Observed(ThingState(1), MARK, digest=Digest("sha256:old")), entry
    ).changes
    assert (change.action, change.drift) == (Action.NOOP, ())


def test_many_deletes_are_refused_unless_a_number_is_given() -> None:
    (change,) = compare(None, Observed(ThingState(), MARK), remembered()).changes
    assert guard_deletes((change,) * 3, 3, None) == ()
    assert guard_deletes((change,) * 4, 4, None)
    assert guard_deletes((change,) * 4, 40, None) == ()
    assert guard_deletes((change,) * 4, 4, 4) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_nothing_differs_from_itself(value: Json) -> None:
    assert list(differences(value, value)) == []


@given(JSON, JSON)
def test_two_values_differ_when_and_only_when_a_diff_says_so(one: Json, other: Json) -> None:
    assert bool(list(differences(one, other))) == (one != other)
