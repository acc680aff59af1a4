"""`mp history`: what was done, the newest first, as text, as JSON, and the schema of that."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pipeline.cli.views import units
from pipeline.cli.views.entries import FORMAT_VERSION
from pipeline.cli.views.shape import FORMAT, SECONDS, TEXT, TEXT_OR_NULL, document, list_of, or_null, record
from pipeline.cli.views.tables import Column, fitted
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.core.digest import Json
from pipeline.core.resource import said_of
from pipeline.store.history import Past, Side, past_to_json

_COLUMNS = (
    Column("WHEN (UTC)"),
    Column("ADDRESS", 20),
    Column("WHAT"),
    Column("FROM → TO", 16),
    Column("COMMIT"),
    Column("TOOK", right=True),
)
_OBJECTS = "objects/"
_FIELDS = 2  # named; the others are counted


def history(ones: Sequence[Past], ink: Ink = plain) -> str:
    """A line for each change, then what failed."""
    if not ones:
        return "Nothing was applied here yet."
    failed = [line for one in ones for line in _failure(one)]
    return "\n".join([*fitted(_COLUMNS, map(_row, ones), ink), *(["", *failed] if failed else [])])


def _row(one: Past) -> tuple[str, ...]:
    return (
        _time(one.at),
        said_of(one.address),
        _what(one),
        moved(one),
        (one.commit or "-")[:7],
        units.duration(one.seconds),
    )


def _what(one: Past) -> str:
    word = one.command if one.command == "rollback" else one.action
    return word if one.result == "applied" else f"{word} {one.result}"


def moved(one: Past) -> str:
    """From what to what: the version where it moved, else the engine, else the fields."""
    before, after = one.before.contents, one.after.contents
    if not one.after.fingerprint:
        return before.model or one.before.fingerprint
    if not one.before.fingerprint:
        return after.model or one.after.fingerprint
    if before.model != after.model:
        return f"{before.model or '?'} → {after.model}"
    if before.engine != after.engine:
        return f"{before.engine or '?'} → {after.engine}"
    if one.changed:
        names = list(dict.fromkeys(map(_field, sorted(one.changed, key=_is_launch))))
        more = len(names) - _FIELDS
        return ", ".join(names[:_FIELDS]) + (f" and {more} more" if more > 0 else "")
    return f"{one.before.fingerprint} → {one.after.fingerprint}"


def _field(path: str) -> str:
    """A field's name; of a cluster's objects the kind and the last word: "Deployment replicas"."""
    if not path.startswith(_OBJECTS):
        return units.label(path)
    named, *inner = path.removeprefix(_OBJECTS).split("/")
    return " ".join([named.partition("~1")[0], *map(units.label, inner[-1:])])


def _is_launch(path: str) -> bool:
    """A ConfigMap's name changes with all that is in it, so what else changed says more."""
    return path.startswith(f"{_OBJECTS}ConfigMap~1")


def _failure(one: Past) -> Iterator[str]:
    if one.error:
        yield from hanging(f"{_time(one.at)} {clean(said_of(one.address))}  ", clean(one.error))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def history_json(ones: Sequence[Past]) -> dict[str, Json]:
    return {"format_version": FORMAT_VERSION, "changes": [_one(one) for one in ones]}


def _one(one: Past) -> dict[str, Json]:
    return past_to_json(one) | {"before": _side(one.before), "after": _side(one.after)}


def _side(side: Side) -> Json:
    return {
        "version": side.contents.model or None,
        "engine": side.contents.engine or None,
        "fingerprint": side.fingerprint or None,
    }


def history_schema() -> dict[str, Json]:
    side = record(version=TEXT_OR_NULL, engine=TEXT_OR_NULL, fingerprint=TEXT_OR_NULL)
    change = record(
        at=SECONDS,
        command=TEXT,
        run=TEXT,
        commit=TEXT_OR_NULL,
        address=TEXT,
        action=TEXT,
        result=TEXT,
        seconds=SECONDS,
        before=side,
        after=side,
        changed=list_of(TEXT),
        error=TEXT_OR_NULL,
        proof=or_null(record(url=TEXT, prompt=TEXT, answer=TEXT, seconds=SECONDS)),
    )
    return document(
        "mp history",
        "Output of `mp history --json`: what was done, the newest first. Times are seconds since 1970.",
        record(format_version=FORMAT, changes=list_of(change)),
    )
