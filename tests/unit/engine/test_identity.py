"""A name that comes to mean another system: nothing of what that one says is believed, and nothing is done to it."""

from dataclasses import replace

import pytest

from pipeline.core.change import Action, Change
from pipeline.core.protocols import Answer
from pipeline.core.resource import Absent, Address, Entry, Identity, Observed, State, Unreadable
from pipeline.engine.identity import checked, identity_of
from pipeline.store.inventory import Inventory, entry_from_json, entry_to_json

ADDRESS, NEW = Address("m/kubernetes:prod"), Address("n/kubernetes:prod")
KNOWN = Identity("kubernetes prod", "uid-1", "ca-1")


def entry(identity: Identity | None = KNOWN, address: Address = ADDRESS) -> Entry:
    return replace(
        Entry(address, "kubernetes", {"name": "m"}, None, None, {"a": 1}, {"a": 1}), identity=identity
    )


def inventory(*entries: Entry) -> Inventory:
    return Inventory({one.address: one for one in entries})


@pytest.mark.parametrize(
    "seen",
    [
        replace(KNOWN, uid="uid-2"),
        replace(KNOWN, uid="", authority="ca-2"),
        Identity("kubernetes prod", "uid-2", ""),
    ],
)
def test_another_one_under_the_name_is_refused_and_nothing_of_it_counts(seen: Identity) -> None:
    answers: dict[Address, Answer] = {ADDRESS: Absent(identity=seen), NEW: Observed(State(), identity=seen)}
    found, (refusal,) = checked(answers, inventory(entry()))
    assert all(isinstance(one, Unreadable) for one in found.values()), "what is new must not go there either"
    assert "kubernetes prod" in refusal.summary
    assert refusal.hint is not None
    assert "mp forget prod" in refusal.hint
    assert ("kube-system" in refusal.hint) is not bool(seen.uid), "a right that was there is no way out"


@pytest.mark.parametrize(
    "seen",
    [
        KNOWN,
        replace(KNOWN, authority="ca-2"),  # its certificates were changed
        replace(KNOWN, uid=""),  # an account that may not ask
        replace(KNOWN, system="kubernetes dev", uid="uid-2"),
        None,
    ],
)
def test_the_same_one_is_believed(seen: Identity | None) -> None:
    answers: dict[Address, Answer] = {ADDRESS: Absent(identity=seen), NEW: Unreadable("away")}
    assert checked(answers, inventory(entry())) == (answers, ())


def test_an_inventory_that_knows_no_identity_believes_every_answer() -> None:
    answers = {ADDRESS: Absent(identity=KNOWN)}
    assert checked(answers, inventory(entry(None))) == (answers, ())


def test_every_target_of_the_name_is_to_be_forgotten_also_places_that_were_left() -> None:
    left = entry(address=Address("m/kubernetes:east~1a2b3c4d"))
    _, (refusal,) = checked({ADDRESS: Absent(identity=replace(KNOWN, uid="x"))}, inventory(entry(), left))
    assert refusal.hint is not None
    assert "mp forget east prod (" in refusal.hint


def test_an_account_that_may_not_ask_leaves_what_is_known() -> None:
    seen = replace(KNOWN, uid="", authority="ca-2")
    change: Change[State] = Change(ADDRESS, "kubernetes", Action.CREATE, None, None, entry(), identity=seen)
    assert identity_of(change) == replace(KNOWN, authority="ca-2")
    assert identity_of(replace(change, identity=None)) == KNOWN
    assert identity_of(replace(change, entry=entry(None))) == seen


@pytest.mark.parametrize("identity", [None, KNOWN])
def test_the_inventory_keeps_it(identity: Identity | None) -> None:
    one = entry(identity)
    assert entry_from_json(ADDRESS, entry_to_json(one)) == one
