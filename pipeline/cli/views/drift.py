"""`mp drift` as text: only where the world moved away from what was applied last."""

from collections.abc import Mapping

from pipeline.cli.views import changes, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.plan import header, not_read
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.core.plan import Plan
from pipeline.core.resource import said_of


def drift(plan: Plan, origin: Origin, sources: Mapping[str, str], ink: Ink = plain) -> str:
    """Every drifted resource with its fields, and one last line of fixed shape."""
    lines = []
    for change in plan.drifted:
        sigil = "-" if change.missing else "~"
        first, *others = hanging(f"{sigil} {clean(said_of(change.address))}  ", changes.drift(change))
        lines += [first.replace(sigil, ink("red" if change.missing else "yellow", sigil), 1), *others]
    errors = [diagnostics(plan.errors, sources, ink)] if plan.errors else []
    paragraphs = [[header(plan, origin, ink), *not_read(plan, ink)], lines, errors, _end(plan, ink)]
    return "\n\n".join("\n".join(part) for part in paragraphs if part)


def last_line(plan: Plan) -> str:
    missing = sum(1 for change in plan.drifted if change.missing)
    changed = len(plan.drifted) - missing
    same = len(plan.changes) - len(plan.drifted)
    return f"Drift: {changed} changed, {missing} missing, {same} as applied, {len(plan.unreadable)} not read."


def _end(plan: Plan, ink: Ink) -> list[str]:
    lines = (
        []
        if plan.complete and not plan.errors
        else [ink("bold red", "Incomplete: not everything could be read.")]
    )
    watched = sum(1 for change in plan.drifted if change.resource is not None and change.resource.watched)
    if back := len(plan.drifted) - watched:
        lines.append(f"`mp apply` puts {units.counted(back, 'resource')} back.")
    if watched:
        lines.append(f"{units.counted(watched, 'resource')} only observed: left alone.")
    if not plan.drifted and not lines:
        lines.append("No drift.")
    return [*lines, ink("bold", last_line(plan))]
