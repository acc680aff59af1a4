"""The only place that writes to stdout and stderr: results, messages, questions; and whether there is colour."""

import os
import sys
from collections.abc import Mapping
from typing import TextIO

from pipeline.cli.views.text import Ink, ansi, plain


class Closed(Exception):
    """Nobody reads the result any more: `mp list | head -1`."""


def coloured(stream: TextIO, environ: Mapping[str, str], *, wanted: bool) -> bool:
    """Colour on a terminal that can, unless NO_COLOR (any value) or --no-color says otherwise; FORCE_COLOR wins over pipes."""
    if not wanted or environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (stream.isatty() and environ.get("TERM") != "dumb")


def ink(stream: TextIO, environ: Mapping[str, str], *, wanted: bool) -> Ink:
    return ansi if coloured(stream, environ, wanted=wanted) else plain


def result(text: str) -> None:
    """To stdout: what was asked for."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # the interpreter flushes once more at exit
        raise Closed from None


def message(text: str) -> None:
    """To stderr: what is under way, what went wrong."""
    print(text, file=sys.stderr, flush=True)


def ask(question: str) -> bool:
    """A question on stderr, answered on stdin: "yes" or "y"; anything else is no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
