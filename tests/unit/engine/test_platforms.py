"""Engines of several platforms: what the lock holds of them, and that every machine names the same images."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import engine
from pipeline.core.errors import UserError
from pipeline.engine.resolve import platforms_of
from pipeline.manifest.lock import read_lock
from tests.fakes.project import memory_drivers, open_memory_world

MANIFEST = """\
version: 1
project: acme
registries:
  main: {url: 127.0.0.1:5000/acme}
targets:
  shelf: {kind: registry, publish: [model, weights]}
engines:
  vllm: {base: "127.0.0.1:5000/base@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"%s}
defaults: {template: vllm}
models:
  qwen: {source: hf://acme/qwen, version: main, targets: {shelf: }}
"""
BOTH = ", platforms: [linux/arm64, linux/amd64]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(MANIFEST % BOTH)
    return tmp_path


def keys(folder: Path) -> list[str]:
    return sorted(read_lock(folder / "models.lock").engines)


def test_every_platform_is_pinned(folder: Path) -> None:
    world = open_memory_world(folder)

    engine.apply(world, engine.plan(world), lambda event: None, threading.Event())

    assert keys(folder) == ["vllm-0.32.0/cpu/linux/amd64", "vllm-0.32.0/cpu/linux/arm64"]
    again = engine.plan(open_memory_world(folder, locked=True))
    assert again.lock_changed == ()


def test_a_platform_that_the_lock_does_not_hold_makes_it_stale(folder: Path) -> None:
    (folder / "models.yaml").write_text(MANIFEST % "")
    world = open_memory_world(folder)
    engine.apply(world, engine.plan(world), lambda event: None, threading.Event())
    assert keys(folder) == ["vllm-0.32.0/cpu/linux/amd64"]

    (folder / "models.yaml").write_text(MANIFEST % BOTH)

    assert engine.plan(open_memory_world(folder)).lock_changed == (
        "engine vllm-0.32.0/cpu/linux/arm64: not in models.lock",
    )


def test_machines_of_either_platform_plan_the_same_images(folder: Path) -> None:
    drivers = memory_drivers("acme")
    here = open_memory_world(folder, drivers)
    engine.apply(here, engine.plan(here), lambda event: None, threading.Event())

    there = replace(open_memory_world(folder, drivers), platform="linux/arm64")

    assert platforms_of(here, "vllm") == ("linux/amd64", "linux/arm64")
    assert platforms_of(there, "vllm") == ("linux/arm64", "linux/amd64")
    assert engine.plan(there).plan.active == ()


def test_a_platform_is_named_once_and_is_one_that_packages_exist_for(folder: Path) -> None:
    (folder / "models.yaml").write_text(MANIFEST % ", platforms: [linux/arm64, linux/arm64]")
    with pytest.raises(UserError) as twice:
        open_memory_world(folder)
    (folder / "models.yaml").write_text(MANIFEST % ", platforms: [linux/riscv64]")
    with pytest.raises(UserError) as unknown:
        open_memory_world(folder)

    assert "there twice" in twice.value.diagnostics[0].summary
    assert "linux/riscv64" in unknown.value.diagnostics[0].summary
    assert str(unknown.value.diagnostics[0].where).startswith("models.yaml:8:")


def test_where_nothing_is_said_images_are_made_for_this_machine(folder: Path) -> None:
    (folder / "models.yaml").write_text(MANIFEST % "")

    assert platforms_of(replace(open_memory_world(folder), platform="linux/arm64"), "vllm") == (
        "linux/arm64",
    )
