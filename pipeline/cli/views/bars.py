"""Events as live bars on a terminal: bytes, speed, time left, and the last log line of each running action."""

import threading
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Display
from rich.progress import Task as _Task
from rich.table import Column
from rich.text import Text

from pipeline.cli.views import progress
from pipeline.cli.views.text import WIDTH, clean, cut
from pipeline.core.report import Event, Finished, Line, Progress, Started, Status
from pipeline.core.resource import Address, said_of

_STYLES = {
    Status.APPLIED: "green",
    Status.FAILED: "bold red",
    Status.SKIPPED: "yellow",
    Status.UNKNOWN: "magenta",
}


class _Download(DownloadColumn):
    """Nothing until there are bytes to count."""

    def render(self, task: _Task) -> Text:
        return super().render(task) if task.total else Text("")


class _Speed(TransferSpeedColumn):
    def render(self, task: _Task) -> Text:
        return super().render(task) if task.total else Text(cut(str(task.fields["line"]), 34), style="dim")


class Bars:
    """One bar for each running action; finished ones scroll up as lines."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        console = Console(file=stream, no_color=not colour, highlight=False, force_terminal=True)
        self._bars = Display(
            TextColumn("{task.fields[name]}", style="bold", table_column=Column(max_width=30, no_wrap=True)),
            TextColumn("{task.description}"),
            BarColumn(bar_width=14),
            _Download(table_column=Column(no_wrap=True)),
            _Speed(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._guard = threading.Lock()
        self._tasks: dict[Address, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def emit(self, event: Event) -> None:
        with self._guard:
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case Started(address, action):
                self._task(address, str(action))
            case Progress(address, doing, done, total):
                task = self._task(address, doing)
                self._phase(address, task, doing)
                self._bars.update(task, completed=done, total=total or None)
            case Line(address, text):
                self._bars.update(self._task(address, ""), line=clean(text))
            case Finished(outcome):
                if outcome.address in self._tasks:
                    self._bars.remove_task(self._tasks.pop(outcome.address))
                line = Text(cut(clean(progress.finished(outcome)), WIDTH), style=_STYLES[outcome.status])
                self._bars.console.print(line, soft_wrap=True)

    def _task(self, address: Address, doing: str) -> TaskID:
        if address not in self._tasks:
            self._tasks[address] = self._bars.add_task(
                doing, total=None, name=clean(said_of(address)), line=""
            )
        return self._tasks[address]

    def _phase(self, address: Address, task: TaskID, doing: str) -> None:
        """A new phase starts its own bar: speed and time left are of it alone."""
        if self._bars.tasks[self._bars.task_ids.index(task)].description != doing:
            self._bars.reset(
                task, description=doing, name=clean(said_of(address)), line=""
            )  # reset drops all fields
