"""`mp status`: every deployment as it is now, as text, as JSON, and the schema of that."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.cli.views import units
from pipeline.cli.views.entries import FORMAT_VERSION
from pipeline.cli.views.shape import (
    COUNT_OR_NULL,
    FORMAT,
    SECONDS,
    TEXT,
    TEXT_OR_NULL,
    document,
    list_of,
    or_null,
    record,
)
from pipeline.cli.views.tables import Column, fitted
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.core.digest import Json
from pipeline.core.resource import Observed, Version, fields_of, place_of, said_of
from pipeline.engine.status import HEALTHY, MISSING, Standing

_COLUMNS = (
    Column("MODEL", 24),
    Column("TARGET", 12),
    Column("HEALTH"),
    Column("REPLICAS", right=True),
    Column("VERSION", 12),
    Column("SINCE"),
    Column("LAST ANSWER"),
)


def status(ones: Sequence[Standing], now: float, ink: Ink = plain) -> str:
    """A line for each deployment, then what is wrong with some and what is held."""
    if not ones:
        return "Nothing is deployed."
    rows = [_row(one, now) for one in ones]
    remarks = [line for one in ones for line in _remarks(one, now, ink)]
    return "\n".join([*fitted(_COLUMNS, rows, ink, state=2), *(["", *remarks] if remarks else [])])


def _row(one: Standing, now: float) -> tuple[str, ...]:
    applied, version = one.entry.contents, _version(one)
    replicas = replicas_of(one)
    return (
        one.model,
        said_of(place_of(one.entry.address) or one.target),
        one.health,
        "-" if replicas is None else str(replicas),
        applied.model or "-",
        units.ago(now - version.at) if version else "-",
        units.ago(now - version.proof_at) if version and version.proof_at else "-",
    )


def _remarks(one: Standing, now: float, ink: Ink) -> Iterator[str]:
    if one.reason and one.health != HEALTHY:
        first, *others = hanging(
            f"{clean(said_of(one.entry.address))}  ", clean(f"{one.health}: {one.reason}")
        )
        yield ink("bold red" if one.health == MISSING else "bold", first)
        yield from others
    if one.entry.held is not None:
        text = f"held since {units.ago(now - one.entry.held.since)} by mp rollback: mp apply --release {one.model} lets it go"
        yield from hanging(f"{clean(said_of(one.entry.address))}  ", clean(text))
    if one.entry.trial is not None and one.entry.applied:
        text = f"canary: {one.entry.trial.words}; mp promote {one.model}, or mp rollback {one.model}"
        yield from hanging(f"{clean(said_of(one.entry.address))}  ", clean(text))


def replicas_of(one: Standing) -> int | None:
    """How many are asked for where the target has a number; a process or a container that runs is one."""
    if not isinstance(one.answer, Observed):
        return None
    fields = fields_of(one.answer.state)
    objects = fields.get("objects")
    if isinstance(objects, Mapping):
        specs = (each.get("spec") for each in objects.values() if isinstance(each, Mapping))
        numbers = [spec["replicas"] for spec in specs if isinstance(spec, Mapping) and "replicas" in spec]
        return next((number for number in numbers if isinstance(number, int)), None)
    return int(fields["running"] is True) if "running" in fields else None


def _version(one: Standing) -> Version | None:
    """The version that is applied, when it is a good one; of one with a canary the one beside it."""
    if one.entry.trial is not None and one.entry.applied:
        return next(iter(one.entry.versions), None)
    return next((each for each in one.entry.versions if each.state == one.entry.applied), None)


def status_json(ones: Sequence[Standing]) -> dict[str, Json]:
    return {"format_version": FORMAT_VERSION, "deployments": [_one(each) for each in ones]}


def _one(one: Standing) -> dict[str, Json]:
    entry, version = one.entry, _version(one)
    return {
        "address": entry.address,
        "model": one.model,
        "target": one.target,
        "kind": entry.kind,
        "health": one.health,
        "reason": one.reason or None,
        "replicas": replicas_of(one),
        "version": entry.contents.model or None,
        "engine": entry.contents.engine or None,
        "commit": entry.commit,
        "good_since": version.at if version else None,
        "url": one.answer.endpoint if isinstance(one.answer, Observed) else None,
        "held": None
        if entry.held is None
        else {"since": entry.held.since, "version_at": entry.held.version_at},
        "canary": _canary(one),
        "proof": {**vars(version.proof), "at": version.proof_at} if version and version.proof else None,
    }


def _canary(one: Standing) -> dict[str, Json] | None:
    trial = one.entry.trial
    if trial is None or not one.entry.applied:
        return None
    return {
        "version": trial.contents.model or None,
        "engine": trial.contents.engine or None,
        "says": trial.words,
    }


def status_schema() -> dict[str, Json]:
    deployment = record(
        address=TEXT,
        model=TEXT,
        target=TEXT,
        kind=TEXT,
        health={"enum": ["Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"]},
        reason=TEXT_OR_NULL,
        replicas=COUNT_OR_NULL,
        version=TEXT_OR_NULL,
        engine=TEXT_OR_NULL,
        commit=TEXT_OR_NULL,
        good_since=or_null(SECONDS),
        url=TEXT_OR_NULL,
        held=or_null(record(since=SECONDS, version_at=SECONDS)),
        canary=or_null(record(version=TEXT_OR_NULL, engine=TEXT_OR_NULL, says=TEXT)),
        proof=or_null(record(url=TEXT, prompt=TEXT, answer=TEXT, seconds=SECONDS, at=SECONDS)),
    )
    return document(
        "mp status",
        "Output of `mp status --json`: every deployment as it is now. Times are seconds since 1970.",
        record(format_version=FORMAT, deployments=list_of(deployment)),
    )
