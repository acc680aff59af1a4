"""A plan: changes, the edges between them, and whether everything could be read. Made by engine/diff."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic, Severity
from pipeline.core.digest import fingerprint
from pipeline.core.resource import Address, Entry, Transfer, Unreadable


@dataclass(frozen=True)
class Rollout:
    """How the deployments of one target are changed: wave after wave, until too many fail for one cause."""

    kind: str
    target: str
    waves: tuple[tuple[Address, ...], ...]
    causes: Mapping[Address, str]  # why each changes: its new engine, or its own address
    max_failures: int = 1  # for one cause
    max_parallel: int | None = None  # None: the limit of the kind


@dataclass(frozen=True)
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
        return Counter(c.action for c in self.changes)
