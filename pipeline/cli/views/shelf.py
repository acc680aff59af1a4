"""The cache as text: what is in it, what was damaged, what goes and stays, what other caches hold, what was pulled."""

from collections import Counter
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from pipeline.cli.views import units
from pipeline.cli.views.entries import Fate, Pulled, day
from pipeline.cli.views.tables import Column, fitted
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.resources.cache.cached import Cached, distinct_bytes

if TYPE_CHECKING:  # a quick pull needs none of it
    from pipeline.resources.cache.adopt import Found
    from pipeline.resources.cache.reclaim import Reclaim
    from pipeline.resources.cache.shelf import Damage

UNKNOWN = "n/a"
_REFERENCE = Column("REFERENCE", 20, ends=True)
_COPY = (_REFERENCE, Column("VERSION", 7), Column("PIN"), Column("SIZE", right=True))
_PROBLEMS = {
    "missing": "is not there",
    "wrong": "had other bytes and was dropped",
    "extra": "is a file that nobody listed; it is left there",
}


def entries(found: Sequence[Cached], now: float, ink: Ink = plain) -> list[str]:
    """A table: one line an entry."""
    rows = [(*_copy(one), units.ago(now - one.used_at), _state(one)) for one in found]
    return fitted((*_COPY, Column("USED"), Column("STATE")), rows, ink, state=5)


def undeclared(found: Sequence[Cached], now: float, ink: Ink = plain) -> str:
    """The part of `mp list --cached` that is not in the manifest."""
    return "\n".join(entries(found, now, ink)) if found else "Nothing else."


def listed(found: Sequence[Cached], disk_bytes: int, now: float, ink: Ink = plain) -> str:
    """`mp cache list`: the table, and what it takes of the disk."""
    if not found:
        return "The cache holds no model."
    return "\n".join([*entries(found, now, ink), "", ink("bold", total(found, disk_bytes))])


def total(found: Sequence[Cached], disk_bytes: int) -> str:
    alone = sum(one.size_bytes for one in found)
    shared = f", {units.transferred(alone - disk_bytes)} saved by sharing" if alone > disk_bytes else ""
    return f"{_models(found)}: {units.transferred(disk_bytes)} on disk{shared}."


def verified(found: Sequence[Cached], damage: "Sequence[Damage]", read_bytes: int, ink: Ink = plain) -> str:
    """Each damaged file, and one last line of fixed shape."""
    lines = []
    for each in damage:
        first = f"{ink('red', '!')} {clean(each.source or UNKNOWN)} ({clean(units.pin(each.pin))})  "
        lines += hanging(first, f'"{clean(each.path)}" {_PROBLEMS[each.problem]}')
    if damage:
        lines += ["", "What was dropped is fetched again by the next mp apply or mp pull."]
    bad = len({(each.source, each.pin) for each in damage})
    last = f"Verified {_models(found)}, {units.transferred(read_bytes)} read: {bad} damaged, {len(found) - bad} sound."
    return "\n".join([*lines, ink("bold", last)])


def fates(found: Sequence[Fate], plan: "Reclaim", ink: Ink = plain) -> str:
    """What `mp cache prune` would remove and keep, each with its rule, and the bytes that this frees."""
    parts = []
    for title, goes, style in (("Goes", True, "red"), ("Stays", False, "green")):
        rows = [(*_copy(fate.entry), fate.rule) for fate in found if fate.goes is goes]
        if rows:
            shape = (*_COPY, Column("BECAUSE", 30))
            parts.append([ink(f"bold {style}", title), *fitted(shape, rows, ink)])
    if extra := _extra(plan):
        parts.append([f"And {', '.join(extra)} that nothing here needs."])
    parts.append([ink("bold", _frees(found, plan))])
    return "\n\n".join("\n".join(part) for part in parts)


