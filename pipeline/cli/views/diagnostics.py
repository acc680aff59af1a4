"""Diagnostics and errors as text: place, what is wrong, the line with a caret, what to do."""

import re
from collections.abc import Iterable, Mapping, Sequence

from pipeline.cli.views.text import WIDTH, Ink, clean, columns, cut, hanging, plain
from pipeline.core.diagnostic import Diagnostic, Severity, Where

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}
_AFTER = 8  # columns shown behind the word that is meant, in a line too long to be shown whole
_TOKEN = re.compile(r"""["'][^"']*["']|[^\s:,\[\]{}#]+""")


def diagnostics(items: Sequence[Diagnostic], sources: Mapping[str, str], ink: Ink = plain) -> str:
    """Every diagnostic, by place, and their number; `sources` holds the text of the files they point into."""
    ordered = sorted(items, key=_by_place)
    blocks = ["\n".join(diagnostic(item, sources, ink)) for item in ordered]
    return "\n".join([*blocks, _count(ordered)]) if len(blocks) > 1 else "\n".join(blocks)


def diagnostic(item: Diagnostic, sources: Mapping[str, str], ink: Ink = plain) -> list[str]:
    """One diagnostic: `models.yaml:12:14: …`, the line with a caret, a hint. An error with a place needs no other word."""
    severity = "" if item.where and item.severity is Severity.ERROR else f"{item.severity}: "
    head = f"{item.where}: {severity}" if item.where else severity
    lines = hanging(f"{clean(head)} ", clean(item.summary))
    bare = clean(head)
    lines[0] = lines[0].replace(bare, ink(_STYLES[item.severity], bare), 1)
    if item.where and item.where.file in sources:
        lines += _excerpt(item.where, sources[item.where.file], ink)
    if item.detail:
        lines += [line for part in item.detail.splitlines() for line in hanging("  ", clean(part))]
    return lines + _hint(item.hint, ink)


def failure(message: str, hint: str | None, ink: Ink = plain) -> str:
    """An error that belongs to no place in a file."""
    lines = hanging("error: ", clean(message))
    lines[0] = lines[0].replace("error:", ink("bold red", "error:"), 1)
    return "\n".join(lines + _hint(hint, ink))


def _hint(hint: str | None, ink: Ink) -> list[str]:
    if not hint:
        return []
    first, *others = hanging("  hint: ", clean(hint))
    return [first.replace("hint:", ink("cyan", "hint:"), 1), *others]


def _excerpt(where: Where, text: str, ink: Ink) -> list[str]:
    """The line that is meant, with a caret under the word that begins there."""
    lines = text.splitlines()
    if not 1 <= where.line <= len(lines):
        return []
    gutter = f"  {where.line} | "
    room = WIDTH - columns(gutter)
    line = lines[where.line - 1]
    begin = min(where.column - 1, len(line))
    token = _TOKEN.match(line, begin)
    length = max(1, len(token[0]) if token else 1)
    skipped = max(0, begin + length + _AFTER - room) if columns(line) > room else 0
    printable = "".join(" " if c == "\t" else c if c.isprintable() else "?" for c in line[skipped:])
    shown = cut("…" + printable[1:] if skipped else printable, room)
    caret = " " * min(columns(shown[: begin - skipped]), room - 1)
    marks = "^" * min(length, room - columns(caret))
    empty = " " * (columns(gutter) - 2) + "| "
    return [ink("dim", gutter) + shown, ink("dim", empty) + caret + ink("red", marks)]


def _by_place(item: Diagnostic) -> tuple[bool, str, int, int]:
    where = item.where or Where("", 0, 0)
    return (item.where is None, where.file, where.line, where.column)


def _count(items: Iterable[Diagnostic]) -> str:
    kinds = [item.severity for item in items]
    counts = [(kinds.count(severity), severity) for severity in Severity]
    return ", ".join(f"{n} {severity}{'s' if n != 1 else ''}" for n, severity in counts if n)
