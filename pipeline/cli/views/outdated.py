"""`mp outdated` as text: what moved upstream, with what of it changed under each model."""

from collections.abc import Sequence

from pipeline.cli.views import units
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.engine.outdated import Difference, Looked, NewerEngine, Outdated
from pipeline.engine.parts import label


def outdated(looked: Looked, engines: Sequence[NewerEngine], root: str, ink: Ink = plain) -> str:
    """A block for every source and engine that moved, and one last line of fixed shape."""
    blocks = [_block(one, root, ink) for one in looked.found]
    blocks += [
        hanging(f"{ink('yellow', '~')} ", f"{e.template} ({e.variant})  engine {e.locked} → {e.newest}")
        for e in engines
    ]
    free = [one for one in looked.found if one.problem is None]
    if free or engines:
        names = " ".join(dict.fromkeys(one.key[0] for one in free))
        blocks.append([f"Take it over: mp lock --upgrade {names}".rstrip()])
    blocks.append([ink("bold", last_line(looked, engines))])
    return "\n\n".join("\n".join(lines) for lines in blocks)


def last_line(looked: Looked, engines: Sequence[NewerEngine]) -> str:
    moved = sum(1 for one in looked.found if one.moved)
    unknown = len(looked.found) - moved
    same = looked.asked - len(looked.found)
    return (
        f"Outdated: {units.counted(moved, 'source')} moved, {same} as pinned, {unknown} not known, "
        f"{looked.unpinned} not pinned yet, {units.counted(len(engines), 'newer engine')}."
    )


def _block(one: Outdated, root: str, ink: Ink) -> list[str]:
    source = units.source(one.locked.source, root)
    version = f" {one.locked.version}" if one.locked.version else ""
    head = f"{clean(label(one.key))}  {clean(source + version)}"
    if one.now is None:
        reason = one.problem.message if one.problem else "not known"
        lines = hanging("! ", f"{head}  {clean(reason)}")
        return [lines[0].replace("!", ink("bold red", "!"), 1), *lines[1:], *_hint(one)]
    pins = f"{units.pin(one.locked.pin)} → {units.pin(one.now.pin)}"
    first, *others = hanging("~ ", f"{head}  {pins}")
    return [
        first.replace("~", ink("yellow", "~"), 1),
        *others,
        *(line for c in one.changes for line in _change(c)),
        *(_refusal(one, ink) if one.problem else ()),
    ]


def _refusal(one: Outdated, ink: Ink) -> list[str]:
    """Why what it is now may not be taken."""
    assert one.problem is not None
    first, *others = hanging("  ! refused: ", clean(one.problem.message))
    return [first.replace("!", ink("bold red", "!"), 1), *others, *_hint(one)]


def _hint(one: Outdated) -> list[str]:
    hint = one.problem.hint if one.problem else None
    return hanging("  hint: ", clean(hint)) if hint else []


def _change(change: Difference) -> list[str]:
    fetch = f", {units.transferred(change.fetch_bytes)} to fetch" if change.fetch_bytes else ""
    return hanging(f"  {clean(change.subject)}: ", clean(change.text) + fetch)
