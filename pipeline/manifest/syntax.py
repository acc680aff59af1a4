"""What the YAML parser says, in words a user can act on, with the place that matters. Used by marks."""

import re
from collections.abc import Iterator
from typing import Any

from yaml import YAMLError
from yaml.reader import ReaderError

from pipeline.core.diagnostic import Diagnostic, Where, error

_QUOTED = 'quote the text: key: "text: with a colon"'
_WORDS = (  # the parser's phrase, ours, the hint
    ("mapping values are not allowed", "a second colon on this line, or wrong indentation", _QUOTED),
    ("expected ',' or ']'", "this list has no closing ]", "close it, or put a comma between the items"),
    ("expected ',' or '}'", "this mapping has no closing }", "close it, or put a comma between the pairs"),
    ("unexpected end of stream", "this quoted text has no closing quote", "close the quote"),
    ("expected key", "wrong indentation", "indent the keys of one mapping alike"),
    ("'-' indicator", "wrong indentation", "indent the items of one list alike"),
    ("expected node content", "a value is missing", "write the value"),
    ("could not find expected ':'", "a colon is missing after this key", "write key: value"),
    ("expected alphabetic or numeric", "an anchor or alias without a name", "quote the text"),
    (
        "unknown escape character",
        "unknown escape in quoted text",
        "use single quotes, or double the backslash",
    ),
    ("cannot start any token", "this character cannot begin a value", "quote the text"),
    ("expected hexdecimal number", "unknown escape in quoted text", "double the backslash"),
    ("invalid Unicode character escape", "this escape is no character", "write the character itself"),
    ("incompatible YAML document", "this YAML version is not supported", "leave the %YAML line out"),
)


def describe_syntax(problem: YAMLError, text: str, file: str) -> Diagnostic:
    """One diagnostic for a parser's error."""
    if isinstance(problem, ReaderError):
        return control_character(text, file)
    phrase = str(getattr(problem, "problem", None) or "not YAML")
    mark = getattr(problem, "problem_mark", None)
    if tab := _tab_at(text, mark):
        return tab_refused(Where(file, *tab))
    if phrase.startswith(("did not find expected ',' or", "found unexpected end of stream")):
        mark = getattr(problem, "context_mark", None) or mark  # where it was opened, not where the file ends
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file, 1, 1)
    for known, summary, hint in _WORDS:
        if known in phrase:
            return error(summary, where, hint)
    return error(f"not valid YAML: {phrase}", where)


def control_character(text: str, file: str) -> Diagnostic:
    """The first character that YAML does not allow."""
    found = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
    where = Where(file, *position(text, found.start())) if found else Where(file, 1, 1)
    name = f"U+{ord(found.group()):04X}" if found else "this"
    return error(f"control character {name} is not allowed", where, "remove it")


def tab_refused(where: Where) -> Diagnostic:
    return error("a tab; YAML is indented with spaces", where, "replace the tab by spaces")


def stray_tabs(text: str, file: str, scalars: list[tuple[int, int]]) -> list[Diagnostic]:
    """Tabs outside quoted text, block text and comments: editors and parsers disagree about their width."""
    covered = sorted(scalars)
    found: list[Diagnostic] = []
    inside = 0
    for tab in re.finditer("\t", text):
        while inside < len(covered) and covered[inside][1] <= tab.start():
            inside += 1
        in_scalar = inside < len(covered) and covered[inside][0] <= tab.start()
        line_start = text.rfind("\n", 0, tab.start()) + 1
        if not in_scalar and "#" not in text[line_start : tab.start()]:
            found.append(tab_refused(Where(file, *position(text, tab.start()))))
    return found


def indenting_tabs(text: str, file: str) -> list[Diagnostic]:
    """The first tab in the indentation of each line."""
    lines = enumerate(text.split("\n"), 1)
    return [tab_refused(Where(file, n, tab.end())) for n, line in lines if (tab := re.match(r" *\t", line))]


def without_indenting_tabs(text: str) -> Iterator[str]:
    """What the text may have been meant to be, for one tab width after the other."""
    for width in (2, 4, 8):
        lines = (re.fullmatch(r"([ \t]*)(.*)", line, re.DOTALL) for line in text.split("\n"))
        yield "\n".join(line[1].expandtabs(width) + line[2] for line in lines if line)


def position(text: str, index: int) -> tuple[int, int]:
    """One-based line and column of an index."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _tab_at(text: str, mark: Any) -> tuple[int, int] | None:  # Any: C and Python marks are unrelated types
    """The tab in the indentation of the line where the parser stopped, or of the one before."""
    if mark is None:
        return None
    lines = text.split("\n")
    for number in (mark.line, mark.line - 1):
        if 0 <= number < len(lines) and (tab := re.match(r" *\t", lines[number])):
            return number + 1, tab.end()
    return None
