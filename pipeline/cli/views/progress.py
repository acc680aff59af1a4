"""Events as lines, for logs and pipes: what began, what ended, and every ten seconds how far each action is."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TextIO

from pipeline.cli.views import units
from pipeline.cli.views.text import WIDTH, clean, cut
from pipeline.core.report import Event, Finished, Line, Outcome, Progress, Started, Status
from pipeline.core.resource import Address, said_of

EVERY_S = 10.0
TICK_S = 1.0  # between two looks at the clock while nothing happens


class Watch(AbstractContextManager["Watch"], Protocol):
    """Shows events while a run is under way; `emit` may be called from any thread."""

    def emit(self, event: Event) -> None: ...


@dataclass
class _Running:
    """What is known of an action under way."""

    since_s: float
    doing: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    phase_since_s: float = 0.0
    line: str = ""


class Lines:
    """One line when something begins or ends, and one for each running action every ten seconds."""

    def __init__(
        self, stream: TextIO, now: Callable[[], float] = time.monotonic, tick_s: float = TICK_S
    ) -> None:
        self._stream = stream
        self._now = now
        self._tick_s = tick_s
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._running: dict[Address, _Running] = {}
        self._told_s = now()

    def __enter__(self) -> "Lines":
        threading.Thread(target=self._watch, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._ended.set()

    def emit(self, event: Event) -> None:
        with self._guard:
            self._take(event)
            self._tell()

    def _watch(self) -> None:
        """What takes minutes without an event is told of all the same."""
        while not self._ended.wait(self._tick_s):
            with self._guard:
                if not self._ended.is_set():
                    self._tell()

    def _tell(self) -> None:
        if self._now() - self._told_s >= EVERY_S:
            self._told_s = self._now()
            for address, running in self._running.items():
                self._write(f"{said_of(address)}: {under_way(running, self._now())}")

    def _take(self, event: Event) -> None:
        match event:
            case Started(address, action):
                self._running[address] = _Running(self._now())
                self._write(f"{said_of(address)}: {action}")
            case Progress(address, doing, done, total):
                running = self._running.setdefault(address, _Running(self._now()))
                if doing != running.doing:
                    running.doing, running.phase_since_s, running.line = doing, self._now(), ""
                running.done_bytes, running.total_bytes = done, total
            case Line(address, text):
                self._running.setdefault(address, _Running(self._now())).line = text
            case Finished(outcome):
                self._running.pop(outcome.address, None)
                self._write(finished(outcome))

    def _write(self, text: str) -> None:
        self._stream.write(cut(clean(text), WIDTH) + "\n")
        self._stream.flush()


def under_way(running: _Running, now_s: float) -> str:
    """ "download 1.20 GB of 16.38 GB, 112.30 MB/s, 2 min 15 s left", or the phase and its last line."""
    doing = running.doing or "working"
    if not running.total_bytes:
        said = f": {running.line}" if running.line else ""
        return f"{doing}, {units.duration(now_s - running.since_s)}{said}"
    sums = f"{units.transferred(running.done_bytes)} of {units.transferred(running.total_bytes)}"
    seconds = now_s - running.phase_since_s
    if not running.done_bytes or seconds <= 0:
        return f"{doing} {sums}"
    speed = running.done_bytes / seconds
    left = (running.total_bytes - running.done_bytes) / speed
    return f"{doing} {sums}, {units.transferred(int(speed))}/s, {units.duration(left)} left"


def finished(outcome: Outcome) -> str:
    """ "qwen3-8b/artifact: applied in 12 s", "qwen3-8b/docker:box: failed after 3.0 s: …"."""
    seconds = units.duration(outcome.seconds)
    match outcome.status:
        case Status.APPLIED:
            return f"{said_of(outcome.address)}: applied in {seconds}"
        case Status.FAILED | Status.UNKNOWN:
            return f"{said_of(outcome.address)}: {outcome.status} after {seconds}: {outcome.error or ''}"
        case Status.SKIPPED:
            return f"{said_of(outcome.address)}: skipped: {outcome.error or ''}"
