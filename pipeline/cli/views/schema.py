"""JSON Schemas of the machine output in `views/json`. Committed under schema/, proven fresh by a test."""

from collections.abc import Callable, Mapping

from pipeline.cli.views import history, holdings, standing
from pipeline.cli.views.shape import (
    COUNT,
    DIFFS,
    FORMAT,
    SECONDS,
    TEXT,
    TEXT_OR_NULL,
    TRANSFER,
    WHETHER,
    document,
    list_of,
    record,
)
from pipeline.core.change import Action
from pipeline.core.diagnostic import Severity
from pipeline.core.digest import Json
from pipeline.core.report import Status


def _one_of(values: type[Action] | type[Severity] | type[Status]) -> Json:
    return {"enum": [str(value) for value in values]}


_UNREADABLE = list_of(record(address=TEXT, reason=TEXT, hint=TEXT_OR_NULL, optional=WHETHER))
_DIAGNOSTICS = list_of(
    record(
        severity=_one_of(Severity),
        summary=TEXT,
        detail=TEXT_OR_NULL,
        where=TEXT_OR_NULL,
        hint=TEXT_OR_NULL,
        model=TEXT_OR_NULL,
    )
)


def plan() -> dict[str, Json]:
    change = record(
        address=TEXT,
        kind=TEXT,
        action=_one_of(Action),
        reason=TEXT,
        missing=WHETHER,
        diffs=DIFFS,
        drift=DIFFS,
        transfer=TRANSFER,
        where=TEXT_OR_NULL,
    )
    rollout = record(
        kind=TEXT,
        target=TEXT,
        waves=list_of(list_of(TEXT)),
        max_failures=COUNT,
        max_parallel={"type": ["integer", "null"]},
    )
    return document(
        "mp plan",
        "Output of `mp plan --json`: what apply would do.",
        record(
            format_version=FORMAT,
            project=TEXT,
            environment=TEXT,
            complete=WHETHER,
            digest=TEXT,
            lock=TEXT,
            summary=record(**{str(action): COUNT for action in Action}),
            transfer=TRANSFER,
            changes=list_of(change),
            rollouts=list_of(rollout),
            unreadable=_UNREADABLE,
            left_out=list_of(record(address=TEXT, waits_for=TEXT)),
            diagnostics=_DIAGNOSTICS,
            refusals=_DIAGNOSTICS,
        ),
    )


def report() -> dict[str, Json]:
    proof = record(url=TEXT, prompt=TEXT, answer=TEXT, seconds=SECONDS)
    outcome = record(
        address=TEXT,
        action=_one_of(Action),
        result=_one_of(Status),
        seconds=SECONDS,
        error=TEXT_OR_NULL,
        hint=TEXT_OR_NULL,
        endpoint=TEXT_OR_NULL,
        proof={"anyOf": [proof, {"type": "null"}]},
    )
    return document(
        "mp report",
        "Output of `mp apply --json` and `mp destroy --json`: what was done.",
        record(
            format_version=FORMAT,
            interrupted=WHETHER,
            seconds=SECONDS,
            summary=record(**{str(status): COUNT for status in Status}),
            outcomes=list_of(outcome),
        ),
    )


def drift() -> dict[str, Json]:
    drifted = record(address=TEXT, kind=TEXT, missing=WHETHER, drift=DIFFS)
    return document(
        "mp drift",
        "Output of `mp drift --json`: where the world moved away from what was applied last.",
        record(
            format_version=FORMAT,
            project=TEXT,
            environment=TEXT,
            complete=WHETHER,
            drifted=list_of(drifted),
            unreadable=_UNREADABLE,
        ),
    )


def validation() -> dict[str, Json]:
    return document(
        "mp validate",
        "Output of `mp validate --json`: every remark about models.yaml; `valid` when none is an error.",
        record(format_version=FORMAT, file=TEXT, valid=WHETHER, diagnostics=_DIAGNOSTICS),
    )


def locked() -> dict[str, Json]:
    return document(
        "mp lock",
        "Output of `mp lock --json`: why models.lock changes (empty when it is fresh), and whether it was written.",
        record(format_version=FORMAT, changed=list_of(TEXT), written=WHETHER, diagnostics=_DIAGNOSTICS),
    )


def outdated() -> dict[str, Json]:
    return document(
        "mp outdated",
        "Output of `mp outdated --json`: sources that moved upstream since they were pinned, and newer engines.",
        record(
            format_version=FORMAT,
            asked=COUNT,
            unpinned=COUNT,
            sources=list_of(
                record(
                    model=TEXT,
                    role=TEXT,
                    source=TEXT,
                    version=TEXT,
                    locked=TEXT,
                    now=TEXT_OR_NULL,
                    changes=list_of(record(subject=TEXT, text=TEXT, fetch_bytes=COUNT)),
                    problem=TEXT_OR_NULL,
                )
            ),
            engines=list_of(record(template=TEXT, variant=TEXT, locked=TEXT, newest=TEXT)),
        ),
    )


SCHEMAS: Mapping[str, Callable[[], dict[str, Json]]] = {
    "plan": plan,
    "report": report,
    "drift": drift,
    "list": holdings.models,
    "show": holdings.details,
    "pulled": holdings.pulled,
    "cached": holdings.cached,
    "verified": holdings.verified,
    "pruned": holdings.pruned,
    "prune": holdings.freed,
    "imported": holdings.imported,
    "validate": validation,
    "locked": locked,
    "outdated": outdated,
    "status": standing.status_schema,
    "history": history.history_schema,
}
