"""A plan: changes, the edges between them, and whether everything could be read. Made by engine/diff."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic, Severity
from pipeline.core.digest import fingerprint
from pipeline.core.frozen import frozen
from pipeline.core.resource import Address, Entry, Transfer, Unreadable, current_of


@frozen
class Rollout:
    """How the deployments of one target are changed: wave after wave, until too many fail for one cause."""

    kind: str
    target: str
    waves: tuple[tuple[Address, ...], ...]
    causes: Mapping[Address, str]  # why each changes: its new engine, or its own address
    max_failures: int = 1  # for one cause
    max_parallel: int | None = None  # None: the limit of the kind


@frozen
class Plan:
    """What apply would do. `changes` holds every resource, no-ops too, in manifest order."""

    project: str
    environment: str
    changes: tuple[Change[Any], ...]  # Any: each kind has a State of its own
    needs: Mapping[Address, tuple[Address, ...]]  # edges, only between addresses of `changes`
    unreadable: Mapping[Address, Unreadable] = field(default_factory=dict)
    optional: frozenset[Address] = frozenset()  # unreadable ones that do not make the plan incomplete
    diagnostics: tuple[Diagnostic, ...] = ()
    refusals: tuple[Diagnostic, ...] = ()  # guards and protections that say no: nothing is applied, exit 4
    barred: tuple[
        Diagnostic, ...
    ] = ()  # what this account may not do: it may plan and not apply; also remarks
    lock: str = "ok"  # or "stale": pins were resolved in memory; apply writes models.lock first
    models: int = 0
    read_seconds: float = 0.0
    # owned, not declared any more, and left where they are: images, and everything of a file without models
    kept: tuple[Entry, ...] = ()
    rollouts: tuple[Rollout, ...] = ()

    @property
    def complete(self) -> bool:
        """Everything that is not optional could be read."""
        return not (set(self.unreadable) - self.optional)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.severity is Severity.ERROR)

    @property
    def active(self) -> tuple[Change[Any], ...]:
        """What apply does."""
        return tuple(c for c in self._differing if c.address not in self.left_out)

    @cached_property
    def left_out(self) -> Mapping[Address, Address]:
        """What would be done but for something that could not be read: that thing, for each."""
        if not self.unreadable:
            return {}
        differing = {change.address: change for change in self._differing}

        def cause(address: Address) -> Address | None:
            if address in self.unreadable:
                return address
            needs = self.needs_of(differing[address]) if address in differing else ()
            return next(filter(None, map(cause, needs)), None)

        return {address: why for address in differing if (why := cause(address))}

    def needs_of(self, change: Change[Any]) -> tuple[Address, ...]:
        """What is done before it. What takes the place of a thing is proven before that one goes."""
        here = current_of(change.address)
        if change.resource is None and here != change.address:
            return (here,)
        return self.needs.get(change.address, ())

    @property
    def _differing(self) -> tuple[Change[Any], ...]:
        return tuple(c for c in self.changes if c.action is not Action.NOOP)

    @property
    def drifted(self) -> tuple[Change[Any], ...]:
        return tuple(c for c in self.changes if c.drift or c.missing)

    @property
    def transfer(self) -> Transfer:
        return sum((c.transfer for c in self.active), Transfer())

    @property
    def digest(self) -> str:
        """Names what would be done to shared things (registries, deployments): two machines' caches make one digest."""
        shared = [c for c in self.active if c.resource is None or c.resource.tracked]
        return fingerprint(
            [[c.address, c.action, [[d.path, d.before, d.after] for d in c.diffs]] for c in shared]
        )

    def count(self) -> Counter[Action]:
        return Counter(c.action for c in self.changes if c.address not in self.left_out)
