"""The inventory on disk: what a killed run leaves, who may write, what is replayed."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.change import Action
from pipeline.core.errors import BackendError, LockHeld, Stale
from pipeline.core.resource import Address, Contents, Entry, Held, Proof, Version
from pipeline.store.file import FileStore
from pipeline.store.history import Past, Side
from pipeline.store.inventory import Inventory, entry_from_json, entry_to_json

A, B, C = Address("a/docker:box"), Address("b/docker:box"), Address("c/docker:box")


def entry(address: Address = A, memory: int = 1) -> Entry:
    return Entry(
        address, "docker", {"name": address[0]}, "id1", None, {"memory_bytes": memory}, {"memory_bytes": 1}
    )


def store(folder: Path) -> FileStore:
    return FileStore(folder / "inventory", "p", "default")


def test_a_run_that_closes_is_read_back(tmp_path: Path) -> None:
    run = store(tmp_path).run(Inventory())
    run.begin(A, Action.CREATE, entry())
    run.end(A, entry(memory=2))
    run.close("abc")
    read = store(tmp_path).load()
    assert (read.entries, read.generation, read.commit) == ({A: entry(memory=2)}, 1, "abc")
    assert not store(tmp_path).journal.exists()


def test_a_killed_run_is_replayed(tmp_path: Path) -> None:
    run = store(tmp_path).run(Inventory())
    run.begin(A, Action.CREATE, entry())
    run.end(A, entry(memory=2))
    run.begin(B, Action.CREATE, entry(B))
    assert store(tmp_path).load().entries == {A: entry(memory=2), B: entry(B)}


def test_a_torn_last_line_is_dropped_and_not_written_behind(tmp_path: Path) -> None:
    first = store(tmp_path).run(Inventory())
    first.begin(A, Action.CREATE, entry())
    with store(tmp_path).journal.open("ab") as stream:
        stream.write(b'{"begin": "b/dock')
    del first  # what a kill does: the lease goes with the process
    second = store(tmp_path).run(store(tmp_path).load())
    second.begin(B, Action.CREATE, entry(B))
    assert store(tmp_path).load().entries == {A: entry(), B: entry(B)}


def a_busy_run(folder: Path) -> Inventory:
    """Creations, an update, a deletion, a failure; its journal is back beside the snapshot: killed in between."""
    run = store(folder).run(Inventory())
    for address, memories in ((A, (1, 2)), (B, (1,))):
        for memory in memories:
            run.begin(address, Action.UPDATE, entry(address, memory))
            run.end(address, entry(address, memory + 10))
    run.begin(B, Action.DELETE, entry(B))
    run.end(B, None)
    run.begin(C, Action.CREATE, entry(C))
    kept = folder / "journal"
    os.link(store(folder).journal, kept)
    run.close("abc")
    closed = store(folder).load()
    kept.rename(store(folder).journal)
    return closed


def test_a_kill_between_snapshot_and_journal_is_replayed_to_the_same(tmp_path: Path) -> None:
    closed = a_busy_run(tmp_path)
    assert closed.entries == {A: entry(memory=12), C: entry(C)}
    assert store(tmp_path).load() == closed

    run = store(tmp_path).run(store(tmp_path).load())
    run.begin(C, Action.CREATE, entry(C))
    run.end(C, entry(C, 5))
    run.close("def")

    assert store(tmp_path).load().entries == {A: entry(memory=12), C: entry(C, 5)}
    assert not store(tmp_path).journal.exists()


def test_a_journal_that_ends_at_any_byte_is_read(tmp_path: Path) -> None:
    a_busy_run(tmp_path)
    store(tmp_path).snapshot.unlink()
    whole = store(tmp_path).journal.read_bytes()
    sizes = set()
    for end in range(0, len(whole) + 1, 29):
        store(tmp_path).journal.write_bytes(whole[:end])
        found = store(tmp_path).load().entries
        assert set(found) <= {A, B, C}
        sizes.add(len(found))
    assert sizes == {0, 1, 2}


def test_only_one_run_writes_at_a_time(tmp_path: Path) -> None:
    first = store(tmp_path).run(Inventory())
    first.begin(A, Action.CREATE, entry())
    with pytest.raises(LockHeld, match=r"process \d+"):
        store(tmp_path).run(store(tmp_path).load()).begin(B, Action.CREATE, entry(B))


def test_a_run_from_an_old_reading_is_stale(tmp_path: Path) -> None:
    old = store(tmp_path).load()
    run = store(tmp_path).run(old)
    run.begin(A, Action.CREATE, entry())
    run.close(None)
    with pytest.raises(Stale):
        store(tmp_path).run(old).begin(B, Action.CREATE, entry(B))


def test_a_run_without_a_step_writes_nothing(tmp_path: Path) -> None:
    store(tmp_path).run(Inventory()).close("abc")
    assert not (tmp_path / "inventory").exists()


def test_damage_is_said_and_not_taken_for_empty(tmp_path: Path) -> None:
    store(tmp_path).snapshot.parent.mkdir()
    store(tmp_path).snapshot.write_text("{")
    with pytest.raises(BackendError, match="cannot read"):
        store(tmp_path).load()


def test_another_projects_inventory_is_refused(tmp_path: Path) -> None:
    run = store(tmp_path).run(Inventory())
    run.begin(A, Action.CREATE, entry())
    run.close(None)
    with pytest.raises(BackendError, match="belongs to project"):
        FileStore(tmp_path / "inventory", "other", "default").load()


def test_entries_round_trip_through_json() -> None:
    one = entry(memory=3)
    assert entry_from_json(A, json.loads(json.dumps(entry_to_json(one)))) == one


@pytest.mark.parametrize(
    "text",
    ["[]", '{"format_version":1,"project":"p"}', '{"format_version":1,"project":"p","entries":{"a":{}}}'],
)
def test_a_snapshot_of_another_shape_is_an_error_and_no_traceback(tmp_path: Path, text: str) -> None:
    store(tmp_path).snapshot.parent.mkdir()
    store(tmp_path).snapshot.write_text(text)
    with pytest.raises(BackendError, match="cannot read"):
        store(tmp_path).load()


def test_damage_in_the_middle_of_the_journal_is_said(tmp_path: Path) -> None:
    store(tmp_path).journal.parent.mkdir()
    store(tmp_path).journal.write_text(
        '{"end":"a/docker:box","entry":null}\n{"beg\n{"end":"b/docker:box","entry":null}\n'
    )
    with pytest.raises(BackendError, match="line 2"):
        store(tmp_path).load()


def a_past(at: float) -> Past:
    side = Side(Contents("v1", "vllm"), "abc")
    proof = Proof("http://x", "hello", "world", 0.1)
    return Past(at, "apply", "", "c0ffee", A, "update", "applied", 1.5, side, Side(), ("n",), None, proof)


def test_history_is_read_back_in_order_and_outlives_the_journal(tmp_path: Path) -> None:
    for at in (1.0, 2.0):
        run = store(tmp_path).run(store(tmp_path).load())
        run.begin(A, Action.CREATE, entry())
        run.record(a_past(at))
        run.close("abc")
    assert list(store(tmp_path).history()) == [a_past(1.0), a_past(2.0)]


def test_torn_last_line_of_the_history_and_lines_of_another_mp_are_left_out(tmp_path: Path) -> None:
    run = store(tmp_path).run(Inventory())
    run.record(a_past(1.0))
    with store(tmp_path).past.open("ab") as stream:
        stream.write(b'{"of": "another mp"}\n{"at": 2.0, "com')
    assert list(store(tmp_path).history()) == [a_past(1.0)]


def test_versions_and_what_is_held_are_read_back(tmp_path: Path) -> None:
    proof = Proof("http://x", "hello", "world", 0.1)
    good = Version({"memory_bytes": 1}, 5.0, Contents("v1", "vllm"), "c0ffee", {"digests": {}}, proof, 6.0)
    before = Version({"memory_bytes": 7}, 1.0)
    kept = replace(
        entry(), versions=(good, before), held=Held("ff", 1.0, 9.0), wanted="ee", contents=good.contents
    )
    assert entry_from_json(A, json.loads(json.dumps(entry_to_json(kept)))) == kept
