"""Every exit code, reached by the command line on a real project with layout registries; what a machine relies on."""

import fcntl
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

import pytest

from pipeline.cli.main import run
from pipeline.core.errors import ExitCode
from pipeline.core.resource import Address, Entry, Mark, fields_of
from pipeline.store.file import FileStore
from pipeline.targets.local.spec import LocalState

MANIFEST = """\
version: 1
project: acme
defaults: {template: transformers}
registries: {here: {layout: registry}, there: {layout: other}}
targets:
  shelf: {kind: registry, registry: here, publish: [weights]}
  mirror: {kind: registry, registry: there, publish: [weights]}
models:
  tiny: {source: ./weights, targets: {shelf: {}}}
  small: {source: ./weights, targets: {mirror: {}}}
"""
STATE = LocalState("0" * 12, "transformers-1-cpu/0", "0" * 12, {}, "auto", running=False)

Arrange: TypeAlias = Callable[[Path], object]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text("{}")
    (folder / "weights" / "model.safetensors").write_bytes(bytes(8) + b"{}")
    (folder / "models.yaml").write_text(MANIFEST)
    return folder


def nothing(project: Path) -> None:
    """As it is: two models to publish."""


def applied(project: Path) -> None:
    assert mp(project, "apply", "--yes") == 0


def drifted(project: Path) -> None:
    applied(project)
    (project / "other" / "small.weights" / "index.json").unlink()


def mistaken(project: Path) -> None:
    (project / "models.yaml").write_text(MANIFEST.replace("source", "sauce"))


def locked_too_early(project: Path) -> None:
    assert mp(project, "lock") == 0
    (project / "weights" / "config.json").write_text('{"changed": true}')


def one_of_two_cannot_be_published(project: Path) -> None:
    (project / "other").write_text("a file where a folder should be")


def nothing_can_be_published(project: Path) -> None:
    """The weights are here already: nothing at all is applied."""
    applied(project)
    for layout in ("registry", "other"):
        shutil.rmtree(project / layout)
        (project / layout).write_text("a file where a folder should be")


def protected_is_no_longer_declared(project: Path) -> None:
    """A process of before, which ended and is still known."""
    address = Address("old/local:laptop")
    folder = project / ".mp" / "local" / "old"
    folder.mkdir(parents=True)
    record = {
        "format_version": 1,
        "mark": asdict(Mark("acme", "default", address)),
        "state": fields_of(STATE),
        "port": 8000,
        "proof": None,
    }
    (folder / "process.json").write_text(json.dumps(record))
    store = FileStore(project / ".mp" / "inventory" / "default", "acme", "default")
    writing = store.run(store.load())
    fields = fields_of(STATE)
    writing.end(address, Entry(address, "local", {"name": "old"}, None, None, fields, fields, protect=True))
    writing.close(None)


CASES: list[tuple[ExitCode, Arrange, list[str]]] = [
    (ExitCode.OK, nothing, ["validate"]),
    (ExitCode.OK, nothing, ["plan"]),
    (ExitCode.OK, nothing, ["apply", "--yes"]),
    (ExitCode.OK, applied, ["plan", "--detailed-exitcode"]),
    (ExitCode.OK, applied, ["drift"]),
    (ExitCode.ERROR, mistaken, ["validate"]),
    (ExitCode.ERROR, mistaken, ["plan", "--json"]),
    (ExitCode.ERROR, nothing, ["plan", "absent"]),
    (ExitCode.ERROR, nothing, ["apply"]),  # nobody to ask
    (ExitCode.ERROR, nothing_can_be_published, ["apply", "--yes"]),
    (ExitCode.CHANGES, nothing, ["plan", "--detailed-exitcode"]),
    (ExitCode.CHANGES, drifted, ["drift"]),
    (ExitCode.STALE, nothing, ["lock", "--check"]),
    (ExitCode.STALE, locked_too_early, ["plan", "--locked"]),
    (ExitCode.STALE, locked_too_early, ["apply", "--yes", "--locked"]),
    (ExitCode.REFUSED, protected_is_no_longer_declared, ["plan"]),
    (ExitCode.REFUSED, protected_is_no_longer_declared, ["apply", "--yes"]),
    (ExitCode.PARTIAL, one_of_two_cannot_be_published, ["apply", "--yes"]),
    (ExitCode.PARTIAL, one_of_two_cannot_be_published, ["apply", "--yes", "--json"]),
]
ELSEWHERE = {ExitCode.LOCKED, ExitCode.INTERRUPTED}  # need something that goes on meanwhile: below


@pytest.mark.parametrize(
    ("code", "arrange", "words"),
    CASES,
    ids=[f"{code.value}-{arrange.__name__}-{'-'.join(words)}" for code, arrange, words in CASES],
)
def test_exit_code(code: ExitCode, arrange: Arrange, words: list[str], project: Path) -> None:
    arrange(project)

    assert mp(project, *words) == code


def test_exit_code_while_somebody_else_is_applying(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    applied(project)
    (project / "registry" / "tiny.weights" / "index.json").unlink()
    capsys.readouterr()

    with lease_held(project):
        assert mp(project, "apply", "--yes") == ExitCode.LOCKED

    assert "another apply is running" in capsys.readouterr().err
    assert mp(project, "apply", "--yes") == ExitCode.OK


def test_exit_code_after_ctrl_c_and_the_next_run_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as terminal:
        terminal.setattr(sys, "stderr", CtrlC("artifact: create"))
        assert mp(project, "apply", "--yes") == ExitCode.INTERRUPTED

    assert mp(project, "plan", "--detailed-exitcode") == ExitCode.CHANGES
    assert mp(project, "apply", "--yes") == ExitCode.OK
    assert mp(project, "plan", "--detailed-exitcode") == ExitCode.OK


def test_every_exit_code_is_reached() -> None:
    assert {code for code, _, _ in CASES} | ELSEWHERE == set(ExitCode)


def mp(project: Path, *words: str) -> int:
    return run(["-C", str(project), *words])


@contextmanager
def lease_held(project: Path) -> Iterator[None]:
    """What another process does while it applies."""
    with (project / ".mp" / "inventory" / "default" / "lease").open("a+b") as lease:
        fcntl.flock(lease, fcntl.LOCK_EX)
        yield


class CtrlC(io.StringIO):
    """Somebody who watches the progress, and presses Ctrl-C once, when a text is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._pressed = False

    def write(self, text: str) -> int:
        if self._text in text and not self._pressed:
            self._pressed = True
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # until the main thread heard of it
        return super().write(text)
