"""The body of a plan: a block for each model, a line for each engine and environment, texts in one column."""

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from pipeline.cli.views import changes
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.reach import reach
from pipeline.cli.views.text import WIDTH, Ink, clean, columns, cut, packed, pad, sides
from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic, Severity
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact
from pipeline.core.plan import Plan
from pipeline.core.resource import Address, address, current_of, owner_of, place_of

SIGILS = {
    Action.NOOP: " ",
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.REPLACE: "-/+",
    Action.DELETE: "-",
    Action.ADOPT: "<=",
    Action.FORGET: ".",
}
STYLES = {
    Action.NOOP: "dim",
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.REPLACE: "magenta",
    Action.DELETE: "red",
    Action.ADOPT: "cyan",
    Action.FORGET: "dim",
}
_NOUNS = {"artifact": "weights", "weights": "weights image", "modelpack": "ModelPack"}
_ALONE = ("artifact", "image")  # kinds that are called by their noun; all others by their place
_FURTHEST = 40  # column at which the right-hand texts begin at the latest


@frozen
class Block:
    """The changes of one model, or of one engine or environment that models share."""

    owner: str  # "qwen3-8b", or the address of a shared thing
    changes: tuple[Change[Any], ...]
    headline: str = ""  # what the model is, when its weights move; why it goes, when it goes
    remarks: tuple[Diagnostic, ...] = ()
    origin: Origin = field(default_factory=Origin)
    reach: str = ""  # of a shared thing: what it makes again and restarts

    @property
    def shared(self) -> bool:
        return self.owner.startswith("@")

    @property
    def action(self) -> Action:
        """What happens to the model as a whole."""
        actions = {change.action for change in self.changes}
        one = actions.pop() if len(actions) == 1 else Action.UPDATE
        return Action.UPDATE if one is Action.REPLACE else one


def blocks(plan: Plan, origin: Origin) -> list[Block]:
    """What changes: shared things first, each alone; then models in plan order."""
    groups: dict[str, list[Change[Any]]] = {}
    for change in plan.active:
        owner = owner_of(change.address)
        groups.setdefault(str(change.address) if owner.startswith("@") else owner, []).append(change)
    remarks = [d for d in plan.diagnostics if d.model and d.severity is not Severity.ERROR]
    weights = {change.address: changes.artifact(change) for change in plan.changes}
    reached = reach(plan)
    found = [
        Block(
            owner,
            tuple(each),
            _headline(owner, each, weights.get(address(owner, "artifact")), origin),
            tuple(d for d in remarks if d.model == owner),
            origin,
            reached.get(each[0].address, ""),
        )
        for owner, each in groups.items()
    ]
    return sorted(found, key=lambda block: not block.shared)


def _headline(owner: str, found: Sequence[Change[Any]], weights: Artifact | None, origin: Origin) -> str:
    """Why it goes; or which version it moves to; or, of a new model and one whose weights move, what it is."""
    if all(change.action in (Action.DELETE, Action.FORGET) for change in found):
        return clean(found[0].reason)
    main = address(owner, "artifact")
    straight = next((model for change in found if (model := changes.straight(change))), None)
    artifact = straight.artifact if straight else weights
    if artifact is None:
        return ""
    before = origin.pins.get(main)
    new = all(change.action is Action.CREATE for change in found)
    told = new or straight or any(change.address == main for change in found)
    return changes.version(artifact, before, origin) if told or (before and before != artifact.pin) else ""


def body(found: Sequence[Block], ink: Ink) -> list[list[str]]:
    """Two paragraphs at most: shared things, models. Texts begin at one column in each."""
    shared = [block for block in found if block.shared]
    models = [block for block in found if not block.shared]
    return [_paragraph(group, ink) for group in (shared, models) if group]


def _paragraph(group: Sequence[Block], ink: Ink) -> list[str]:
    begin, sigil_width = _column(group), _sigil_width(group)
    return [line for block in group for line in _lines(block, begin, sigil_width, ink)]


