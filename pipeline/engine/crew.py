"""Who carries out a plan: drivers, the journal's pen, and where events go. Used by execute, step and entries."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import field
from typing import Any

from pipeline.core.frozen import frozen
from pipeline.core.protocols import Driver
from pipeline.core.report import Emit, Event
from pipeline.core.resource import Address, Entry, Resource
from pipeline.store.inventory import Run


@frozen
class Crew:
    """What every step of one run shares."""

    drivers: Mapping[str, Driver[Any]]
    run: Run
    emit: Emit
    commit: str | None = None  # of the checkout
    known: Mapping[Address, Entry] = field(default_factory=dict)  # the inventory as it was read
    local: Mapping[Address, tuple[Resource[Any], ...]] = field(
        default_factory=dict
    )  # needs that are this machine's
    clock: Callable[[], float] = time.time
    command: str = "apply"  # for the history
    origin: str = ""  # URL of the run; "" by hand

    def tell(self, event: Event) -> None:
        """Emit; whoever watches may be gone (a closed pipe), and that is no reason to fail work."""
        with suppress(Exception):
            self.emit(event)
