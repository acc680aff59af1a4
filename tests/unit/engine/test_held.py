"""Rollbacks: to which version, what is held afterwards and until when. A whole project in memory."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from pipeline import engine
from pipeline.core.change import Action
from pipeline.core.errors import UserError
from pipeline.core.plan import Plan
from pipeline.core.report import Report, Status
from pipeline.core.resource import Address
from pipeline.engine import Selection
from pipeline.engine.held import go_back
from pipeline.engine.roots import gather
from pipeline.store.inventory import Inventory
from tests.fakes.memory import MemoryDriver
from tests.fakes.project import memory_drivers, open_memory_world

PROD = Address("m/kubernetes:prod")


class Project:
    """Two deployments of one model; `memory` is the part of models.yaml that a test changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drivers: Mapping[str, MemoryDriver] = memory_drivers("acme")

    def write(self, memory: str, **model: Any) -> None:
        manifest = {
            "version": 1,
            "project": "acme",
            "defaults": {"template": "vllm", "hardware": "cpu"},
            "hardware": {"cpu": {"gpus": 0, "cpu": 2, "memory": "4Gi"}},
            "registries": {"main": {"url": "127.0.0.1:5000/acme"}},
            "engines": {"vllm": {"base": "127.0.0.1:5000/base@sha256:" + "a" * 64}},
            "targets": {
                "prod": {"kind": "kubernetes", "context": "prod", "namespace": "models"},
                "box": {"kind": "docker"},
            },
            "models": {
                "m": {
                    "source": "hf://acme/m",
                    "version": "main",
                    "targets": {"prod": {"memory": memory}, "box": {}},
                    **model,
                }
            },
        }
        (self.folder / "models.yaml").write_text(yaml.safe_dump(manifest))

    def plan(self, *, release: bool = False) -> Plan:
        return engine.plan(open_memory_world(self.folder, self.drivers), Selection(release=release)).plan

    def apply(self, memory: str | None = None, *, release: bool = False) -> Report:
        if memory is not None:
            self.write(memory)
        world = open_memory_world(self.folder, self.drivers)
        planned = engine.plan(world, Selection(release=release))
        return engine.apply(world, planned, lambda event: None, Event())

    def roll_back(self, *models: str, target: str | None = None) -> Report:
        world = open_memory_world(self.folder, self.drivers)
        planned = engine.rollback(world, models, target)
        return engine.apply(world, planned, lambda event: None, Event())

    @property
    def inventory(self) -> Inventory:
        return open_memory_world(self.folder, self.drivers).store.load()

    def memory(self) -> str:
        """What prod runs with now."""
        (thing,) = self.drivers["kubernetes"].things.values()
        state: Any = thing.state
        pod = state.objects["Deployment/m"]["spec"]["template"]["spec"]
        return str(pod["containers"][0]["resources"]["limits"]["memory"])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def remarks(plan: Plan) -> str:
    return "\n".join(f"{one.summary} {one.hint}" for one in plan.diagnostics)


def changed(plan: Plan) -> list[str]:
    return [f"{change.action} {change.address}" for change in plan.active]


def test_it_goes_back_and_stays_there_until_something_else_is_wanted(project: Project) -> None:
    project.apply("4Gi")
    good = project.memory()
    project.apply("8Gi")
    assert project.memory() != good
    report = project.roll_back(target="prod")
    assert [(o.address, o.status) for o in report.outcomes] == [(PROD, Status.APPLIED)]
    assert project.memory() == good

    plan = project.plan()
    assert changed(plan) == []
    assert "m/kubernetes:prod: held at the version of" in remarks(plan)
    assert "models.yaml still wants main" in remarks(plan)
    assert "mp apply --release m" in remarks(plan)
    project.apply()
    assert project.memory() == good

    project.apply("16Gi")
    assert project.memory() not in (good, "8Gi")
    assert "held" not in remarks(project.plan())
    assert project.inventory.entries[PROD].held is None


def test_release_applies_what_is_wanted(project: Project) -> None:
    project.apply("4Gi")
    project.apply("8Gi")
    wanted = project.memory()
    project.roll_back("m", target="prod")
    project.apply(release=True)
    assert project.memory() == wanted
    assert project.plan().active == ()
    assert "held" not in remarks(project.plan())


def test_a_version_that_failed_goes_back_to_the_last_good_one(project: Project) -> None:
    project.apply("4Gi")
    good = project.memory()
    project.drivers["kubernetes"].broken[PROD] = "does not start"
    project.apply("8Gi")
    project.drivers["kubernetes"].broken.clear()
    project.roll_back("m", target="prod")
    assert project.memory() == good
    assert changed(project.plan()) == []
    assert project.inventory.entries[PROD].held is not None


def test_drift_of_what_is_held_is_put_back_to_the_held_version(project: Project) -> None:
    project.apply("4Gi")
    good = project.memory()
    project.apply("8Gi")
    project.roll_back("m", target="prod")
    project.drivers["kubernetes"].things.clear()
    plan = project.plan()
    assert [(c.action, c.missing) for c in plan.active if c.address == PROD] == [(Action.CREATE, True)]
    project.apply()
    assert project.memory() == good


def test_what_was_left_is_not_gone_back_to(project: Project) -> None:
    project.apply("4Gi")
    project.apply("8Gi")
    project.roll_back("m", target="prod")
    with pytest.raises(UserError) as raised:
        project.roll_back("m", target="prod")
    assert "no other good version" in raised.value.diagnostics[0].summary


def test_both_versions_are_kept_and_no_more(project: Project) -> None:
    for memory in ("4Gi", "8Gi", "16Gi"):
        project.apply(memory)
    entry = project.inventory.entries[PROD]
    assert len(entry.versions) == 2
    assert entry.versions[0].state == entry.good == entry.applied
    project.apply("8Gi")
    assert len(project.inventory.entries[PROD].versions) == 2


def test_images_of_earlier_versions_are_roots_of_prune(project: Project) -> None:
    project.write("4Gi")
    project.apply()
    before = {change.address: change for change in project.plan().changes}
    image = before[Address("m/image:main")].resource
    assert image is not None
    project.write("4Gi", version="v2")
    project.apply()
    world = open_memory_world(project.folder, project.drivers)
    tag = f"mp-{image.desired.fingerprint[:12]}"
    assert "good before" in gather(world, {"default": project.inventory}).tags[tag]


def test_every_deployment_of_a_model_goes_back_where_it_can(project: Project) -> None:
    project.apply("4Gi")
    project.apply("8Gi")
    world = open_memory_world(project.folder, project.drivers)
    plan = engine.rollback(world, ["m"]).plan
    assert changed(plan) == ["update m/kubernetes:prod"]
    assert "m/docker:box: no other good version of it is known" in remarks(plan)


def test_nothing_to_go_back_to_is_said(project: Project) -> None:
    project.apply("4Gi")
    with pytest.raises(UserError) as raised:
        project.roll_back(target="nowhere")
    assert 'nothing is deployed at "nowhere"' in raised.value.diagnostics[0].summary


def test_what_stands_at_a_place_that_was_left_does_not_come_back(project: Project) -> None:
    project.apply("4Gi")
    project.apply("5Gi")
    left = replace(project.inventory.entries[PROD], address=Address(f"{PROD}~0123abcd"))
    inventory = replace(project.inventory, entries={**project.inventory.entries, left.address: left})
    assert list(go_back(inventory, ("m",), "prod", project.drivers, 0.0).resources) == [PROD]
