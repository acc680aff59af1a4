"""A plan as text: models in manifest order, only what changes, every number with its unit. Read in ten seconds."""

from collections import Counter
from collections.abc import Mapping
from itertools import groupby

from pipeline.cli.views import changes, units
from pipeline.cli.views.blocks import Block, blocks, body
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.text import WIDTH, Ink, clean, columns, cut, hanging, packed, plain
from pipeline.core.change import Action
from pipeline.core.diagnostic import Diagnostic
from pipeline.core.plan import Plan, Rollout
from pipeline.core.resource import current_of, place_of, said_of

_MOST_UNLOCKED = 4  # named; the others are counted


KEPT_SHOWN = 5


def plan(plan: Plan, origin: Origin, sources: Mapping[str, str], ink: Ink = plain) -> str:
    """The whole plan; its last line never changes its shape. `sources`: texts for excerpts, by file."""
    shown = blocks(plan, origin)
    top = [header(plan, origin, ink), *_unlocked(origin), *not_read(plan, ink), *_left_out(plan, ink)]
    paragraphs = [top, *body(shown, ink), drift_lines(plan, ink)]
    if remarks := _remarks(plan, shown):
        paragraphs.append([diagnostics(remarks, sources, ink)])
    paragraphs.append(_end(plan, ink))
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def header(plan: Plan, origin: Origin, ink: Ink = plain) -> str:
    """Project and environment, the file and its commit, the lock, how much was read and how fast."""
    file = origin.file + (f"@{origin.commit[:7]}" if origin.commit else "")
    resources = units.counted(len(plan.changes) + len(plan.unreadable), "resource")
    pieces = [
        file + (" (edited)" if origin.edited else ""),
        f"lock {plan.lock}",
        f"{units.counted(plan.models, 'model')}, {resources} read in {units.duration(plan.read_seconds)}",
    ]
    first = cut(clean(f"{plan.project}/{plan.environment}"), WIDTH)
    lines = [first]
    for piece in map(clean, pieces):
        if columns(lines[-1]) + 2 + columns(piece) <= WIDTH:
            lines[-1] += f"  {piece}"
        else:
            lines.append(cut(f"  {piece}", WIDTH))
    lines[0] = ink("bold", first) + lines[0].removeprefix(first)
    return "\n".join(lines)


def _unlocked(origin: Origin) -> list[str]:
    """What is not pinned yet: apply pins it first."""
    if not origin.unlocked:
        return []
    left = len(origin.unlocked) - _MOST_UNLOCKED
    more = [f"and {left} more"] if left > 0 else []
    first = "To be locked: "
    lines = packed([*map(clean, origin.unlocked[:_MOST_UNLOCKED]), *more], WIDTH - len(first))
    return [(first if not number else " " * len(first)) + line for number, line in enumerate(lines)]


def not_read(plan: Plan, ink: Ink = plain) -> list[str]:
    """What could not be read, one line for each reason at each place."""
    reasons: dict[tuple[str, str, str | None, bool], int] = {}
    for address, unread in plan.unreadable.items():
        key = (place_of(current_of(address)) or address, unread.reason, unread.hint, address in plan.optional)
        reasons[key] = reasons.get(key, 0) + 1
    lines = []
    for (place, reason, hint, optional), number in reasons.items():
        notes = [*(["optional"] if optional else []), units.counted(number, "resource")]
        text = f"{clean(place)}: {clean(reason)} ({', '.join(notes)})"
        first, *others = hanging("Not read: ", text)
        style = "yellow" if optional else "bold red"
        lines += [first.replace("Not read:", ink(style, "Not read:"), 1), *others]
        lines += hanging("  hint: ", clean(hint)) if hint else []
    return lines


