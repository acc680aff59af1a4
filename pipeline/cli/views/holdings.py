"""JSON Schemas of what `mp list`, `show`, `pull` and `cache …` say of models and their copies; `views/json` and `views/entries` make it."""

from dataclasses import fields

from pipeline.cli.views.shape import (
    COUNT,
    COUNT_OR_NULL,
    DIFFS,
    FORMAT,
    SECONDS,
    TEXT,
    TEXT_OR_NULL,
    TRANSFER,
    WHETHER,
    document,
    list_of,
    or_null,
    record,
)
from pipeline.core.digest import Json
from pipeline.core.model import Facts

_ENTRY: dict[str, Json] = {
    "source": TEXT_OR_NULL,
    "versions": list_of(TEXT),
    "pin": TEXT,
    "kind": {"enum": ["model", "adapter"]},
    "size_bytes": COUNT,
    "files": COUNT,
    "complete": WHETHER,
    "fetched_at": TEXT_OR_NULL,
    "tool": TEXT_OR_NULL,
    "used_at": TEXT,
    "path": TEXT,
}


def models() -> dict[str, Json]:
    row = record(
        model=TEXT,
        target=TEXT,
        state=TEXT,
        version=TEXT,
        pin=TEXT,
        source=TEXT,
        size_bytes=COUNT_OR_NULL,
        url=TEXT_OR_NULL,
        images=list_of(TEXT),
    )
    adapter = record(
        model=TEXT,
        adapter=TEXT,
        state=TEXT,
        version=TEXT,
        pin=TEXT,
        source=TEXT,
        size_bytes=COUNT,
    )
    return document(
        "mp list",
        "Output of `mp list --json`: one row for each model at each target, and one for each adapter; with `--cached` what the cache holds and nobody declares, else null.",
        record(
            format_version=FORMAT,
            models=list_of(row),
            adapters=list_of(adapter),
            cached=or_null(list_of(record(**_ENTRY))),
        ),
    )


def details() -> dict[str, Json]:
    chosen = record(
        include=list_of(TEXT),
        exclude=list_of(TEXT),
        format=TEXT,
        allow={"type": "object", "additionalProperties": TEXT},
    )
    fact: Json = {"type": ["string", "integer", "boolean", "null"]}
    source = record(
        role=TEXT,
        source=TEXT,
        versions=list_of(TEXT),
        pin=TEXT,
        size_bytes=COUNT,
        missing_bytes=COUNT,
        left_out_bytes=COUNT_OR_NULL,
        filter=or_null(chosen),
        facts=record(**{each.name: fact for each in fields(Facts)}),
        cached=or_null(record(path=TEXT, complete=WHETHER, fetched_at=TEXT_OR_NULL, tool=TEXT_OR_NULL)),
        files=list_of(record(path=TEXT, size_bytes=COUNT, sha256=TEXT)),
    )
    live = record(
        address=TEXT,
        kind=TEXT,
        state=TEXT,
        action=TEXT_OR_NULL,
        reason=TEXT,
        transfer=TRANSFER,
        drift=DIFFS,
        url=TEXT_OR_NULL,
        id=TEXT_OR_NULL,
        digest=TEXT_OR_NULL,
        applied_at=TEXT_OR_NULL,
        fields={"type": "object"},
    )
    shown = record(model=TEXT, declared=TEXT_OR_NULL, sources=list_of(source), resources=list_of(live))
    return document(
        "mp show",
        "Output of `mp show --json`: where each source of a model comes from and where its copy is, and what was made of it.",
        record(format_version=FORMAT, models=list_of(shown)),
    )


def pulled() -> dict[str, Json]:
    one = record(
        name=TEXT,
        role=TEXT,
        source=TEXT,
        version=TEXT,
        pin=TEXT,
        size_bytes=COUNT,
        files=COUNT,
        fetched_bytes=COUNT,
        seconds=SECONDS,
        path=TEXT,
    )
    return document(
        "mp pull",
        "Output of `mp pull --json`: what is here now, and how much of it was fetched.",
        record(format_version=FORMAT, pulled=list_of(one)),
    )


def cached() -> dict[str, Json]:
    return document(
        "mp cache list",
        "Output of `mp cache list --json`: what is in the cache.",
        record(format_version=FORMAT, disk_bytes=COUNT, entries=list_of(record(**_ENTRY))),
    )


def verified() -> dict[str, Json]:
    problem: Json = {"enum": ["missing", "wrong", "extra"]}
    return document(
        "mp cache verify",
        "Output of `mp cache verify --json`: every file that is not as it was verified.",
        record(
            format_version=FORMAT,
            entries=COUNT,
            read_bytes=COUNT,
            damage=list_of(record(source=TEXT, pin=TEXT, path=TEXT, problem=problem)),
        ),
    )


def pruned() -> dict[str, Json]:
    return document(
        "mp cache prune",
        "Output of `mp cache prune --json`: what goes and what stays, each with its rule; `freed_bytes` is null with `--dry-run`.",
        _pruned(),
    )


def _pruned() -> dict[str, Json]:
    return record(
        format_version=FORMAT,
        entries=list_of(record(**_ENTRY, goes=WHETHER, rule=TEXT)),
        views=COUNT,
        downloads=COUNT,
        leftovers=COUNT,
        blobs=COUNT,
        would_free_bytes=COUNT,
        freed_bytes=COUNT_OR_NULL,
    )


def freed() -> dict[str, Json]:
    image = record(
        registry=TEXT,
        repository=TEXT,
        tag=TEXT,
        digest=TEXT,
        version=TEXT_OR_NULL,
        size_bytes=COUNT,
        goes=WHETHER,
        rule=TEXT,
    )
    problems = list_of(record(registry=TEXT, problem=TEXT, hint=TEXT_OR_NULL))
    later = list_of(record(registry=TEXT, bytes=COUNT))
    return document(
        "mp prune",
        "Output of `mp prune --json`: images and weights that go and stay, each with its rule; what was done is null with `--dry-run`. "
        "Registries free by themselves what no image names any more.",
        record(
            format_version=FORMAT,
            weights=_pruned(),
            images=list_of(image),
            left_tags=COUNT,
            unreadable=problems,
            would_free_bytes=COUNT,
            would_unreference=later,
            removed=COUNT_OR_NULL,
            freed_bytes=COUNT_OR_NULL,
            unreferenced=or_null(later),
            problems=problems,
        ),
    )


def imported() -> dict[str, Json]:
    one = record(
        source=TEXT,
        versions=list_of(TEXT),
        pin=TEXT_OR_NULL,
        origin=TEXT,
        folder=TEXT,
        size_bytes=COUNT,
        absent=list_of(TEXT),
        entry=or_null(record(**_ENTRY)),
        problem=TEXT_OR_NULL,
    )
    return document(
        "mp cache import",
        "Output of `mp cache import --json`: what other caches hold; `entry` is where it is now, null if it was not taken over.",
        record(format_version=FORMAT, found=list_of(one)),
    )