def _frees(found: Sequence[Fate], plan: "Reclaim") -> str:
    if not plan.freed_bytes:
        return "Nothing to free."
    alone = distinct_bytes([fate.entry for fate in found if fate.goes])
    rest = "; the rest is shared with what stays" if alone > 2 * plan.freed_bytes else ""
    return f"Frees {units.transferred(plan.freed_bytes)}{rest}."


def _extra(plan: "Reclaim") -> list[str]:
    """What goes besides entries."""
    named = {file.sha256 for entry in plan.entries for file in entry.files}
    blobs = [blob for blob in plan.blobs if blob.name not in named]
    counts = (
        (len(blobs), "file"),
        (len(plan.views), "folder of links"),
        (len(plan.downloads), "broken download"),
        (len(plan.leftovers), "leftover name"),
    )
    plural = {"folder of links": "folders of links"}
    return [
        f"{count} {plural[noun]}" if count > 1 and noun in plural else units.counted(count, noun)
        for count, noun in counts
        if count
    ]


def freed(freed_bytes: int, ink: Ink = plain) -> str:
    return ink("bold", f"Freed {units.transferred(freed_bytes)}.")


def states(
    found: "Sequence[Found]",
    known: Container[int],
    taken: Container[int],
    problems: Container[int],
    *,
    move: bool,
) -> list[str]:
    """What became of each, or would; the sizes of these sets tell the last line."""

    def state(index: int) -> str:
        if index in problems:
            return "failed"
        if index in taken:
            return "moved" if move else "copied"
        return "here already" if index in known and not move else "to move" if move else "to copy"

    return [state(index) for index in range(len(found))]


def elsewhere(
    found: "Sequence[Found]", sizes_bytes: Sequence[int], states: Sequence[str], ink: Ink = plain
) -> str:
    """What other caches hold, and what becomes of it."""
    if not found:
        return "No cache of huggingface_hub or InstructLab with a model was found."
    rows = [
        (
            one.source,
            _versions(one.versions),
            units.pin(one.pin) or UNKNOWN,
            units.transferred(size_bytes),
            one.origin,
            f"{state}, {units.counted(len(one.absent), 'file')} missing" if one.absent else state,
        )
        for one, size_bytes, state in zip(found, sizes_bytes, states, strict=True)
    ]
    shape = (*_COPY, Column("FROM"), Column("STATE", 14))
    counts = Counter(states)
    last = f"{_models(found)}: {', '.join(f'{counts[state]} {state}' for state in counts)}."
    return "\n".join([*fitted(shape, rows, ink, state=5), "", ink("bold", last)])


def pulled(found: Sequence[Pulled], ink: Ink = plain) -> str:
    """For each source one line, and the folder below it, whole: it is there to be copied."""
    lines = []
    for one in found:
        version = f"{clean(one.artifact.version)} → " if one.artifact.version else ""
        role = f" ({one.role})" if one.role != "weights" else ""
        head = f"{ink('bold', clean(one.artifact.source))}{role}  {version}{clean(units.pin(one.artifact.pin))}  "
        lines += hanging(head, _came(one))
        if one is found[-1] or one.path != found[found.index(one) + 1].path:
            lines.append(f"  {one.path}")
    return "\n".join(lines)


def _came(one: Pulled) -> str:
    size = units.transferred(one.artifact.size_bytes)
    if one.fetched_bytes:
        fetched = units.transferred(one.fetched_bytes)
        part = "" if fetched == size else f"{fetched} of it "
        return f"{size}, {part}fetched in {units.duration(one.seconds)}"
    return f"{size}, here{f' since {day(one.since)}' if one.since else ' already'}"


def _copy(one: Cached) -> tuple[str, str, str, str]:
    size = units.transferred(one.size_bytes)
    return one.source or UNKNOWN, _versions(one.versions), units.pin(one.pin), size


def _versions(names: Sequence[str]) -> str:
    return ", ".join(names) or UNKNOWN


def _state(one: Cached) -> str:
    word = "complete" if one.complete else "damaged"
    return f"{word}, adapter" if one.kind == "adapter" else word


def _models(found: Sequence[object]) -> str:
    return units.counted(len(found), "model")
