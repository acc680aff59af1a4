"""Ctrl-C once stops new work, twice kills; SIGTERM is the first. Asked of real processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import sys, time
from pipeline.cli.interrupt import graceful
with graceful() as stop:
    print("ready", flush=True)
    stop.wait(20)
    print("finishing", flush=True)
    if "stubborn" in sys.argv:
        time.sleep(20)
sys.exit(7)
"""

Child = subprocess.Popen[str]


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Iterator[Child]:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *getattr(request, "param", [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    yield child
    child.kill()
    child.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_finishes_what_has_begun(started: Child, number: signal.Signals) -> None:
    started.send_signal(number)

    out, err = started.communicate(timeout=20)

    assert (started.returncode, out) == (7, "finishing\n")
    assert "finishing what has begun; press Ctrl-C again to kill" in err


@pytest.mark.parametrize("started", [["stubborn"]], indirect=True)
def test_second_ctrl_c_kills(started: Child) -> None:
    assert started.stdout is not None
    started.send_signal(signal.SIGINT)
    assert started.stdout.readline() == "finishing\n"
    started.send_signal(signal.SIGTERM)  # only ever the first
    started.send_signal(signal.SIGINT)

    assert started.wait(timeout=10) == 130


def test_reader_that_went_away_is_no_traceback() -> None:
    program = "from pipeline.cli.main import main; main(['schema', 'plan'])"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()

    assert child.wait(timeout=20) == 1
    assert child.stderr.read() == b""
    child.stderr.close()
