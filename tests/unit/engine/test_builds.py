"""Engines in the story of a run: --build-only leaves deployments alone; a base moves by mp lock --upgrade and by nothing else."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import engine
from pipeline.core.change import Action
from pipeline.core.image import Engine, Variant
from pipeline.core.report import Report, Status
from pipeline.engine import Selection
from pipeline.engine.world import World
from pipeline.manifest.lock import read_lock, write_lock
from tests.fakes.memory import MemoryDriver
from tests.fakes.project import memory_drivers, open_memory_world, pin_engine

MANIFEST = """\
version: 1
project: acme
registries: {main: {url: "127.0.0.1:5000/acme"}}
targets: {box: {kind: docker}, laptop: {kind: local}, shelf: {kind: registry}}
engines: {vllm: {base: "127.0.0.1:5000/base:stable"}}
defaults: {template: vllm}
models:
  qwen: {source: hf://acme/qwen, version: main, targets: {box: , laptop: , shelf: }}
  llama: {source: hf://acme/llama, version: main, targets: {box: {weights: baked}}}
"""
BASE = "sha256:" + "a" * 64
MOVED = "sha256:" + "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(MANIFEST)
    return tmp_path


@pytest.fixture
def drivers() -> Mapping[str, MemoryDriver]:
    return memory_drivers("acme")


def opened(folder: Path, drivers: Mapping[str, MemoryDriver], base: str = BASE) -> World:
    """A world whose registry has the base under its tag with this digest."""

    def pin(variant: Variant, platform: str, wanted: str | None) -> Engine:
        return replace(pin_engine(variant, platform, wanted), base_digest=base)

    return replace(open_memory_world(folder, drivers), pin_engine=pin)


def applied(world: World, selection: Selection = engine.ALL) -> Report:
    report = engine.apply(world, engine.plan(world, selection), lambda event: None, threading.Event())
    assert report.count(Status.APPLIED) == len(report.outcomes)
    return report


def test_build_only_makes_engines_and_images_and_no_deployment(
    folder: Path, drivers: Mapping[str, MemoryDriver]
) -> None:
    report = applied(opened(folder, drivers), Selection(build_only=True))

    assert {outcome.address.partition("-")[0].partition(":")[0] for outcome in report.outcomes} == {
        "@engine/vllm",
        "@environment/vllm",
        "qwen/artifact",
        "qwen/image",
        "llama/artifact",
        "llama/image",
    }
    assert not drivers["docker"].things and not drivers["local"].things
    rest = engine.plan(opened(folder, drivers)).plan
    made = {change.kind for change in rest.active}
    assert made == {"docker", "local"}, "the next apply deploys, and builds nothing again"


def test_build_only_deletes_nothing_and_forgets_nothing(
    folder: Path, drivers: Mapping[str, MemoryDriver]
) -> None:
    applied(opened(folder, drivers))
    (folder / "models.yaml").write_text(MANIFEST.partition("  llama:")[0])

    plan = engine.plan(opened(folder, drivers), Selection(build_only=True)).plan

    assert not plan.active and not plan.kept
    whole = engine.plan(opened(folder, drivers)).plan
    assert [change.action for change in whole.active] == [Action.DELETE]


def test_a_base_that_moved_changes_nothing_until_the_lock_is_upgraded(
    folder: Path, drivers: Mapping[str, MemoryDriver]
) -> None:
    applied(opened(folder, drivers))
    later = opened(folder, drivers, MOVED)

    planned = engine.plan(later)
    assert not planned.plan.active and not planned.lock_changed
    assert not engine.lock(later).changed
    applied(later)
    assert {one.base_digest for one in read_lock(folder / "models.lock").engines.values()} == {BASE}

    upgraded = engine.lock(later, upgrade=frozenset(later.manifest.models))
    write_lock(folder / "models.lock", upgraded.lock)
    assert {one.base_digest for one in upgraded.lock.engines.values()} == {MOVED}
    actions = {change.address: change.action for change in engine.plan(opened(folder, drivers)).plan.active}
    assert actions["qwen/docker:box"] == actions["llama/docker:box"] == Action.REPLACE  # type: ignore[index]
    assert [actions[where] for where in actions if where.startswith("@engine/")] == [Action.UPDATE]
