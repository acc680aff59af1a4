"""From tokens to text, piece by piece: whole characters only, and nothing that may be the start of a stop text."""

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # what a decoder shows for half a character


class Pieces:
    """Assembles the text of one answer."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = stops
        self._tokens: list[int] = []
        self._window = 0  # first token of the text that is decoded again, for what depends on a neighbour
        self._read = 0  # first token whose text was not taken yet
        self._held = ""  # text that may be the start of a stop text
        self.stopped = False  # a stop text was met; nothing follows

    def feed(self, token: int) -> str:
        """The text that is certain now."""
        self._tokens.append(token)
        before, now = self._texts()
        if len(now) <= len(before) or now.endswith(_UNFINISHED):
            return ""
        self._window, self._read = self._read, len(self._tokens)
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        if self.stopped:
            return ""
        before, now = self._texts()
        rest = self._release(now[len(before) :])
        held, self._held = self._held, ""
        return rest + held

    def _texts(self) -> tuple[str, str]:
        return self._decode(self._tokens[self._window : self._read]), self._decode(
            self._tokens[self._window :]
        )

    def _release(self, text: str) -> str:
        held = self._held + text
        found = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many last characters of the text are the first of the stop text."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
