"""Who is asked before anything moves, about what, and what becomes of the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import error, warning
from pipeline.core.errors import Unreachable
from pipeline.core.protocols import Findings
from pipeline.core.report import Emit
from pipeline.core.resource import Address, Entry, Observed, Resource
from pipeline.engine.preflight import preflight


@dataclass
class Silent:
    """A driver that has nothing to say beforehand."""

    def observe(self, wanted: Sequence[Resource[Any]], known: Sequence[Entry]) -> Mapping[Address, Any]:
        return {}

    def apply(
        self, change: Change[Any], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[Any] | None:
        raise AssertionError("only plans are made here")


@dataclass
class Asked(Silent):
    answer: Findings | Exception = Findings()
    about: list[list[str]] = field(default_factory=list)

    def check(self, changes: Sequence[Change[Any]]) -> Findings:
        self.about.append([change.address for change in changes])
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def change(name: str, kind: str, action: Action = Action.CREATE) -> Change[Any]:
    return Change(Address(f"{name}/{kind}:prod"), kind, action, None, None, None)


def test_driver_is_asked_once_about_all_that_changes_at_its_place() -> None:
    driver = Asked()
    changes = [
        change("a", "cluster"),
        change("b", "cluster", Action.NOOP),
        change("c", "cluster", Action.DELETE),
        change("d", "cluster", Action.FORGET),
        change("e", "local"),
    ]
    assert preflight(changes, {"cluster": driver, "local": Silent()}) == Findings()
    assert driver.about == [["a/cluster:prod", "c/cluster:prod"]]


def test_nobody_is_asked_when_nothing_changes() -> None:
    driver = Asked()
    preflight([change("a", "cluster", Action.NOOP)], {"cluster": driver})
    assert driver.about == []


def test_answers_of_all_drivers_are_joined() -> None:
    one = Findings(refusals=(error("no room"),))
    other = Findings(barred=(error("may not"),), remarks=(warning("old"),))
    drivers = {"cluster": Asked(one), "other": Asked(other)}
    assert preflight([change("a", "cluster"), change("b", "other")], drivers) == one + other


def test_place_that_does_not_answer_is_a_warning() -> None:
    drivers = {"cluster": Asked(Unreachable("kubernetes prod", "connection refused"))}
    (said,) = preflight([change("a", "cluster")], drivers).remarks
    assert "connection refused" in said.summary
