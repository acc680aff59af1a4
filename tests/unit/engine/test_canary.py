"""Canaries: when a new version is tried beside the good one, what promotes it, what takes it away. A whole project in memory."""

from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from pipeline import engine
from pipeline.core.errors import UserError
from pipeline.core.plan import Plan
from pipeline.core.report import Report, Status
from pipeline.core.resource import Address, Entry
from pipeline.store.inventory import entry_from_json, entry_to_json
from tests.fakes.memory import MemoryDriver
from tests.fakes.project import memory_drivers, open_memory_world

PROD = Address("m/kubernetes:prod")
CANARY = "Deployment/m-canary"


class Project:
    """One deployment of two pods, whose memory stands for its version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.drivers: Mapping[str, MemoryDriver] = memory_drivers("acme")

    def write(self, memory: str, *, strategy: str = "canary", replicas: int = 2, **options: Any) -> None:
        prod = {"memory": memory, "replicas": replicas, "rollout": {"strategy": strategy}, **options}
        manifest = {
            "version": 1,
            "project": "acme",
            "defaults": {"template": "vllm", "hardware": "cpu"},
            "hardware": {"cpu": {"gpus": 0, "cpu": 2, "memory": "4Gi"}},
            "registries": {"main": {"url": "127.0.0.1:5000/acme"}},
            "engines": {"vllm": {"base": "127.0.0.1:5000/base@sha256:" + "a" * 64}},
            "targets": {"prod": {"kind": "kubernetes", "context": "prod", "namespace": "models"}},
            "models": {"m": {"source": "hf://acme/m", "version": "main", "targets": {"prod": prod}}},
        }
        (self.folder / "models.yaml").write_text(yaml.safe_dump(manifest))

    def plan(self) -> Plan:
        return engine.plan(open_memory_world(self.folder, self.drivers)).plan

    def apply(self, memory: str | None = None, **said: Any) -> Report:
        if memory is not None:
            self.write(memory, **said)
        world = open_memory_world(self.folder, self.drivers)
        return engine.apply(world, engine.plan(world), lambda event: None, Event())

    def promote(self, *models: str, target: str | None = None) -> Report:
        world = open_memory_world(self.folder, self.drivers)
        return engine.apply(world, engine.promote(world, models, target), lambda event: None, Event())

    def roll_back(self) -> Report:
        world = open_memory_world(self.folder, self.drivers)
        return engine.apply(world, engine.rollback(world, ["m"]), lambda event: None, Event())

    @property
    def entry(self) -> Entry:
        return open_memory_world(self.folder, self.drivers).store.load().entries[PROD]

    def objects(self) -> dict[str, Any]:
        (thing,) = self.drivers["kubernetes"].things.values()
        state: Any = thing.state
        return dict(state.objects)

    def runs(self) -> dict[str, str]:
        """The memory with which each Deployment runs."""
        return {
            key: one["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
            for key, one in self.objects().items()
            if key.startswith("Deployment/")
        }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.apply("4Gi")
    return made


def remarks(plan: Plan) -> str:
    return "\n".join(f"{one.summary} {one.hint}" for one in plan.diagnostics)


def test_what_is_new_here_is_made_at_once(project: Project) -> None:
    assert project.runs() == {"Deployment/m": "4Gi"}
    assert not project.plan().active


def test_another_version_is_one_pod_beside_the_old_ones(project: Project) -> None:
    stable = project.objects()["Deployment/m"]
    project.write("8Gi")
    assert "m/kubernetes:prod: canary: 1 pod of the new version beside 2 of the old" in remarks(
        project.plan()
    )
    project.apply()
    assert project.runs() == {"Deployment/m": "4Gi", CANARY: "8Gi"}
    objects = project.objects()
    assert objects["Deployment/m"] == stable
    assert objects[CANARY]["spec"]["replicas"] == 1
    plan = project.plan()
    assert not plan.active
    assert "beside 2 of the old mp promote m, or mp rollback m" in remarks(plan)


def test_the_service_finds_both_and_no_selector_finds_the_others_pods(project: Project) -> None:
    project.apply("8Gi")
    objects = project.objects()
    labels = {key: objects[key]["spec"]["template"]["metadata"]["labels"] for key in ("Deployment/m", CANARY)}
    selectors = {key: objects[key]["spec"]["selector"]["matchLabels"] for key in labels}
    front = objects["Service/m"]["spec"]["selector"]
    for key, own in selectors.items():
        assert front.items() <= labels[key].items()
        assert [other for other in labels if own.items() <= labels[other].items()] == [key]


def test_promoted_it_is_the_deployment_and_the_canary_goes(project: Project) -> None:
    project.apply("8Gi")
    assert project.promote("m").count(Status.APPLIED) == 1
    assert project.runs() == {"Deployment/m": "8Gi"}
    assert not project.plan().active
    assert project.entry.trial is None
    assert len(project.entry.versions) == 2


def test_rolled_back_the_canary_goes_and_stays_away(project: Project) -> None:
    project.apply("8Gi")
    project.roll_back()
    assert project.runs() == {"Deployment/m": "4Gi"}
    plan = project.plan()
    assert not plan.active
    assert "held at the version of" in remarks(plan)
    project.apply("16Gi")
    assert project.runs() == {"Deployment/m": "4Gi", CANARY: "16Gi"}


def test_a_third_version_takes_the_canarys_place_and_a_promotion_is_of_what_was_tried(
    project: Project,
) -> None:
    project.apply("8Gi")
    project.write("16Gi")
    with pytest.raises(UserError) as raised:
        project.promote("m")
    assert "another version than the one that was tried" in raised.value.diagnostics[0].summary
    project.apply()
    assert project.runs() == {"Deployment/m": "4Gi", CANARY: "16Gi"}
    project.apply("4Gi")
    assert project.runs() == {"Deployment/m": "4Gi"}, "what is wanted serves already"


def test_more_pods_of_the_same_version_need_no_canary(project: Project) -> None:
    project.apply("4Gi", replicas=5)
    assert project.runs() == {"Deployment/m": "4Gi"}
    assert project.objects()["Deployment/m"]["spec"]["replicas"] == 5


def test_a_canary_that_fails_is_no_good_version_and_cannot_be_promoted(project: Project) -> None:
    good = project.entry.good
    project.drivers["kubernetes"].broken[PROD] = "did not start"
    assert project.apply("8Gi").count(Status.FAILED) == 1
    project.drivers["kubernetes"].broken.clear()
    assert project.entry.good == good
    with pytest.raises(UserError) as raised:
        project.promote("m")
    assert "no canary of it serves" in raised.value.diagnostics[0].summary


def test_the_good_version_is_the_old_one_while_a_canary_runs(project: Project) -> None:
    good, contents = project.entry.good, project.entry.contents
    project.apply("8Gi")
    entry = project.entry
    assert (entry.good, entry.contents, len(entry.versions)) == (good, contents, 1)
    assert entry.trial is not None
    assert entry_from_json(PROD, entry_to_json(entry)) == entry


def test_the_strategy_is_applied_before_it_is_used(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.apply("4Gi", strategy="rolling")
    project.write("8Gi")
    assert "was applied without strategy: canary" in remarks(project.plan())
    assert project.plan().errors
    project.apply("4Gi")
    project.apply("8Gi")
    assert project.runs() == {"Deployment/m": "4Gi", CANARY: "8Gi"}


def test_without_the_strategy_the_new_version_is_brought_and_the_canary_goes(project: Project) -> None:
    project.apply("8Gi")
    project.apply("8Gi", strategy="rolling")
    assert project.runs() == {"Deployment/m": "8Gi"}


def test_promotion_needs_a_canary_at_the_target(project: Project) -> None:
    project.apply("8Gi")
    with pytest.raises(UserError) as raised:
        project.promote("m", target="other")
    assert 'no canary of it serves at "other"' in raised.value.diagnostics[0].summary


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "m" * 60}, "is too long"),
        ({"weights": "pvc", "claim": {"per": "model"}}, "its pods share a claim"),
        ({"weights": "pvc"}, "each of its replicas owns a volume"),
        ({"manage": "observe"}, "for what mp makes whole"),
    ],
)
def test_what_cannot_have_a_canary_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    project = Project(tmp_path)
    project.write("4Gi", **options)
    try:
        found = remarks(project.plan())
    except UserError as problem:
        found = "\n".join(one.summary for one in problem.diagnostics)
    assert said in found
