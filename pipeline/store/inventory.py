"""The inventory: what we own in one environment, with the last applied and last good State of each thing.

Not the truth: the list, and the memory for deletion, rollback and three-way drift. engine/ reads and updates it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, Protocol

from pipeline.core.change import Action
from pipeline.core.digest import Digest
from pipeline.core.frozen import frozen
from pipeline.core.resource import Address, Contents, Entry, Held, Identity, Made, Proof, Trial, Version
from pipeline.store.history import Past


@frozen
class Inventory:
    """Entries by address; `generation` counts the runs that wrote it, `commit` is the last one applied."""

    entries: Mapping[Address, Entry] = field(default_factory=dict)
    generation: int = 0
    commit: str | None = None


class Run(Protocol):
    """One run that writes: holds the lease from `begin` on, and remembers each step before and after it is taken."""

    def ready(self) -> None:
        """Look whether `begin` would succeed now, without taking the lease: long downloads do not hold it.

        Raises LockHeld, Stale.
        """
        ...

    def hold(self) -> None:
        """Take the lease now, as `begin` does: nothing else may be applied until `close`. Raises LockHeld, Stale."""
        ...

    def begin(self, address: Address, action: Action, entry: Entry | None) -> None:
        """Remember durably, before the side effect, that `entry` may exist from now on. Takes the lease first.

        Raises LockHeld when another run has it, Stale when the inventory changed since it was read.
        """
        ...

    def end(self, address: Address, entry: Entry | None) -> None:
        """Remember what became of it: the entry as it is now, or None when it is gone."""
        ...

    def note(self, address: Address, text: str) -> None:
        """Keep a remark for developers (a traceback) beside the steps."""
        ...

    def record(self, past: Past) -> None:
        """Add a line to the history; it is no part of the inventory."""
        ...

    def close(self, commit: str | None) -> None:
        """Write the inventory whole, and give the lease back. May be called without any `begin`."""
        ...


class Store(Protocol):
    """Where an inventory lives."""

    def load(self) -> Inventory:
        """The inventory with every unfinished run's steps replayed on top. Raises BackendError when unreadable."""
        ...

    def history(self) -> Iterator[Past]:
        """Everything that was recorded, the oldest first. Raises BackendError when unreadable."""
        ...

    def run(self, inventory: Inventory) -> Run:
        """A run that starts from this inventory; nothing is written or locked until its first `begin`."""
        ...


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """JSON of an entry, without what is at its default."""
    record: dict[str, Any] = {
        "kind": entry.kind,
        "locator": dict(entry.locator),
        "applied": dict(entry.applied),
    }
    if entry.good != entry.applied:
        record["good"] = dict(entry.good)
    optional = {
        "remote_id": entry.remote_id,
        "digest": entry.digest,
        "commit": entry.commit,
        "protect": entry.protect or None,
        "on_remove": entry.on_remove if entry.on_remove != "delete" else None,
        "keep": entry.keep or None,
        "made": [list(one) for one in entry.made] or None,
        "contents": _contents(entry.contents),
        "wanted": entry.wanted or None,
        "versions": [_version(one, entry) for one in entry.versions] or None,
        "held": vars(entry.held) if entry.held else None,
        "trial": _trial(entry.trial) if entry.trial else None,
        "identity": vars(entry.identity) if entry.identity else None,
    }
    return record | {key: value for key, value in optional.items() if value is not None}


def entry_from_json(address: str, record: Mapping[str, Any]) -> Entry:
    """The entry that `entry_to_json` wrote. Raises KeyError or TypeError on damage."""
    applied = dict(record["applied"])
    return Entry(
        Address(address),
        str(record["kind"]),
        dict(record["locator"]),
        record.get("remote_id"),
        Digest(record["digest"]) if record.get("digest") else None,
        applied,
        dict(record.get("good", applied)),
        record.get("commit"),
        bool(record.get("protect", False)),
        str(record.get("on_remove", "delete")),
        bool(record.get("keep", False)),
        tuple(Made(str(tag), float(at)) for tag, at in record.get("made", ())),
        Contents(**record.get("contents", {})),
        record.get("wanted", ""),
        tuple(_version_from(one, record.get("good", applied)) for one in record.get("versions", ())),
        Held(**record["held"]) if record.get("held") else None,
        _trial_from(record["trial"]) if record.get("trial") else None,
        Identity(**record["identity"]) if record.get("identity") else None,
    )


def _contents(contents: Contents) -> dict[str, Any] | None:
    return dict(vars(contents)) if contents != Contents() else None


def _trial(trial: Trial) -> dict[str, Any]:
    return {**vars(trial), "contents": dict(vars(trial.contents))}


def _trial_from(record: Mapping[str, Any]) -> Trial:
    return Trial(record["wanted"], record["words"], Contents(**record["contents"]))


def _version(version: Version, entry: Entry) -> dict[str, Any]:
    """Without the state of the last good one, which the entry has."""
    optional = {
        "state": None if version.state == entry.good else dict(version.state),
        "contents": _contents(version.contents),
        "commit": version.commit,
        "recipe": None if version.recipe is None else dict(version.recipe),
        "proof": vars(version.proof) if version.proof else None,
        "proof_at": version.proof_at,
    }
    return {"at": version.at} | {key: value for key, value in optional.items() if value is not None}


def _version_from(record: Mapping[str, Any], good: Mapping[str, Any]) -> Version:
    return Version(
        dict(record.get("state", good)),
        float(record["at"]),
        Contents(**record.get("contents", {})),
        record.get("commit"),
        record.get("recipe"),
        Proof(**record["proof"]) if record.get("proof") else None,
        record.get("proof_at"),
    )
