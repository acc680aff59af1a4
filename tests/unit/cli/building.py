"""Plans and reports built by hand, for tests of views."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.diagnostic import Diagnostic, Where
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.plan import Plan
from pipeline.core.resource import (
    Address,
    Entry,
    Observed,
    Resource,
    State,
    Transfer,
    Unreadable,
    fields_of,
)


@frozen
class Box(State):
    """A deployment's state, as a target might have it."""

    memory_bytes: int | None = None
    gpus: int = 0
    port: int | str = "auto"
    launch: Mapping[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = field(default=None, compare=False)


def artifact(
    pin: str = "9c0d2f7a" * 5, source: str = "hf://Qwen/Qwen3-8B", version: str = "main"
) -> Artifact:
    return Artifact(source, version, pin, (FileEntry("model.safetensors", 16_380_000_000, "ab" * 32),))


def change(
    address: str,
    action: Action,
    *,
    kind: str | None = None,
    desired: State | None = None,
    live: State | None = None,
    applied: State | None = None,
    diffs: Sequence[FieldDiff] = (),
    drift: Sequence[FieldDiff] = (),
    missing: bool = False,
    reason: str = "",
    transfer: Transfer | None = None,
    line: int | None = None,
) -> Change[Any]:
    """A change of "model/kind:place"; what is deleted or forgotten has no resource."""
    where = Address(address)
    kind = kind or address.split("/", 1)[-1].partition(":")[0]
    gone = action in (Action.DELETE, Action.FORGET)
    place = Where("models.yaml", line, 3) if line else None
    resource = None if gone else Resource(where, kind, {}, desired or Box(), where=place)
    entry = Entry(where, kind, {}, None, None, fields_of(applied), {}) if applied else None
    observed = Observed(live) if live else None
    return Change(
        where,
        kind,
        action,
        resource,
        observed,
        entry,
        tuple(diffs),
        tuple(drift),
        missing,
        reason,
        transfer or Transfer(),
    )


def plan(
    *changes: Change[Any],
    unreadable: Mapping[str, Unreadable] | None = None,
    optional: Sequence[str] = (),
    diagnostics: Sequence[Diagnostic] = (),
    refusals: Sequence[Diagnostic] = (),
    models: int = 1,
    lock: str = "ok",
) -> Plan:
    return Plan(
        "acme",
        "prod",
        changes,
        {},
        {Address(address): unread for address, unread in (unreadable or {}).items()},
        frozenset(map(Address, optional)),
        diagnostics=tuple(diagnostics),
        refusals=tuple(refusals),
        lock=lock,
        models=models,
        read_seconds=3.1,
    )
