"""Unquoted words of models.yaml: what each one means, and which ones YAML readers disagree about. Used by marks."""

import math
import re

from pipeline.core.frozen import frozen

Plain = str | int | float | bool | None

_WORDS: dict[str, Plain] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_STARTS = frozenset("0123456789+-.")  # what a number, a date or .inf begins with
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_TRAPS = (  # read as numbers or dates by YAML 1.1, YAML 1.2 or both, and hardly ever meant so
    (re.compile(r"[-+]?0[0-9_]+"), "an octal number"),
    (re.compile(r"[-+]?0[xob][0-9a-fA-F_]+"), "a number"),
    (re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?"), "a number"),
    (re.compile(r"[-+]?[0-9]{19,}"), "a number"),
    (re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"), "a number in base 60"),
    (re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"), "a date"),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), "a number that is not finite"),
)


@frozen
class Trap:
    """A word that two readers of YAML understand differently."""

    summary: str
    hint: str


def resolve(word: str) -> Plain | Trap:
    """The value of an unquoted word."""
    if word in _WORDS:
        return _WORDS[word]
    if word[0] in _STARTS:
        return _number(word)
    if word.lower() in _SWITCHES and word in (word.lower(), word.title(), word.upper()):
        meant = _SWITCHES[word.lower()]
        return Trap(f"{word} is read as {meant} or as text", f'write {meant}, or quote it: "{word}"')
    return word


def _number(word: str) -> Plain | Trap:
    if _INTEGER.fullmatch(word):
        return int(word)
    if _FLOAT.fullmatch(word):
        value = float(word)
        return value if math.isfinite(value) else _trap(word, "a number that is not finite")
    for pattern, what in _TRAPS:
        if pattern.fullmatch(word):
            return _trap(word, what)
    return word


def _trap(word: str, what: str) -> Trap:
    return Trap(f"{word} is read as {what} or as text", f'quote it: "{word}"')
