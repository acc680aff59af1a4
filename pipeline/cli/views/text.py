"""Text that fits: widths in columns, cutting, wrapping and aligning. Used by every human view; colour comes after."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

WIDTH = 100  # columns: no line of a human view is ever longer

Ink: TypeAlias = Callable[[str, str], str]  # (style, text) → the text, decorated or not

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def plain(style: str, text: str) -> str:
    """The ink that leaves no mark."""
    return text


def ansi(style: str, text: str) -> str:
    """ANSI colour; a style is words of the table: "bold red"."""
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text


def clean(text: str) -> str:
    """Text from elsewhere on one line, without control characters: an answer or a log must not steer a terminal."""
    text = text.strip()
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if unicodedata.category(c) in _STEERING else c for c in text)


# control, format (bidirectional marks), surrogate, line and paragraph separators
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def columns(text: str) -> int:
    """Columns a terminal gives to the text; escapes count nothing."""
    bare = _ESCAPES.sub("", text)
    return len(bare) if bare.isascii() else sum(_columns_of(c) for c in bare)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The text in at most `width` columns, with "…" where something was left out."""
    if columns(text) <= width:
        return text
    return _head(text, width - 1).rstrip() + "…" if width > 0 else ""


def tail(text: str, width: int) -> str:
    """The end of the text in at most `width` columns, at a "/" where there is one: "…/granite-7b-lab"."""
    if columns(text) <= width:
        return text
    if width <= 0:
        return ""
    kept = _head(text[::-1], width - 1)[::-1]
    at = kept.find("/")
    while kept[at + 1 : at + 2] == "/":
        at += 1
    return "…" + (kept[at:] if 0 <= at < len(kept) - 1 else kept).lstrip()


def _head(text: str, width: int) -> str:
    """The first characters, as many as fit."""
    used = 0
    for index, character in enumerate(text):
        used += _columns_of(character)
        if used > width:
            return text[:index]
    return text


def pad(text: str, width: int) -> str:
    return text + " " * max(0, width - columns(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces where there are any."""
    lines, line = [], ""
    for word in _words(text, width):
        joined = f"{line} {word}" if line else word
        if line and columns(joined) > width:
            lines.append(line)
            joined = word
        line = joined
    return [*lines, line] if line or not lines else lines


def _words(text: str, width: int) -> Iterator[str]:
    """Words, the ones longer than a line in pieces."""
    for word in text.split():
        while columns(word) > width:
            head = _head(word, width) or word[0]
            yield head
            word = word[len(head) :]
        if word:
            yield word


def packed(parts: Sequence[str], width: int) -> list[str]:
    """Parts joined by "; ", as many on a line as fit; a part is broken only when it is longer than a line."""
    lines: list[str] = []
    for part in filter(None, parts):
        if lines and columns(lines[-1]) + 2 + columns(part) <= width:
            lines[-1] += f"; {part}"
        else:
            lines += wrap(part, width)
    return lines


def hanging(first: str, text: str, width: int = WIDTH) -> list[str]:
    """`first` and the text behind it; further lines are indented to where the text began.

    Where `first` leaves too little room, the text goes below it.
    """
    indent = columns(first)
    if indent > width * 2 // 3:
        return [cut(first.rstrip(), width), *hanging("    ", text, width)]
    lines = wrap(text, width - indent)
    return [(first + lines[0]).rstrip(), *(" " * indent + line for line in lines[1:])]


def sides(left: str, right: str, width: int = WIDTH) -> str:
    """`left`, and `right` aligned to the last column; the right one goes first when there is no room."""
    gap = width - columns(left) - columns(right)
    return left + " " * gap + right if right and gap >= 2 else left
