"""The launch that ran before: kept while the next one is proven, brought back when that fails. Used by driver."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.clients import daemon
from pipeline.core.errors import BackendError, MpError

RECORD = "process.json"  # of both: written last, so what has none is not whole
_SECRETS = "secrets"
_FILES = ("launch.json", "run.json", RECORD)


def put_aside(folder: Path) -> None:
    """Keep what a launch needs to be started again; it may go on running meanwhile."""
    discard(folder)
    part = folder / "former.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    _copy(folder, part)
    part.rename(_place(folder))


def discard(folder: Path) -> None:
    """What is there has proven itself: nothing else is needed."""
    (_place(folder) / RECORD).unlink(missing_ok=True)
    shutil.rmtree(_place(folder), ignore_errors=True)


def log_of_failure(folder: Path) -> Path:
    """Where the log of a launch is once it has failed."""
    return folder / ("log.failed" if _is_whole(folder) else "log")


@contextlib.contextmanager
def fallback(folder: Path) -> Iterator[None]:
    """When what is done inside fails, it is ended, and what was put aside (by a run that was cut off, too) starts again."""
    try:
        yield
    except BaseException as problem:
        daemon.stop(folder)
        if _is_whole(folder):
            told = _bring_back(folder)
            if isinstance(problem, MpError):
                problem.message = f"{problem.message}; {told}"
                problem.args = (problem.message,)
        raise
    discard(folder)


def _bring_back(folder: Path) -> str:
    """Put the former launch back and start it, without waiting for an answer; what is to be said of it."""
    try:
        with contextlib.suppress(FileNotFoundError):
            (folder / "log").replace(folder / "log.failed")
        _copy(_place(folder), folder)
        discard(folder)
        daemon.start_again(folder)
    except (BackendError, OSError, ValueError) as problem:  # a second failure must not hide the first
        return f"what ran before does not start again: {problem}"
    return "what ran before was started again"


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target / _SECRETS, ignore_errors=True)
    shutil.copytree(source / _SECRETS, target / _SECRETS)
    for name in _FILES:
        part = target / f"{name}.part"
        shutil.copy(source / name, part)
        part.replace(target / name)


def _place(folder: Path) -> Path:
    return folder / "former"


def _is_whole(folder: Path) -> bool:
    return (_place(folder) / RECORD).exists()
