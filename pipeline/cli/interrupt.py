"""Ctrl-C while something is being applied: once starts nothing more, twice kills. SIGTERM is the first."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.core.errors import ExitCode

MESSAGE = b"\nInterrupted: finishing what has begun; press Ctrl-C again to kill.\n"
_SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def graceful() -> Iterator[threading.Event]:
    """An event that is set at the first Ctrl-C or at SIGTERM; handlers are as before afterwards."""
    stop = threading.Event()

    def heard(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR)
            os._exit(
                ExitCode.INTERRUPTED
            )  # threads and connections are let go as they are: that is what was asked
        if not stop.is_set():
            stop.set()
            os.write(2, MESSAGE)  # a handler must not use the buffered stream it may have interrupted

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
