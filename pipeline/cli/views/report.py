"""What a run did, as text: every outcome, what failed and why, and the answers that prove the deployments."""

from collections.abc import Iterator

from pipeline.cli.views import units
from pipeline.cli.views.tables import table
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.core.report import Outcome, Report, Status
from pipeline.core.resource import said_of

_STYLES = {
    Status.APPLIED: "green",
    Status.FAILED: "bold red",
    Status.SKIPPED: "yellow",
    Status.UNKNOWN: "magenta",
}


def report(report: Report, ink: Ink = plain) -> str:
    """The table, the failures, the proofs; its last line never changes its shape."""
    paragraphs = [
        _table(report, ink),
        list(_failures(report, ink)),
        list(_proofs(report, ink)),
        _end(report, ink),
    ]
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def last_line(report: Report) -> str:
    """Fixed, as the plan's."""
    counts = ", ".join(f"{status} {report.count(status)}" for status in Status)
    return f"{counts[0].upper()}{counts[1:]}."


def _table(report: Report, ink: Ink) -> list[str]:
    if not report.outcomes:
        return []
    heads = ("ADDRESS", "ACTION", "RESULT", "SECONDS", "")
    rows = [
        (said_of(o.address), str(o.action), str(o.status), f"{o.seconds:.1f}", _detail(o))
        for o in report.outcomes
    ]
    head, *lines = table(heads, rows, (44, 7, 7, 9), ink, numbers=3)
    coloured = [
        line.replace(f"  {o.status}", f"  {ink(_STYLES[o.status], str(o.status))}", 1)
        for line, o in zip(lines, report.outcomes, strict=True)
    ]
    return [head, *coloured]


def _detail(outcome: Outcome) -> str:
    return (outcome.error or "") if outcome.status is not Status.APPLIED else (outcome.endpoint or "")


def _failures(report: Report, ink: Ink) -> Iterator[str]:
    """The first error of each failure in full, and what to do about it."""
    for outcome in report.outcomes:
        if outcome.status not in (Status.FAILED, Status.UNKNOWN):
            continue
        word = "Failed:" if outcome.status is Status.FAILED else "Unknown:"
        first, *others = hanging(f"{word} ", clean(said_of(outcome.address)))
        yield first.replace(word, ink(_STYLES[outcome.status], word), 1)
        yield from others
        for line in (outcome.error or "cut off: plan again to see what is there").splitlines():
            yield from hanging("  ", clean(line))
        if outcome.hint:
            yield from hanging("  hint: ", clean(outcome.hint))


def _proofs(report: Report, ink: Ink) -> Iterator[str]:
    """Where each deployment answers, what it was asked and what it said."""
    for outcome in report.outcomes:
        if proof := outcome.proof:
            first, *others = hanging(
                f"{clean(said_of(outcome.address))}  ", clean(outcome.endpoint or proof.url)
            )
            yield ink("bold", first)
            yield from others
            yield from hanging("  asked     ", clean(proof.prompt))
            yield from hanging("  answered  ", f"{clean(proof.answer)} ({units.duration(proof.seconds)})")


def _end(report: Report, ink: Ink) -> list[str]:
    lines = (
        [ink("bold red", "Interrupted: run it again, finished work is recognised.")]
        if report.interrupted
        else []
    )
    if report.unsaved:
        lines += [ink("bold red", first) for first in hanging("Not saved: ", clean(report.unsaved))]
    return [*lines, ink("bold", last_line(report))]
