"""Every folder here is a case: before.yaml is applied, world.yaml disturbs the world, models.yaml is planned.

`plan.txt` and `plan.json` are what the user sees; `just golden` (MP_GOLDEN=1) rewrites them, review reads them like
code. After the plan the invariants hold: applying it leaves nothing to do, and destroying twice is fine.

world.yaml, all optional:
    edit: {ADDRESS: {FIELD: VALUE}}      the live state was edited by hand
    gone: [ADDRESS]                      it was removed by hand
    unmarked: [ADDRESS]                  it was made anew without our mark
    moved: {ADDRESS: DIGEST}             a tag names another image
    unreadable: {ADDRESS: REASON}        the world does not answer
    transfer: {ADDRESS: {FIELD: BYTES}}  what bringing it up would move
    locked: true                         plan with --locked
    max_deletes: N
"""

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import engine
from pipeline.cli.views import json as views
from pipeline.cli.views.plan import Origin
from pipeline.cli.views.plan import plan as view
from pipeline.core.digest import Digest
from pipeline.core.errors import MpError, UserError
from pipeline.core.plan import Plan
from pipeline.core.report import Status
from pipeline.core.resource import Address, Transfer
from pipeline.engine import Planned, Selection
from tests.fakes.memory import MemoryDriver, Thing
from tests.fakes.project import memory_drivers, open_memory_world

HERE = Path(__file__).parent
CASES = sorted(folder.name for folder in HERE.iterdir() if (folder / "models.yaml").exists())


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(HERE / name, folder)
    drivers = before(folder)
    world = yaml.safe_load((folder / "world.yaml").read_text()) if (folder / "world.yaml").exists() else {}
    disturb(drivers, world)
    try:
        planned = _plan(folder, drivers, world)
    except MpError as problem:
        _golden(HERE / name / "plan.txt", _text_of(problem))
        return
    plan = planned.plan
    texts = {"models.yaml": (folder / "models.yaml").read_text()}
    _golden(HERE / name / "plan.txt", view(plan, Origin(), texts) + "\n")
    _golden(HERE / name / "plan.json", views.text(views.plan(plan)) + "\n")
    if not plan.errors and not plan.refusals and not plan.unreadable:
        _invariants(folder, drivers, planned)


def before(folder: Path) -> dict[str, MemoryDriver]:
    """Apply before.yaml, when there is one, into a new memory world."""
    drivers = memory_drivers(yaml.safe_load((folder / "models.yaml").read_text()).get("project", "p"))
    if (folder / "before.yaml").exists():
        after = (folder / "models.yaml").read_text()
        (folder / "before.yaml").replace(folder / "models.yaml")
        world = open_memory_world(folder, drivers)
        report = engine.apply(world, engine.plan(world), lambda event: None, threading.Event())
        assert report.count(Status.APPLIED) == len(report.outcomes) > 0
        (folder / "models.yaml").write_text(after)
    return drivers


def disturb(drivers: dict[str, MemoryDriver], world: dict[str, Any]) -> None:
    for address, fields in world.get("edit", {}).items():
        _change(drivers, address, lambda thing, f=fields: replace(thing, state=replace(thing.state, **f)))
    for address in world.get("unmarked", []):
        _change(drivers, address, lambda thing: replace(thing, mark=None))
    for address, digest in world.get("moved", {}).items():
        _change(drivers, address, lambda thing, d=digest: replace(thing, digest=Digest(d)))
    for address in world.get("gone", []):
        _change(drivers, address, lambda thing: None)
    for address, reason in world.get("unreadable", {}).items():
        _driver(drivers, address).unreadable[Address(address)] = reason
    for address, transfer in world.get("transfer", {}).items():
        _driver(drivers, address).transfers[Address(address)] = Transfer(**transfer)


def _driver(drivers: dict[str, MemoryDriver], address: str) -> MemoryDriver:
    owner, _, rest = address.partition("/")
    kind = owner.removeprefix("@") if owner.startswith("@") else rest.partition(":")[0]
    return drivers["image" if kind in ("weights", "modelpack") else kind]


def _change(drivers: dict[str, MemoryDriver], address: str, change: Any) -> None:  # Any: a lambda over Thing
    things = _driver(drivers, address).things
    found = [
        k for k, thing in things.items() if k[0] == address or (thing.mark and thing.mark.address == address)
    ]
    assert found, f"{address} is not in the world: {[t.mark and t.mark.address for t in things.values()]}"
    changed: Thing | None = change(things.pop(found[0]))
    if changed is not None:
        things[found[0]] = changed


def _plan(folder: Path, drivers: dict[str, MemoryDriver], world: dict[str, Any]) -> Planned:
    opened = open_memory_world(folder, drivers, locked=world.get("locked", False))
    planned = engine.plan(opened, Selection(max_deletes=world.get("max_deletes")))
    return replace(planned, plan=replace(planned.plan, read_seconds=1.2))


def _invariants(folder: Path, drivers: dict[str, MemoryDriver], planned: Planned) -> None:
    world = open_memory_world(folder, drivers)
    report = engine.apply(world, planned, lambda event: None, threading.Event())
    assert report.count(Status.APPLIED) == len(report.outcomes)
    again = _plan(folder, drivers, {}).plan
    assert _left(again) == [], "a plan after apply is empty"
    assert again.drifted == (), "nothing has drifted right after apply"
    assert again.lock == "ok"
    for _ in range(2):
        destroyed = engine.plan(open_memory_world(folder, drivers), Selection(destroy=True))
        if not destroyed.plan.refusals:
            engine.apply(open_memory_world(folder, drivers), destroyed, lambda event: None, threading.Event())
    if not destroyed.plan.refusals:
        assert destroyed.plan.active == (), "destroying twice is fine"


def _left(plan: Plan) -> list[str]:
    return [f"{change.action} {change.address}: {change.diffs}" for change in plan.active]


def _text_of(problem: MpError) -> str:
    if isinstance(problem, UserError):
        return "".join(f"{d.where or '-'}: {d.summary}\n" for d in problem.diagnostics)
    return f"exit {problem.exit_code.value}: {problem.message}\nhint: {problem.hint}\n"


def _golden(path: Path, text: str) -> None:
    if os.environ.get("MP_GOLDEN"):
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing: run just golden and review it"
    if path.suffix == ".json":
        assert json.loads(text) == json.loads(path.read_text())
    else:
        assert text == path.read_text()
