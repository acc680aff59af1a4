"""Tables of at most a hundred columns: the generic one, and what `list` and `show` say of deployments."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.cli.views import units
from pipeline.cli.views.text import WIDTH, Ink, clean, columns, cut, hanging, pad, plain

_STATE_STYLES = {
    "running": "green",
    "published": "green",
    "changed": "yellow",
    "drifted": "yellow",
    "missing": "red",
    "not read": "red",
    "not applied": "dim",
    "no longer declared": "red",
}


@dataclass(frozen=True)
class Row:
    """One model at one target."""

    model: str
    target: str
    state: str  # "running", "drifted", "missing", "changed", "not applied", "not read"
    version: str
    pin: str
    url: str | None = None
    images: tuple[str, ...] = ()  # what is published: "ghcr.io/acme/models/qwen3-8b:mp-…@sha256:…"


@dataclass(frozen=True)
class Details:
    """Everything `show` says of one model: named texts in sections."""

    model: str
    sections: Sequence[tuple[str, Sequence[tuple[str, str]]]] = field(default=())


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: Sequence[int],
    ink: Ink = plain,
    *,
    numbers: int | None = None,
) -> list[str]:
    """Columns at most `most` wide, the last as wide as what is left; left-aligned, but for the one of `numbers`."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [
        min(most[i], max([columns(heads[i]), *(columns(row[i]) for row in cells)]))
        for i in range(len(heads) - 1)
    ]
    last = max(0, WIDTH - sum(widths) - 2 * len(widths))
    head, *lines = [_line(row, widths, last, numbers) for row in (heads, *cells)]
    return [ink("bold", head), *lines]


def _line(cells: Sequence[str], widths: Sequence[int], last: int, numbers: int | None) -> str:
    firsts = [pad(cut(cell, width), width) for cell, width in zip(cells, widths, strict=False)]
    if numbers is not None:
        firsts[numbers] = cells[numbers].rjust(widths[numbers])
    return "  ".join([*firsts, cut(cells[-1], last)]).rstrip()


def models(rows: Sequence[Row], ink: Ink = plain) -> str:
    """The table of `mp list`."""
    if not rows:
        return "No models at any target."
    heads = ("MODEL", "TARGET", "STATE", "VERSION", "PIN", "URL OR IMAGE")
    cells = [(r.model, r.target, r.state, r.version or "-", r.pin[:12] or "-", _place(r)) for r in rows]
    head, *lines = table(heads, cells, (26, 16, 18, 14, 12), ink)
    return "\n".join(
        [head, *(_coloured(line, row.state, ink) for line, row in zip(lines, rows, strict=True))]
    )


def _place(row: Row) -> str:
    """Where it answers, or what was published; the target says in which registry, so that it fits."""
    if row.url or not row.images:
        return row.url or ""
    images = [units.short(image.rpartition("/")[2]) for image in row.images]
    return ", ".join(images)


def _coloured(line: str, state: str, ink: Ink) -> str:
    style = _STATE_STYLES.get(state)
    return line.replace(f"  {state}", f"  {ink(style, state)}", 1) if style else line


def details(one: Details, ink: Ink = plain) -> str:
    """The sections of `mp show MODEL`."""
    names = [columns(clean(name)) for _, texts in one.sections for name, _ in texts]
    begin = min(36, max(names, default=0) + 4)
    lines = [ink("bold", cut(clean(one.model), WIDTH))]
    for title, texts in one.sections:
        lines += [""] if title else []
        lines += [ink("bold", cut(clean(title), WIDTH))] if title else []
        for name, text in texts:
            first = pad("  " + cut(clean(name), begin - 4), begin)
            lines += [line.rstrip() for line in hanging(first, clean(text))]
    return "\n".join(lines)
