"""[MODEL]…: names and globs become names; one that fits nothing is an error with a suggestion."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.errors import UserError


def selected(patterns: Sequence[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """The known names that were asked for, in their own order; none asked for is (), which means all.

    Raises UserError naming every pattern that fits nothing.
    """
    if not patterns:
        return ()
    names = list(known)
    found: set[str] = set()
    problems: list[Diagnostic] = []
    for pattern in patterns:
        fitting = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        found.update(fitting)
        if not fitting:
            problems.append(_unknown(pattern, names))
    if problems:
        raise UserError(problems)
    return tuple(name for name in names if name in found)


def _unknown(pattern: str, names: Sequence[str]) -> Diagnostic:
    if any(character in pattern for character in "*?["):
        return error(f'no model fits "{pattern}"', hint=_some(names))
    close = difflib.get_close_matches(pattern, names, n=1)
    return error(
        f'there is no model "{pattern}"', hint=f'did you mean "{close[0]}"?' if close else _some(names)
    )


def _some(names: Sequence[str]) -> str:
    if not names:
        return "models.yaml declares no model"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"there are {', '.join(names[:5])}{more}"
