"""Changes: what would be done to one resource, and why. Made by engine/diff, carried out by drivers, shown by views."""

import enum
from dataclasses import dataclass
from typing import Generic

from pipeline.core.digest import Json
from pipeline.core.resource import Address, Entry, Observed, Resource, S, Transfer


class Action(enum.StrEnum):
    """What would be done (an Outcome says what was done)."""

    NOOP = "no-op"
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    ADOPT = "adopt"
    FORGET = "forget"


@dataclass(frozen=True)
class FieldDiff:
    """One field that differs; `path` is a JSON pointer without the leading slash."""

    path: str  # "memory_bytes", "launch/argv/3"
    before: Json
    after: Json


@dataclass(frozen=True)
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

    @property
    def interrupts(self) -> bool:
        """It touches more of what runs than its marks and numbers."""
        return self.resource is not None and any(
            map(self.resource.desired.restarts, (d.path for d in self.diffs))
        )
