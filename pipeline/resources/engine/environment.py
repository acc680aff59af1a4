"""Environments of this machine: one folder per set of locked requirements, shared by all models that run here."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

from pipeline.clients import uv
from pipeline.core.change import Action, Change
from pipeline.core.digest import fingerprint
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine
from pipeline.core.report import Emit, Line, Progress
from pipeline.core.resource import Absent, Address, Entry, Observed, Resource, State, address

KIND = "environment"
_MARKER = ".complete"  # written last: an environment without it was cut off and is made anew

Create = Callable[[Engine, Path, Callable[[str], None]], None]


@frozen
class EnvironmentState(State):
    """What is installed."""

    fingerprint: str  # 12 hex of Python version, platform, index and requirements
    engine: Engine | None = field(default=None, compare=False)


def environment_fingerprint(engine: Engine) -> str:
    """12 hex of everything that determines what is installed; two engines with equal requirements share a folder."""
    return fingerprint([engine.python, engine.platform, engine.requirements_sha256])[:12]


def environment_path(cache_root: Path, engine: Engine) -> Path:
    """The folder of an engine's environment; its Python is bin/python."""
    return environment_folder(cache_root, environment_name(engine))


def environment_name(engine: Engine) -> str:
    """What deployments call an environment: "transformers-5.19.0-cpu/<12 hex>"."""
    return f"{engine.key}/{environment_fingerprint(engine)}"


def environment_folder(cache_root: Path, name: str) -> Path:
    """The folder of the environment of that name."""
    return cache_root / "environments" / name.rpartition("/")[2]


def resource(engine: Engine) -> Resource[EnvironmentState]:
    return Resource(
        address("@environment", engine.key),
        KIND,
        {"fingerprint": environment_fingerprint(engine)},
        EnvironmentState(environment_fingerprint(engine), engine),
        tracked=False,
        keep=True,
    )


def installing(where: Address, text: str) -> Line | Progress:
    """What uv's line means to a view: byte code is a phase of its own, as long as all downloads."""
    return Progress(where, "compile") if text == uv.COMPILING else Line(where, text)


class EnvironmentDriver:
    """Makes environments with uv, in place: a virtual environment cannot be moved."""

    def __init__(self, cache_root: Path, create: Create = uv.create_environment) -> None:
        self._cache_root = cache_root
        self._create = create

    def observe(
        self, wanted: Sequence[Resource[EnvironmentState]], known: Sequence[Entry]
    ) -> Mapping[Address, Observed[EnvironmentState] | Absent]:
        """Whole environments by their marker; environments have no owner, so there is no mark to check."""
        answers = {r.address: self._look(r.locator["fingerprint"]) for r in wanted}
        return answers | {e.address: self._look(e.locator["fingerprint"]) for e in known}

    def apply(
        self, change: Change[EnvironmentState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[EnvironmentState] | None:
        """Make the environment, or wait for the run that is making it."""
        found = change.resource or change.entry
        assert found is not None, "a change has a resource or an entry"
        folder = self._folder(found.locator["fingerprint"])
        with alone(folder):
            if change.action is Action.DELETE:
                shutil.rmtree(folder, ignore_errors=True)
                return None
            assert change.resource is not None
            if not _is_whole(folder):
                self._make(change.resource, folder, emit)
        return Observed(change.resource.desired)

    def _make(self, resource: Resource[EnvironmentState], folder: Path, emit: Emit) -> None:
        engine = resource.desired.engine
        assert engine is not None, "a desired environment knows its engine"
        emit(Progress(resource.address, "install"))
        if folder.exists():
            shutil.rmtree(folder)
        self._create(engine, folder, lambda text: emit(installing(resource.address, text)))
        _mark(folder, engine)

    def _look(self, name: str) -> Observed[EnvironmentState] | Absent:
        return Observed(EnvironmentState(name)) if _is_whole(self._folder(name)) else Absent()

    def _folder(self, name: str) -> Path:
        return self._cache_root / "environments" / name


def _is_whole(folder: Path) -> bool:
    return (folder / _MARKER).is_file() and (folder / "bin" / "python").exists()


def _mark(folder: Path, engine: Engine) -> None:
    if not (folder / "bin" / "python").exists():
        raise BackendError("uv", f"environment of {engine.key} has no bin/python", "run the command again")
    part = folder / f"{_MARKER}.part"
    part.write_text(json.dumps({"engine": engine.key, "requirements": engine.requirements_sha256}))
    part.rename(folder / _MARKER)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two runs at once make one environment; the lock goes with the process that holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
