"""Remarks for the user, tied to a place in a file. Gathered everywhere, never raised one by one; views print them."""

import enum
from dataclasses import dataclass

from pipeline.core.frozen import frozen


class Severity(enum.StrEnum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, order=True)
class Where:
    """A place in a file the user wrote: one-based line and column."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@frozen
class Diagnostic:
    """What is wrong and what to do: lower case, no full stop, values in quotes."""

    severity: Severity
    summary: str  # 'qwen3-8b: version "main" is not in models.lock'
    where: Where | None = None
    hint: str | None = None  # "run mp lock qwen3-8b"
    detail: str | None = None
    model: str | None = None


@frozen
class Mistake:
    """Something that models.yaml shows by itself to be impossible, and the key that is to blame."""

    path: tuple[str | int, ...]  # from the top of the file: ("models", "qwen", "targets", "prod", "name")
    summary: str
    hint: str


def error(
    summary: str, where: Where | None = None, hint: str | None = None, model: str | None = None
) -> Diagnostic:
    return Diagnostic(Severity.ERROR, summary, where, hint, model=model)


def note(summary: str, where: Where | None = None, model: str | None = None) -> Diagnostic:
    return Diagnostic(Severity.NOTE, summary, where, model=model)


def warning(
    summary: str, where: Where | None = None, hint: str | None = None, model: str | None = None
) -> Diagnostic:
    return Diagnostic(Severity.WARNING, summary, where, hint, model=model)
