"""What a change that ended leaves for `mp history`. Pure."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.change import Change
from pipeline.core.digest import fingerprint
from pipeline.core.report import Outcome
from pipeline.core.resource import fields_of
from pipeline.engine.crew import Crew
from pipeline.store.history import Past, Side

MOST_FIELDS = 8


def past_of(change: Change[Any], outcome: Outcome, crew: Crew) -> Past:
    return Past(
        at=crew.clock(),
        command=crew.command,
        run=crew.origin,
        commit=crew.commit,
        address=change.address,
        action=str(change.action),
        result=str(outcome.status),
        seconds=round(outcome.seconds, 1),
        before=_before(change),
        after=_after(change),
        changed=tuple(each.path for each in change.diffs[:MOST_FIELDS]),
        error=outcome.error,
        proof=outcome.proof,
    )


def origin_of(environ: Mapping[str, str]) -> str:
    """URL of the workflow run that this is, from what GitHub sets in every one (docs.github.com, default variables)."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (environ.get(name) for name in names)
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""


def _before(change: Change[Any]) -> Side:
    entry = change.entry
    if entry is None or not entry.applied:
        return Side()
    return Side(entry.contents, fingerprint(dict(entry.applied))[:12])


def _after(change: Change[Any]) -> Side:
    if change.resource is None:
        return Side()
    return Side(change.resource.contents, fingerprint(fields_of(change.resource.desired))[:12])