def _column(group: Sequence[Block]) -> int:
    widths = [2 + columns(clean(block.owner)) for block in group]
    before = _sigil_width(group) + 1
    widths += [
        before + columns(name) for block in group if not block.shared for name in _names(block).values()
    ]
    return min(_FURTHEST, max(widths, default=0) + 2)


def _sigil_width(group: Sequence[Block]) -> int:
    """Sigils end in one column, two behind the model's; "-/+" needs room."""
    return 5 if any(c.action is Action.REPLACE for block in group for c in block.changes) else 3


def _lines(block: Block, begin: int, sigil_width: int, ink: Ink) -> Iterator[str]:
    if block.shared:
        change = block.changes[0]
        style = STYLES[change.action]
        yield from _row(
            SIGILS[change.action], clean(block.owner), changes.parts(change, block.origin), style, begin, ink
        )
        if block.reach:
            yield from _row("", "", [block.reach], style, begin, ink)
        return
    yield _title(block, begin, ink)
    names = _names(block)
    for change in block.changes:
        sigil = SIGILS[change.action].rjust(sigil_width)
        parts = [part for part in changes.parts(change, block.origin) if part != block.headline]
        yield from _row(sigil, names[change.address], parts, STYLES[change.action], begin, ink)
    for remark in block.remarks:
        yield from _row("!".rjust(sigil_width), "", [_remark(remark)], "yellow", begin, ink)


def _title(block: Block, begin: int, ink: Ink) -> str:
    """The model's own line: sigil, name, what it is or why it goes, and where it is written."""
    places = [c.resource.where for c in block.changes if c.resource and c.resource.where]
    where = cut(clean(f"{(first := min(places)).file}:{first.line}"), WIDTH // 3) if places else ""
    name = cut(clean(block.owner), WIDTH // 2)
    left = f"{ink(STYLES[block.action], SIGILS[block.action])} {ink('bold', name)}"
    if block.headline:
        left = f"{pad(left, begin - 2)}  "
        left += cut(block.headline, WIDTH - columns(where) - 2 - columns(left))
    return sides(left, ink("dim", where))


def _names(block: Block) -> dict[Address, str]:
    """What each line of a block is called: "weights", "image", "prod"; with the registry where there are two."""
    nouns = {c.address: c.address.split("/", 1)[-1].partition(":")[0] for c in block.changes}
    all_nouns = list(nouns.values())
    names = {}
    for change in block.changes:
        here = current_of(change.address)
        noun, place = nouns[change.address], place_of(here)
        if place and here != change.address:
            place = f"{place}, before"
        name = _NOUNS.get(noun, noun)
        if noun == "artifact" and place:  # a source beside the weights is called by its role
            name = place.replace("adapters.", "adapter ")
        elif change.kind not in _ALONE and place:
            name = place
        elif place and all_nouns.count(noun) > 1:
            name = f"{name} {place}"
        names[change.address] = cut(clean(name), WIDTH // 3)
    return names


def _row(sigil: str, name: str, parts: Sequence[str], style: str, begin: int, ink: Ink) -> Iterator[str]:
    """One line of a block, its texts hanging from the common column."""
    first, bare = f"{sigil} {name}", sigil.strip()
    indent = max(begin, columns(first) + 2)
    if indent > WIDTH // 2:  # a name so long that its text goes below it
        yield cut(first, WIDTH).replace(bare, ink(style, bare), 1)
        first, indent, bare = "", 6, ""
    for text in packed(parts, WIDTH - indent) or [""]:
        line = (pad(first, indent) + text).rstrip().replace(" → ", f" {ink('dim', '→')} ")
        if line:
            yield line.replace(bare, ink(style, bare), 1) if bare else line
        first, bare = "", ""


def _remark(remark: Diagnostic) -> str:
    summary = clean(remark.summary.removeprefix(f"{remark.model}: "))
    return summary + (f" ({clean(remark.hint)})" if remark.hint else "")
