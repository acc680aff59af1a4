"""Subprocesses: an argument list in, streamed lines out, a time limit, and the last lines in the error. Used by clients."""

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pipeline.core.errors import BackendError, Missing

LAST_LINES = 12  # of output, repeated in an error
_GRACE_S = 5.0  # between SIGTERM and SIGKILL
_POLL_S = 0.1
_CHUNK_BYTES = 65536


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
    system: str,
) -> str:
    """Run a program to its end and return its standard output.

    Both streams are handed to `on_line` line by line. The program has a process group of its own, which is ended when
    the time is up or the caller is interrupted. `env` is the whole environment; None inherits this one.
    Raises BackendError with the last lines when the program fails, Missing when it does not exist.
    """
    child = _start(argv, cwd, env, system)
    transcript = _Transcript(on_line)
    try:
        if not _follow(child, transcript, time.monotonic() + timeout_s):
            raise BackendError(
                system, f"{_name(argv)} did not end within {timeout_s:g} s{transcript.tail()}", "try again"
            )
    except BaseException:
        _end(child)
        raise
    finally:
        _close(child)
    if child.returncode != 0:
        raise BackendError(system, f"{_name(argv)} {_ending(child.returncode)}{transcript.tail()}")
    return transcript.output()


def _start(
    argv: Sequence[str], cwd: Path | None, env: Mapping[str, str] | None, system: str
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        what = str(cwd) if cwd is not None and not cwd.is_dir() else argv[0]
        raise Missing(system, f'"{what}" is not there', f"install {_name(argv)}") from error
    except OSError as error:
        raise BackendError(system, f"{_name(argv)} cannot be started: {error.strerror}") from error


class _Transcript:
    """What a program said: standard output whole, and the last lines of both streams."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._stdout: list[bytes] = []
        self._partial: dict[str, bytes] = {}
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def feed(self, stream: str, chunk: bytes) -> None:
        if stream == "stdout":
            self._stdout.append(chunk)
        lines = (self._partial.pop(stream, b"") + chunk).replace(b"\r", b"\n").split(b"\n")
        self._partial[stream] = lines.pop()
        for line in lines:
            self._line(line)

    def finish(self) -> None:
        for partial in self._partial.values():
            self._line(partial)
        self._partial.clear()

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        self._last.append(text)
        if self._on_line is not None:
            self._on_line(text)

    def output(self) -> str:
        return b"".join(self._stdout).decode(errors="replace")

    def tail(self) -> str:
        return "".join(f"\n  {line}" for line in self._last)


def _follow(child: "subprocess.Popen[bytes]", transcript: _Transcript, deadline: float) -> bool:
    """Read both streams until the program has ended; False when the time is up first."""
    with selectors.DefaultSelector() as selector:
        for stream, pipe in _pipes(child).items():
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, stream)
        while True:
            # Asked before reading: what was written before the end is then read below. A grandchild that keeps
            # a stream open must not hold us.
            ended = child.poll() is not None
            if not _read_ready(selector, transcript, 0 if ended else _POLL_S) and ended:
                transcript.finish()
                return True
            if not ended and time.monotonic() > deadline:
                transcript.finish()
                return False


def _read_ready(selector: selectors.BaseSelector, transcript: _Transcript, wait_s: float) -> bool:
    """Read what is ready; True when something was."""
    if not selector.get_map():
        time.sleep(min(wait_s, 0.01))  # both streams are closed and the program still runs
        return False
    found = False
    for key, _ in selector.select(wait_s):
        chunk = os.read(key.fd, _CHUNK_BYTES)
        if chunk:
            transcript.feed(str(key.data), chunk)
            found = True
        else:
            selector.unregister(key.fileobj)
    return found


def _pipes(child: "subprocess.Popen[bytes]") -> dict[str, IO[bytes]]:
    assert child.stdout is not None
    assert child.stderr is not None
    return {"stdout": child.stdout, "stderr": child.stderr}


def _close(child: "subprocess.Popen[bytes]") -> None:
    for pipe in _pipes(child).values():
        pipe.close()


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the whole group, politely first."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal_number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
    child.wait()


def _name(argv: Sequence[str]) -> str:
    return Path(argv[0]).name


def _ending(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    return f"was ended by {signal.Signals(-returncode).name}"
