"""Machine JSON of what commands say (plans, reports, drift, lists, pins, mistakes), each with a format_version, and the schemas they keep to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli.views.entries import FORMAT_VERSION, entry, text
from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.diagnostic import Diagnostic, Severity
from pipeline.core.digest import Json
from pipeline.core.plan import Plan
from pipeline.core.report import Outcome, Report, Status
from pipeline.core.resource import Transfer

if TYPE_CHECKING:  # what reads no engine does not load one, and a plan no tables
    from pipeline.cli.views.details import Details, Live, Provenance
    from pipeline.cli.views.tables import AdapterRow, Row
    from pipeline.engine.outdated import Looked, NewerEngine
    from pipeline.resources.cache.cached import Cached

__all__ = ["text"]  # defined where loading it is cheap


def plan(plan: Plan) -> dict[str, Json]:
    """Every change, no-ops too, in plan order; no state beyond the fields that differ."""
    counts = plan.count()
    return {
        "format_version": FORMAT_VERSION,
        "project": plan.project,
        "environment": plan.environment,
        "complete": plan.complete,
        "digest": plan.digest,
        "lock": plan.lock,
        "summary": {str(action): counts[action] for action in Action},
        "transfer": _transfer(plan.transfer),
        "changes": [_change(change) for change in plan.changes],
        "rollouts": [
            {
                "kind": one.kind,
                "target": one.target,
                "waves": [list(wave) for wave in one.waves],
                "max_failures": one.max_failures,
                "max_parallel": one.max_parallel,
            }
            for one in plan.rollouts
        ],
        "unreadable": _unreadable(plan),
        "left_out": [{"address": each, "waits_for": why} for each, why in plan.left_out.items()],
        "diagnostics": [_diagnostic(d) for d in plan.diagnostics],
        "refusals": [_diagnostic(d) for d in plan.refusals],
    }


def drift(plan: Plan) -> dict[str, Json]:
    """Only what drifted, and what could not be read."""
    return {
        "format_version": FORMAT_VERSION,
        "project": plan.project,
        "environment": plan.environment,
        "complete": plan.complete,
        "drifted": [
            {"address": c.address, "kind": c.kind, "missing": c.missing, "drift": _diffs(c.drift)}
            for c in plan.drifted
        ],
        "unreadable": _unreadable(plan),
    }


def report(report: Report) -> dict[str, Json]:
    return {
        "format_version": FORMAT_VERSION,
        "interrupted": report.interrupted,
        "seconds": round(report.seconds, 3),
        "summary": {str(status): report.count(status) for status in Status},
        "outcomes": [_outcome(outcome) for outcome in report.outcomes],
    }


def models(
    rows: "Sequence[Row]", adapters: "Sequence[AdapterRow]", cached: "Sequence[Cached] | None" = None
) -> dict[str, Json]:
    """`cached` is what the cache holds and nobody declares here; None: it was not asked for."""
    return {
        "format_version": FORMAT_VERSION,
        "models": [
            {
                "model": row.model,
                "target": row.target,
                "state": row.state,
                "version": row.version,
                "pin": row.pin,
                "source": row.source,
                "size_bytes": row.size_bytes,
                "url": row.url,
                "images": list(row.images),
            }
            for row in rows
        ],
        "adapters": [dict(vars(row)) for row in adapters],
        "cached": None if cached is None else [entry(one) for one in cached],
    }


def validation(file: str, diagnostics: Sequence[Diagnostic]) -> dict[str, Json]:
    return {
        "format_version": FORMAT_VERSION,
        "file": file,
        "valid": not any(item.severity is Severity.ERROR for item in diagnostics),
        "diagnostics": [_diagnostic(d) for d in diagnostics],
    }


def locked(changed: Sequence[str], diagnostics: Sequence[Diagnostic], *, written: bool) -> dict[str, Json]:
    """Why models.lock is not what it was; `written`: now it holds that."""
    return {
        "format_version": FORMAT_VERSION,
        "changed": list(changed),
        "written": written,
        "diagnostics": [_diagnostic(d) for d in diagnostics],
    }


def outdated(looked: "Looked", engines: "Sequence[NewerEngine]") -> dict[str, Json]:
    """What moved upstream; `problem` says why `now` is not known (null), or may not be taken."""
    return {
        "format_version": FORMAT_VERSION,
        "asked": looked.asked,
        "unpinned": looked.unpinned,
        "sources": [
            {
                "model": one.key[0],
                "role": one.key[1],
                "source": one.locked.source,
                "version": one.locked.version,
                "locked": one.locked.pin,
                "now": one.now.pin if one.now else None,
                "changes": [
                    {"subject": c.subject, "text": c.text, "fetch_bytes": c.fetch_bytes} for c in one.changes
                ],
                "problem": one.problem.message if one.problem else None,
            }
            for one in looked.found
        ],
        "engines": [vars(one) for one in engines],
    }


def details(ones: "Sequence[Details]") -> dict[str, Json]:
    return {
        "format_version": FORMAT_VERSION,
        "models": [
            {
                "model": one.name,
                "declared": one.where,
                "sources": [_provenance(each) for each in one.sources],
                "resources": [_live(each) for each in one.resources],
            }
            for one in ones
        ],
    }


def _provenance(one: "Provenance") -> dict[str, Json]:
    chosen = one.filter
    return {
        "role": one.role,
        "source": one.source,
        "versions": list(one.versions),
        "pin": one.pin,
        "size_bytes": sum({file.sha256: file.size_bytes for file in one.files}.values()),
        "missing_bytes": one.missing_bytes,
        "left_out_bytes": one.left_out_bytes,
        "filter": None
        if chosen is None
        else {
            "include": list(chosen.include),
            "exclude": list(chosen.exclude),
            "format": chosen.format,
            "allow": dict(chosen.allow),
        },
        "facts": dict(vars(one.facts)),
        "cached": None if one.kept is None else dict(vars(one.kept)),
        "files": [dict(vars(file)) for file in one.files],
    }


def _live(one: "Live") -> dict[str, Json]:
    return {
        "address": one.address,
        "kind": one.kind,
        "state": one.state,
        "action": one.action,
        "reason": one.reason,
        "transfer": _transfer(one.transfer),
        "drift": _diffs(one.drift),
        "url": one.url,
        "id": one.remote_id,
        "digest": one.digest,
        "applied_at": one.commit,
        "fields": dict(one.fields),
    }


def _change(change: Change[Any]) -> dict[str, Json]:
    where = change.resource.where if change.resource else None
    return {
        "address": change.address,
        "kind": change.kind,
        "action": str(change.action),
        "reason": change.reason,
        "missing": change.missing,
        "diffs": _diffs(change.diffs),
        "drift": _diffs(change.drift),
        "transfer": _transfer(change.transfer),
        "where": str(where) if where else None,
    }


def _diffs(diffs: Sequence[FieldDiff]) -> list[Json]:
    return [{"path": d.path, "before": d.before, "after": d.after} for d in diffs]


def _transfer(transfer: Transfer) -> dict[str, Json]:
    return {
        "download_bytes": transfer.download_bytes,
        "push_bytes": transfer.push_bytes,
        "reused_bytes": transfer.reused_bytes,
        "exact": transfer.exact,
    }


def _unreadable(plan: Plan) -> list[Json]:
    return [
        {
            "address": address,
            "reason": unread.reason,
            "hint": unread.hint,
            "optional": address in plan.optional,
        }
        for address, unread in plan.unreadable.items()
    ]


def _diagnostic(item: Diagnostic) -> dict[str, Json]:
    return {
        "severity": str(item.severity),
        "summary": item.summary,
        "detail": item.detail,
        "where": str(item.where) if item.where else None,
        "hint": item.hint,
        "model": item.model,
    }


def _outcome(outcome: Outcome) -> dict[str, Json]:
    proof = outcome.proof
    return {
        "address": outcome.address,
        "action": str(outcome.action),
        "result": str(outcome.status),
        "seconds": round(outcome.seconds, 3),
        "error": outcome.error,
        "hint": outcome.hint,
        "endpoint": outcome.endpoint,
        "proof": {
            "url": proof.url,
            "prompt": proof.prompt,
            "answer": proof.answer,
            "seconds": round(proof.seconds, 3),
        }
        if proof
        else None,
    }
