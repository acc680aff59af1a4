"""What `mp prune` says of images: which go and stay, by which rule, and the bytes; as text and as JSON. The second section, weights, is views/shelf's."""

from collections.abc import Mapping

from pipeline.cli.views import units
from pipeline.cli.views.entries import FORMAT_VERSION
from pipeline.cli.views.tables import Column, fitted
from pipeline.cli.views.text import Ink, clean, hanging, plain
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError
from pipeline.engine.prune import ImageFate, Pruned, Pruning

UNKNOWN = "n/a"
_SHAPE = (
    Column("IMAGE", 24, ends=True),
    Column("VERSION", 7),
    Column("SIZE", right=True),
    Column("REGISTRY", 8, ends=True),
    Column("BECAUSE", 26),
)
_GARBAGE = "the registry frees them itself; docker-registry: garbage-collect, without --delete-untagged"


def images(plan: Pruning, ink: Ink = plain) -> str:
    """What goes and what stays, each with its rule, then what is left, then the bytes."""
    parts = []
    for title, goes, style in (("Images that go", True, "red"), ("Images that stay", False, "green")):
        if rows := [_row(fate, plan.names) for fate in plan.fates if fate.goes is goes]:
            parts.append([ink(f"bold {style}", title), *fitted(_SHAPE, rows, ink)])
    for location, problem in plan.unreadable.items():
        parts.append(_problem(f"Not read, left alone: {_name(location, plan.names)}: ", problem))
    if plan.left:
        count = sum(plan.left.values())
        parts.append(
            [
                f"{units.counted(count, 'tag')} that mp did not make {'is' if count == 1 else 'are'} left alone."
            ]
        )
    parts.append(_frees(plan, ink))
    return "\n\n".join("\n".join(part) for part in parts)


def pruned(done: Pruned, names: Mapping[str, str], weights_bytes: int, ink: Ink = plain) -> str:
    """What was done, and what could not be."""
    lines = [line for problem in done.problems for line in _problem("! ", problem)]
    freed = f"images {units.transferred(done.freed_bytes)}, weights {units.transferred(weights_bytes)}"
    lines.append(ink("bold", f"Removed {units.counted(done.images, 'image')}. Freed on this disk: {freed}."))
    return "\n".join([*lines, *_later(done.unreferenced_bytes, names, "are")])


def document(plan: Pruning, done: Pruned | None, weights: Json) -> dict[str, Json]:
    """`done` is None where nothing was removed: it was only asked what would be. `weights`: of views/entries."""
    return {
        "format_version": FORMAT_VERSION,
        "weights": weights,
        "images": [
            {
                "registry": fate.image.place.location,
                "repository": fate.image.place.repository,
                "tag": fate.image.tag,
                "digest": fate.image.digest,
                "version": fate.image.version or None,
                "size_bytes": fate.image.size_bytes,
                "goes": fate.goes,
                "rule": fate.rule,
            }
            for fate in plan.fates
        ],
        "left_tags": sum(plan.left.values()),
        "unreadable": [_told(where, problem) for where, problem in sorted(plan.unreadable.items())],
        "would_free_bytes": plan.freed_bytes,
        "would_unreference": _registries(plan.unreferenced_bytes),
        "removed": None if done is None else done.images,
        "freed_bytes": None if done is None else done.freed_bytes,
        "unreferenced": None if done is None else _registries(done.unreferenced_bytes),
        "problems": [] if done is None else [_told(one.system, one) for one in done.problems],
    }


def _row(fate: ImageFate, names: Mapping[str, str]) -> tuple[str, ...]:
    one = fate.image
    size = units.transferred(one.size_bytes)
    where = _name(one.place.location, names)
    return f"{one.place.repository}:{one.tag}", one.version or UNKNOWN, size, where, fate.rule


def _name(location: str, names: Mapping[str, str]) -> str:
    return names.get(location, location.removeprefix("layout:"))


def _problem(first: str, problem: BackendError) -> list[str]:
    hint = [f"  hint: {clean(problem.hint)}"] if problem.hint else []
    return [*hanging(clean(first), clean(problem.message)), *hint]


def _frees(plan: Pruning, ink: Ink) -> list[str]:
    if not plan.removals:
        return [ink("bold", "No image to free.")]
    lines = (
        [ink("bold", f"Frees {units.transferred(plan.freed_bytes)} on this disk.")]
        if plan.freed_bytes
        else []
    )
    return [*lines, *_later(plan.unreferenced_bytes, plan.names, "would be")]


def _later(sizes: Mapping[str, int], names: Mapping[str, str], verb: str) -> list[str]:
    """Of registries over HTTP, which free by themselves what no image names."""
    return [
        line
        for where, size_bytes in sizes.items()
        for line in hanging(
            f"{_name(where, names)}: ",
            f"{units.transferred(size_bytes)} {verb} named by no image any more; {_GARBAGE}.",
        )
    ]


def _told(where: str, problem: BackendError) -> dict[str, Json]:
    return {"registry": where, "problem": problem.message, "hint": problem.hint}


def _registries(sizes: Mapping[str, int]) -> list[Json]:
    return [{"registry": where, "bytes": size} for where, size in sorted(sizes.items())]
