"""Changes: what would be done to one resource, and why. Made by engine/diff, carried out by drivers, shown by views."""

import enum
from collections.abc import Iterator
from typing import Generic

from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.resource import Address, Entry, Identity, Observed, Resource, S, Transfer


class Action(enum.StrEnum):
    """What would be done (an Outcome says what was done)."""

    NOOP = "no-op"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    ADOPT = "adopt"
    FORGET = "forget"


@frozen
class FieldDiff:
    """One field that differs; `path` is a JSON pointer without the leading slash."""

    path: str  # "memory_bytes", "launch/argv/3"
    before: Json
    after: Json


@frozen
class Change(Generic[S]):
    """One resource's step; a driver carries out exactly this."""

    address: Address
    kind: str
    action: Action
    resource: Resource[S] | None  # None on delete and forget
    observed: Observed[S] | None  # None when absent
    entry: Entry | None  # what the inventory remembers
    diffs: tuple[FieldDiff, ...] = ()  # live → desired
    drift: tuple[FieldDiff, ...] = ()  # last applied → live
    missing: bool = False  # it is in the inventory and not in the world
    reason: str = ""  # "image fingerprint changed", "drifted", "not there"
    transfer: Transfer = Transfer()
    identity: Identity | None = None  # of the system that was read

    @property
    def interrupts(self) -> bool:
        """It touches more of what runs than its marks and numbers."""
        return self.resource is not None and any(
            map(self.resource.desired.restarts, (d.path for d in self.diffs))
        )


def differences(before: Json, after: Json, path: str = "") -> Iterator[FieldDiff]:
    """Every leaf in which two JSON values differ, in sorted order; lists of one length go item by item."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            if key in before and key in after:
                yield from differences(before[key], after[key], _join(path, key))
            else:  # not there and null are two things
                yield FieldDiff(_join(path, key), before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, _join(path, str(index)))
    else:
        yield FieldDiff(path, before, after)


def _join(path: str, key: str) -> str:
    escaped = key.replace("~", "~0").replace("/", "~1")  # RFC 6901
    return f"{path}/{escaped}" if path else escaped
