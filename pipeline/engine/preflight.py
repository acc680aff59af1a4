"""Places are asked whether they would take what is planned, before a byte is downloaded, built or pushed. Used by plan."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import warning
from pipeline.core.errors import BackendError
from pipeline.core.protocols import Checks, Driver, Findings


def preflight(changes: Sequence[Change[Any]], drivers: Mapping[str, Driver[Any]]) -> Findings:
    """What drivers say of the changes of their kinds, side by side. Nobody is asked about what stays as it is."""
    asked: defaultdict[str, list[Change[Any]]] = defaultdict(list)
    for change in changes:
        if change.action not in (Action.NOOP, Action.FORGET) and isinstance(drivers.get(change.kind), Checks):
            asked[change.kind].append(change)
    if not asked:
        return Findings()

    def check(kind: str) -> Findings:
        driver = drivers[kind]
        assert isinstance(driver, Checks), "the others were left out"
        try:
            return driver.check(asked[kind])
        except BackendError as problem:
            said = warning(f"{kind}: not checked before anything moves: {problem.message}", hint=problem.hint)
            return Findings(remarks=(said,))

    with ThreadPoolExecutor(len(asked), "preflight") as pool:
        return sum(pool.map(check, sorted(asked)), Findings())
