"""Progress without a terminal: begin, end, and one line for each running action every ten seconds."""

import io
import threading
import time

from pipeline.cli.views.bars import Bars
from pipeline.cli.views.progress import Lines
from pipeline.core.change import Action
from pipeline.core.report import Event, Finished, Line, Outcome, Progress, Started, Status
from pipeline.core.resource import Address

WEIGHTS = Address("qwen/artifact")


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_download_shows_bytes_speed_and_time_left_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.emit(Started(WEIGHTS, Action.CREATE))
    for second in range(1, 21):
        clock.seconds = float(second)
        lines.emit(Progress(WEIGHTS, "download", second * 10**8, 10**10))

    assert stream.getvalue().splitlines() == [
        "qwen/artifact: create",
        "qwen/artifact: download 1.00 GB of 10.00 GB, 111.11 MB/s, 1 min 21 s left",
        "qwen/artifact: download 2.00 GB of 10.00 GB, 105.26 MB/s, 1 min 16 s left",
    ]


def test_build_shows_its_last_line() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(stream, clock)
    lines.emit(Started(WEIGHTS, Action.CREATE))
    lines.emit(Progress(WEIGHTS, "build"))
    clock.seconds = 12.0
    lines.emit(Line(WEIGHTS, "#5 exporting \x1b[1mlayers"))

    assert stream.getvalue().splitlines()[-1] == "qwen/artifact: build, 12 s: #5 exporting  [1mlayers"


def test_phase_without_events_is_told_of_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    with Lines(stream, clock, tick_s=0.001) as lines:
        lines.emit(Started(WEIGHTS, Action.CREATE))
        lines.emit(Progress(WEIGHTS, "compile"))
        clock.seconds = 11.0
        for _ in range(2000):
            if stream.getvalue().count("\n") == 2:
                break
            time.sleep(0.001)

    assert stream.getvalue().splitlines() == ["qwen/artifact: create", "qwen/artifact: compile, 11 s"]


def test_end_of_an_action_is_told_at_once() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.emit(Finished(Outcome(WEIGHTS, Action.CREATE, Status.FAILED, 3.0, "hub: 401")))

    assert stream.getvalue() == "qwen/artifact: failed after 3.0 s: hub: 401\n"


def test_bars_take_events_from_many_threads() -> None:
    stream = io.StringIO()
    addresses = [Address(f"m{n}/artifact") for n in range(8)]

    def work(address: Address) -> None:
        events: list[Event] = [
            Started(address, Action.CREATE),
            *(Progress(address, "download", done, 100) for done in range(0, 101, 10)),
            Progress(address, "build"),
            Line(address, "a line [with markup]"),
            Finished(Outcome(address, Action.CREATE, Status.APPLIED, 1.0)),
        ]
        for event in events:
            bars.emit(event)

    with Bars(stream, colour=False) as bars:
        threads = [threading.Thread(target=work, args=(address,)) for address in addresses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for address in addresses:
        assert f"{address}: applied in 1.0 s" in stream.getvalue()
