"""Real servers as child processes: started with a log file, waited for by a real request, stopped by pid."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.clients.enginelog import first_error


def answers(url: str) -> bool:
    """Something speaks HTTP there; which status does not matter."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not answers(url):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            state = f"exit {process.returncode}" if ended else f"silent for {timeout_s} s"
            text = log.read_text(errors="replace")
            # the cause of an engine's end stands far above the last lines
            raise RuntimeError(f"{process.args!r}: {state}: {first_error(text)}\n{text[-2000:]}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes], timeout_s: float = 10) -> None:
    """End the process and what it started: its whole group, which is its own."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
            return


@contextlib.contextmanager
def running(
    argv: Sequence[str], log: Path, url: str, env: Mapping[str, str] | None = None, timeout_s: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at `url` for as long as the block runs."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(argv), stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=env, start_new_session=True
        )
    try:
        wait_for(url, process, log, timeout_s)
        yield process
    finally:
        stop(process)
