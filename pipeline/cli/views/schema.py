"""JSON Schemas of the machine output in `views/json`. Committed under schema/, proven fresh by a test."""

from collections.abc import Callable, Mapping

from pipeline.core.change import Action
from pipeline.core.diagnostic import Severity
from pipeline.core.digest import Json
from pipeline.core.report import Status

_TEXT: Json = {"type": "string"}
_TEXT_OR_NULL: Json = {"type": ["string", "null"]}
_WHETHER: Json = {"type": "boolean"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SECONDS: Json = {"type": "number", "minimum": 0}
_FORMAT: Json = {"const": 1}


def _record(**fields: Json) -> dict[str, Json]:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _one_of(values: type[Action] | type[Severity] | type[Status]) -> Json:
    return {"enum": [str(value) for value in values]}


_DIFFS = _list(_record(path=_TEXT, before={}, after={}))
_TRANSFER = _record(download_bytes=_COUNT, push_bytes=_COUNT, reused_bytes=_COUNT, exact=_WHETHER)
_UNREADABLE = _list(_record(address=_TEXT, reason=_TEXT, hint=_TEXT_OR_NULL, optional=_WHETHER))
_DIAGNOSTICS = _list(
    _record(
        severity=_one_of(Severity),
        summary=_TEXT,
        detail=_TEXT_OR_NULL,
        where=_TEXT_OR_NULL,
        hint=_TEXT_OR_NULL,
        model=_TEXT_OR_NULL,
    )
)


def _document(title: str, description: str, body: dict[str, Json]) -> dict[str, Json]:
    head: dict[str, Json] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
    }
    return head | body


def plan() -> dict[str, Json]:
    change = _record(
        address=_TEXT,
        kind=_TEXT,
        action=_one_of(Action),
        reason=_TEXT,
        missing=_WHETHER,
        diffs=_DIFFS,
        drift=_DIFFS,
        transfer=_TRANSFER,
        where=_TEXT_OR_NULL,
    )
    return _document(
        "mp plan",
        "Output of `mp plan --json`: what apply would do.",
        _record(
            format_version=_FORMAT,
            project=_TEXT,
            environment=_TEXT,
            complete=_WHETHER,
            digest=_TEXT,
            lock=_TEXT,
            summary=_record(**{str(action): _COUNT for action in Action}),
            transfer=_TRANSFER,
            changes=_list(change),
            unreadable=_UNREADABLE,
            diagnostics=_DIAGNOSTICS,
            refusals=_DIAGNOSTICS,
        ),
    )


def report() -> dict[str, Json]:
    proof = _record(url=_TEXT, prompt=_TEXT, answer=_TEXT, seconds=_SECONDS)
    outcome = _record(
        address=_TEXT,
        action=_one_of(Action),
        result=_one_of(Status),
        seconds=_SECONDS,
        error=_TEXT_OR_NULL,
        hint=_TEXT_OR_NULL,
        endpoint=_TEXT_OR_NULL,
        proof={"anyOf": [proof, {"type": "null"}]},
    )
    return _document(
        "mp report",
        "Output of `mp apply --json` and `mp destroy --json`: what was done.",
        _record(
            format_version=_FORMAT,
            interrupted=_WHETHER,
            seconds=_SECONDS,
            summary=_record(**{str(status): _COUNT for status in Status}),
            outcomes=_list(outcome),
        ),
    )


def drift() -> dict[str, Json]:
    drifted = _record(address=_TEXT, kind=_TEXT, missing=_WHETHER, drift=_DIFFS)
    return _document(
        "mp drift",
        "Output of `mp drift --json`: where the world moved away from what was applied last.",
        _record(
            format_version=_FORMAT,
            project=_TEXT,
            environment=_TEXT,
            complete=_WHETHER,
            drifted=_list(drifted),
            unreadable=_UNREADABLE,
        ),
    )


def models() -> dict[str, Json]:
    row = _record(
        model=_TEXT,
        target=_TEXT,
        state=_TEXT,
        version=_TEXT,
        pin=_TEXT,
        url=_TEXT_OR_NULL,
        images=_list(_TEXT),
    )
    return _document(
        "mp list",
        "Output of `mp list --json`: one row for each model at each target.",
        _record(format_version=_FORMAT, models=_list(row)),
    )


def details() -> dict[str, Json]:
    section = _record(title=_TEXT, texts=_list(_record(name=_TEXT, text=_TEXT)))
    return _document(
        "mp show",
        "Output of `mp show --json`: what is known of each model, in named texts.",
        _record(format_version=_FORMAT, models=_list(_record(model=_TEXT, sections=_list(section)))),
    )


def validation() -> dict[str, Json]:
    return _document(
        "mp validate",
        "Output of `mp validate --json`: every remark about models.yaml; `valid` when none is an error.",
        _record(format_version=_FORMAT, file=_TEXT, valid=_WHETHER, diagnostics=_DIAGNOSTICS),
    )


def locked() -> dict[str, Json]:
    return _document(
        "mp lock",
        "Output of `mp lock --json`: why models.lock changes (empty when it is fresh), and whether it was written.",
        _record(format_version=_FORMAT, changed=_list(_TEXT), written=_WHETHER, diagnostics=_DIAGNOSTICS),
    )


def outdated() -> dict[str, Json]:
    return _document(
        "mp outdated",
        "Output of `mp outdated --json`: sources that moved upstream since they were pinned, and newer engines.",
        _record(
            format_version=_FORMAT,
            asked=_COUNT,
            unpinned=_COUNT,
            sources=_list(
                _record(
                    model=_TEXT,
                    role=_TEXT,
                    source=_TEXT,
                    version=_TEXT,
                    locked=_TEXT,
                    now=_TEXT_OR_NULL,
                    changes=_list(_record(subject=_TEXT, text=_TEXT, fetch_bytes=_COUNT)),
                    problem=_TEXT_OR_NULL,
                )
            ),
            engines=_list(_record(template=_TEXT, variant=_TEXT, locked=_TEXT, newest=_TEXT)),
        ),
    )


SCHEMAS: Mapping[str, Callable[[], dict[str, Json]]] = {
    "plan": plan,
    "report": report,
    "drift": drift,
    "list": models,
    "show": details,
    "validate": validation,
    "locked": locked,
    "outdated": outdated,
}
