"""What is said on stderr while a plan is read and versions are resolved, before there are events: a word, and what takes long."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

AFTER_S = 2.0  # what takes longer is named
TICK_S = 0.2  # between two looks at what is under way


class Waiting:
    """One word on a terminal, gone afterwards; anything that takes long is named there, or on a line elsewhere."""

    def __init__(self, after_s: float = AFTER_S, tick_s: float = TICK_S) -> None:
        self._after_s = after_s
        self._tick_s = tick_s
        self._under_way: dict[object, tuple[str, float]] = {}  # what and since when; the key is its block's

    @contextmanager
    def word(self, doing: str) -> Iterator[None]:
        """Around everything that is waited for: "Reading"."""
        live = sys.stderr.isatty()
        if live:
            _say(f"{doing} …")
        ended = threading.Event()
        watching = threading.Thread(target=self._watch, args=(ended, live), name="waiting", daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()
            if live:
                _say("\r\x1b[K")

    @contextmanager
    def named(self, doing: str) -> Iterator[None]:
        """Around one thing that may take long, in any thread. Costs next to nothing: a plan may have thousands."""
        key = object()
        self._under_way[key] = doing, time.monotonic()
        try:
            yield
        finally:
            del self._under_way[key]

    def _watch(self, ended: threading.Event, live: bool) -> None:
        said: set[object] = set()
        while not ended.wait(self._tick_s):
            now_s = time.monotonic()
            for key, (doing, since_s) in list(self._under_way.items()):
                if key not in said and now_s - since_s >= self._after_s:
                    said.add(key)
                    _say(f"\r\x1b[K{doing} …" if live else f"{doing}…\n")


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more
        print(text, end="", file=sys.stderr, flush=True)