def _left_out(plan: Plan, ink: Ink) -> list[str]:
    """What would be done if all could be read, one line for each kind of step at each place."""
    found: Counter[tuple[str, str, str]] = Counter()
    for change in plan.changes:
        if change.address in plan.left_out:
            here = current_of(change.address)
            what = "it needs" if change.resource else "takes its place"
            found[place_of(here) or here, str(change.action), what] += 1
    lines = []
    for (place, action, what), number in found.items():
        text = (
            f"{clean(place)}: {units.counted(number, 'resource')} to {action}: what {what} could not be read"
        )
        first, *others = hanging("Left out: ", text)
        lines += [first.replace("Left out:", ink("yellow", "Left out:"), 1), *others]
    return lines


def _more(plan: Plan) -> str:
    further = len(plan.kept) - KEPT_SHOWN
    return f" and {further} more (mp list)" if further > 0 else ""


def last_line(plan: Plan) -> str:
    """Fixed: scripts and eyes know where to look."""
    counts = plan.count()
    usual = (Action.CREATE, Action.UPDATE, Action.REPLACE, Action.DELETE)
    text = ", ".join(f"{counts[action]} to {action}" for action in usual)
    rare = "".join(f", {counts[a]} to {a}" for a in (Action.ADOPT, Action.FORGET) if counts[a])
    return f"Plan: {text}, {counts[Action.NOOP]} unchanged{rare}."


def drift_lines(plan: Plan, ink: Ink = plain) -> list[str]:
    """Where the world moved away from what was applied last, and whether this plan puts it back."""
    lines = []
    for change in plan.drifted:
        alone = change.action is Action.NOOP or change.address in plan.left_out
        word = "Drift, left alone:" if alone else "Drift, put back:"
        first, *others = hanging(f"{word} ", f"{clean(said_of(change.address))} {changes.drift(change)}")
        lines += [first.replace(word, ink("yellow", word), 1), *others]
    return lines


def _remarks(plan: Plan, shown: list[Block]) -> list[Diagnostic]:
    """What does not stand in a model's block already; guards that say no come last."""
    told = [remark for block in shown for remark in block.remarks]
    return [*(d for d in plan.diagnostics if d not in told), *plan.refusals]


def waves(rollout: Rollout) -> str:
    """ "prod: 20 deployments in waves of 1, 2, 17; stops after 1 failure"."""
    total = units.counted(sum(map(len, rollout.waves)), "deployment")
    groups = [(size, len(list(same))) for size, same in groupby(map(len, rollout.waves))]
    sizes = ", ".join(f"{size}" if times == 1 else f"{size} ({times} times)" for size, times in groups)
    failures = units.counted(rollout.max_failures, "failure")
    return f"{clean(rollout.target)}: {total} in waves of {sizes}; stops after {failures} for one cause"


def _end(plan: Plan, ink: Ink) -> list[str]:
    lines = []
    if not plan.complete:
        lines.append("Incomplete: what could not be read, and what needs it, is left out.")
    if plan.errors:
        lines.append("Errors: nothing of this plan would be applied.")
    if plan.refusals:
        lines.append("Refused: nothing of this plan would be applied.")
    lines = [ink("bold red", line) for line in lines]
    if not plan.active and not lines:
        lines.append("No changes.")
    lines += [line for r in plan.rollouts if len(r.waves) > 1 for line in hanging("", waves(r))]
    if plan.kept:
        names = ", ".join(clean(said_of(entry.address)) for entry in plan.kept[:KEPT_SHOWN]) + _more(plan)
        images = "; mp prune frees images" if any(entry.keep for entry in plan.kept) else ""
        lines += hanging("Kept, no longer declared: ", names + images)
    moved = ((plan.transfer.download_bytes, "in"), (plan.transfer.push_bytes, "out"))
    if sums := [f"{units.transferred(size)} {way}" for size, way in moved if size]:
        most = "" if plan.transfer.exact else "at most "
        uncounted = "; packages not counted" if any(map(changes.installs, plan.active)) else ""
        lines.append(f"Transfer {most}{', '.join(sums)}{uncounted}.")
    return [*lines, ink("bold", last_line(plan))]
