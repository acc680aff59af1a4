"""Outcomes and events: what was done, and what a view may show while it is being done."""

import enum
from collections.abc import Callable
from typing import TypeAlias

from pipeline.core.change import Action
from pipeline.core.frozen import frozen
from pipeline.core.resource import Address, Proof


class Status(enum.StrEnum):
    """What was done (an Action says what would be)."""

    APPLIED = "applied"
    FAILED = "failed"
    SKIPPED = "skipped"  # something it needs failed, or the run was interrupted
    UNKNOWN = "unknown"  # begun, and no answer came: the next plan reads it again


@frozen
class Outcome:
    address: Address
    action: Action
    status: Status
    seconds: float = 0.0
    error: str | None = None
    hint: str | None = None
    proof: Proof | None = None
    endpoint: str | None = None


@frozen
class Report:
    """All outcomes of a run, in plan order."""

    outcomes: tuple[Outcome, ...]
    interrupted: bool = False
    seconds: float = 0.0
    unsaved: str | None = None  # why the inventory could not be written whole; the journal has it

    def count(self, status: Status) -> int:
        return sum(1 for outcome in self.outcomes if outcome.status is status)


@frozen
class Started:
    """Work on a change began."""

    address: Address
    action: Action


@frozen
class Progress:
    """Bytes or a phase of work under way; sent often, shown seldom."""

    address: Address
    doing: str  # "download", "push", "build", "install", "compile", "start", "prove"
    done_bytes: int = 0
    total_bytes: int = 0  # 0: not known


@frozen
class Line:
    """One line of a subprocess or an engine's log, for a view that shows the last one."""

    address: Address
    text: str


@frozen
class Finished:
    outcome: Outcome


Event: TypeAlias = Started | Progress | Line | Finished
Emit: TypeAlias = Callable[[Event], None]
