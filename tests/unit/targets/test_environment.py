"""Environments: made once however many ask, made anew when they were cut off."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients import uv
from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError
from pipeline.core.image import Engine
from pipeline.core.report import Event, Line, Progress
from pipeline.core.resource import Absent, Observed
from pipeline.resources.engine.environment import (
    EnvironmentDriver,
    EnvironmentState,
    environment_path,
    resource,
)
from tests.fakes import engine


def bring(driver: EnvironmentDriver) -> None:
    wanted = resource(engine.ENGINE)
    driver.apply(Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None), {}, engine.ignore)


def look(driver: EnvironmentDriver) -> Observed[EnvironmentState] | Absent:
    wanted = resource(engine.ENGINE)
    return driver.observe([wanted], [])[wanted.address]


def test_environment_that_was_cut_off_is_absent_and_made_anew(tmp_path: Path) -> None:
    folder = environment_path(tmp_path, engine.ENGINE)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("half")
    (folder / "left").touch()
    driver = EnvironmentDriver(tmp_path, engine.make_environment)
    assert isinstance(look(driver), Absent)
    bring(driver)
    assert isinstance(look(driver), Observed)
    assert not (folder / "left").exists()


def test_two_runs_at_once_make_one_environment(tmp_path: Path) -> None:
    made: list[str] = []
    both = threading.Barrier(2)

    def slow(wanted: Engine, folder: Path, on_line: Callable[[str], None]) -> None:
        made.append(wanted.key)
        engine.make_environment(wanted, folder, on_line)

    def run() -> None:
        both.wait()
        bring(EnvironmentDriver(tmp_path, slow))

    runs = [threading.Thread(target=run) for _ in range(2)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert made == [engine.ENGINE.key]


def test_byte_code_is_a_phase_of_its_own_and_uvs_lines_are_forwarded(tmp_path: Path) -> None:
    def create(made: Engine, folder: Path, on_line: Callable[[str], None]) -> None:
        engine.make_environment(made, folder, on_line)
        for text in ("Installed 2 packages in 7ms", uv.COMPILING, "Bytecode compiled 9 files in 38.1s"):
            on_line(text)

    wanted, events = resource(engine.ENGINE), list[Event]()
    change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None)
    EnvironmentDriver(tmp_path, create).apply(change, {}, events.append)

    assert events[0] == Progress(wanted.address, "install")
    assert events[-3:] == [
        Line(wanted.address, "Installed 2 packages in 7ms"),
        Progress(wanted.address, "compile"),
        Line(wanted.address, "Bytecode compiled 9 files in 38.1s"),
    ]


def test_environment_without_a_python_is_not_marked_as_whole(tmp_path: Path) -> None:
    driver = EnvironmentDriver(tmp_path, lambda wanted, folder, on_line: folder.mkdir())
    with pytest.raises(BackendError, match="has no bin/python"):
        bring(driver)
    assert isinstance(look(driver), Absent)


def test_folder_depends_on_what_is_installed_and_not_on_the_base_image() -> None:
    root, made = Path("/c"), engine.ENGINE
    assert environment_path(root, made) == environment_path(
        root, replace(made, base="other", base_digest="sha256:x")
    )
    for changed in (replace(made, requirements=("torch==1",)), replace(made, python="3.12")):
        assert environment_path(root, made) != environment_path(root, changed)
