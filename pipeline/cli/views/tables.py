"""Tables of at most a hundred columns: the generic ones, and `mp list`."""

from collections.abc import Iterable, Sequence

from pipeline.cli.views import units
from pipeline.cli.views.text import WIDTH, Ink, clean, columns, cut, pad, plain, tail
from pipeline.core.frozen import frozen

_STATE_STYLES = {
    "running": "green",
    "published": "green",
    "cached": "green",
    "complete": "green",
    "changed": "yellow",
    "drifted": "yellow",
    "damaged": "red",
    "missing": "red",
    "not read": "red",
    "not applied": "dim",
    "not cached": "dim",
    "no longer declared": "red",
}


@frozen
class Row:
    """One model at one target."""

    model: str
    target: str
    state: str  # "running", "drifted", "missing", "changed", "not applied", "not read"
    version: str
    pin: str
    url: str | None = None
    images: tuple[str, ...] = ()  # what is published: "ghcr.io/acme/models/qwen3-8b:mp-…@sha256:…"
    source: str = ""  # of the weights, as the user wrote it; "" is not known
    size_bytes: int | None = None  # of all its sources


@frozen
class AdapterRow:
    """One adapter of one model."""

    model: str
    adapter: str
    state: str  # "cached", "not cached"
    version: str
    pin: str
    source: str
    size_bytes: int


@frozen
class Column:
    """How one column of a table gives way when a line would be too long."""

    head: str
    least: int | None = (
        None  # columns that are left of it at the least; None: it is not cut before all others are
    )
    right: bool = False  # numbers
    ends: bool = False  # its end says more than its beginning: references


_NAMES = Column("MODEL", 24), Column("TARGET", 12), Column("STATE")
_PINNED = Column("VERSION", 7), Column("PIN"), Column("SIZE", right=True), Column("SOURCE", 14, ends=True)
_MODELS = (*_NAMES, *_PINNED, Column("URL OR IMAGE", 14))
_ADAPTERS = (Column("MODEL", 24), Column("ADAPTER", 16), Column("STATE"), *_PINNED)


def fitted(
    shape: Sequence[Column], rows: Iterable[Sequence[str]], ink: Ink = plain, *, state: int | None = None
) -> list[str]:
    """As wide as what is in it; what is too wide for a line is cut, the widest column first. `state` is coloured."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [
        min(WIDTH, max([columns(column.head), *(columns(row[i]) for row in cells)]))
        for i, column in enumerate(shape)
    ]
    room = WIDTH - 2 * (len(shape) - 1)
    while sum(widths) > room:
        widest = max(range(len(shape)), key=lambda i: (_gives(shape[i], widths[i]), widths[i]))
        widths[widest] -= 1
    head = _joined([column.head for column in shape], widths, shape, None, plain)
    return [ink("bold", head), *(_joined(row, widths, shape, state, ink) for row in cells)]


def _gives(column: Column, width: int) -> bool:
    return column.least is not None and width > max(column.least, len(column.head))


def _joined(
    cells: Sequence[str], widths: Sequence[int], shape: Sequence[Column], state: int | None, ink: Ink
) -> str:
    shown = []
    for i, (cell, width, column) in enumerate(zip(cells, widths, shape, strict=True)):
        text = tail(cell, width) if column.ends else cut(cell, width)
        blank = " " * (width - columns(text))
        style = _STATE_STYLES.get(cell.partition(",")[0]) if i == state else None
        text = ink(style, text) if style else text
        shown.append(blank + text if column.right else text + blank)
    return "  ".join(shown).rstrip()


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
    """Every model at every target."""
    if not rows:
        return "No models at any target."
    cells = [
        (r.model, r.target, r.state, *_pinned(r.version, r.pin, r.size_bytes, r.source), _place(r))
        for r in rows
    ]
    wide = (
        len(_MODELS) if any(row[-1] for row in cells) else len(_MODELS) - 1
    )  # nothing answers or is published
    return "\n".join(fitted(_MODELS[:wide], [row[:wide] for row in cells], ink, state=2))


def adapters(rows: Sequence[AdapterRow], ink: Ink = plain) -> str:
    """Every adapter of every model."""
    if not rows:
        return "No adapters."
    cells = [(r.model, r.adapter, r.state, *_pinned(r.version, r.pin, r.size_bytes, r.source)) for r in rows]
    return "\n".join(fitted(_ADAPTERS, cells, ink, state=2))


def sections(found: Sequence[tuple[str, str]], ink: Ink = plain) -> str:
    """Several tables, each with its heading; one alone needs none."""
    if len(found) == 1:
        return found[0][1]
    return "\n\n".join(f"{ink('bold', title)}\n{text}" for title, text in found)


def _pinned(version: str, pin: str, size_bytes: int | None, source: str) -> tuple[str, str, str, str]:
    size = "-" if size_bytes is None else units.transferred(size_bytes)
    return version or "-", units.pin(pin) or "-", size, source or "-"


def _place(row: Row) -> str:
    """Where it answers, or what was published; the target says in which registry, so that it fits."""
    if row.url or not row.images:
        return row.url or ""
    return ", ".join(_image(reference.rpartition("/")[2]) for reference in row.images)


def _image(name: str) -> str:
    """ "tiny.weights:mp-0123456789ab": that tag names the content; of another's tag only the digest is sure."""
    before, _, _ = name.partition("@")
    return before if ":" in before else units.short(name)
