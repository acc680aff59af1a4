"""One change in words: what it moves, why it is made, which fields differ. Used by the plan, drift and show views."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pipeline.cli.views import cluster, units
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.text import clean
from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.digest import Json
from pipeline.core.image import Build, Engine
from pipeline.core.model import Artifact, Model
from pipeline.core.resource import State, Transfer, fields_of, place_of

_NOWHERE = Origin()
_MOST = 6  # fields of one change; the others are counted
_FLAGS = re.compile(r"(?:^|/)argv(?:/\d+)?$")
_CALLED_BY_KIND = ("artifact", "image", "engine", "environment")
_SAID_ANYWAY = frozenset({"", "not there", "changed"})


def parts(change: Change[Any], origin: Origin = _NOWHERE) -> list[str]:
    """What a change does and why; a view puts as many parts on a line as fit."""
    words = [*_origin(change, origin), *_moved(change, origin), _left_out(change)]
    if change.reason not in _SAID_ANYWAY:
        words.append(units.short(clean(change.reason)))
    match change.action:
        case Action.CREATE if change.resource is not None:
            words.append(", ".join(filter(None, [_deployed(change), size(change.resource.desired)])))
            words.append(_packages(change))
        case Action.UPDATE | Action.REPLACE | Action.ADOPT:
            words += differences(change.diffs, _live(change), _desired(change))
        case _:
            pass
    return [word for word in words if word]


def artifact(change: Change[Any]) -> Artifact | None:
    """The files of one source that a change brings into the cache."""
    held = getattr(change.resource.desired, "artifact", None) if change.resource else None
    return held if isinstance(held, Artifact) else None


def version(found: Artifact, before: str | None, origin: Origin) -> str:
    """Where an artifact comes from, or from which pin to which it moves."""
    if before and before != found.pin:
        return f"version {units.pin(before)} → {units.pin(found.pin)}"
    source = units.source(found.source, origin.root)
    return " ".join(clean(f"{source} {found.version} ({units.pin(found.pin)})").split())


def _origin(change: Change[Any], origin: Origin) -> list[str]:
    """Of a source beside the weights; theirs is said of the model as a whole."""
    found = artifact(change)
    if found is None or place_of(change.address) is None:
        return []
    return [version(found, origin.pins.get(change.address), origin)]


def _left_out(change: Change[Any]) -> str:
    found = artifact(change)
    if found is None or not found.left_out_bytes or change.action is Action.NOOP:
        return ""
    return f"leaves out {units.transferred(found.left_out_bytes)} of duplicates"


def straight(change: Change[Any]) -> Model | None:
    """The model whose bytes go from their source into this image and are kept nowhere between."""
    recipe = getattr(change.resource.desired, "recipe", None) if change.resource else None
    model = getattr(recipe, "model", None)
    return model if isinstance(model, Model) and not model.cached else None


def _moved(change: Change[Any], origin: Origin) -> list[str]:
    """What moves; of what is not kept here also from where, and through which machine."""
    moves, model = change.transfer, straight(change)
    if model is None or not moves.download_bytes:
        return [units.moved(moves)]
    pushed, read = units.transferred(moves.push_bytes), units.transferred(moves.download_bytes)
    share = "" if pushed == read else f", {read} of it"
    sources = list(dict.fromkeys(units.source(one.source, origin.root) for one in model.artifacts.values()))
    named = " and ".join(sources[:2]) + (f" and {len(sources) - 2} more" if sources[2:] else "")
    machine = f"this machine ({clean(origin.machine)})" if origin.machine else "this machine"
    way = f"straight from {clean(named)} through {machine}, nothing kept"
    out = units.moved(Transfer(push_bytes=moves.push_bytes, exact=moves.exact))
    return [f"{out}{share} {way}", units.moved(Transfer(reused_bytes=moves.reused_bytes))]


def drift(change: Change[Any]) -> str:
    """What moved in the world: last applied → live."""
    watched = change.resource is not None and change.resource.watched
    if change.missing:
        return "is not there" if watched else "was applied and is not there any more"
    applied = _desired(change) if watched else _applied(change)
    return "; ".join(differences(change.drift, applied, _live(change)))


def _deployed(change: Change[Any]) -> str:
    """The kind of a new deployment; what is no deployment is called by its kind already."""
    return "" if change.kind in _CALLED_BY_KIND else change.kind


def installs(change: Change[Any]) -> bool:
    """Whether an engine's packages are fetched for it: nobody knows how large they are before that."""
    return change.action is Action.CREATE and _engine(change) is not None


def _engine(change: Change[Any]) -> Engine | None:
    """What an environment or an engine image is made from."""
    desired = change.resource.desired if change.resource else None
    found = getattr(getattr(desired, "build", desired), "engine", None)
    return found if isinstance(found, Engine) else None


def _packages(change: Change[Any]) -> str:
    engine = _engine(change)
    if engine is None:
        return ""
    place = urlsplit(engine.index).hostname or engine.index
    build = getattr(change.resource.desired, "build", None) if change.resource else None
    made_for = ""
    if isinstance(build, Build) and build.others:
        made_for = f"for {' and '.join(part.engine.platform for part in build.parts)}, "
    return f"{made_for}{units.counted(len(engine.requirements), 'package')} from {place}, size not known"


def size(state: State) -> str:
    """What a deployment takes: "2 GPUs, 48 GiB memory, port 8000"; nothing for what takes none of it."""
    names = ("replicas", "gpus", "cpus", "memory_bytes", "port")
    fields = fields_of(state)
    held = {name: getattr(state, name, None) for name in names}
    held |= cluster.amounts(fields) if cluster.is_cluster(fields) else {}
    words = []
    for name, noun in (("replicas", "replica"), ("gpus", "GPU"), ("cpus", "core")):
        if number := held[name]:
            words.append(units.counted(number, noun))
    if held["memory_bytes"]:
        words.append(f"{units.memory(held['memory_bytes'])} memory")
    if isinstance(held["port"], int):
        words.append(f"port {held['port']}")
    return ", ".join(words)


def differences(diffs: Sequence[FieldDiff], before: Json, after: Json) -> list[str]:
    """Each field that differs, a few in full; an engine's flags by their names instead of their positions."""
    texts = list(dict.fromkeys(_texts(diffs, before, after)))
    left = len(texts) - _MOST
    return [*texts[:_MOST], f"and {units.counted(left, 'more field')}"] if left > 1 else texts


def _texts(diffs: Sequence[FieldDiff], before: Json, after: Json) -> Iterator[str]:
    if cluster.is_cluster(before) and cluster.is_cluster(after):
        found = [*cluster.readable_differences(before, after)]
        yield from (clean(each) for each in found if isinstance(each, str))
        others = [diff for diff in diffs if diff.path in ("digest", "mark")]
        diffs = [*others, *(each for each in found if isinstance(each, FieldDiff))]
        before, after = cluster.readable(before), cluster.readable(after)
    for diff in diffs:
        if _FLAGS.search(diff.path):
            path = re.sub(r"/\d+$", "", diff.path)
            yield from _flags(_at(before, path), _at(after, path))
        else:
            yield clean(units.difference(diff.path, diff.before, diff.after))


def _flags(before: Json, after: Json) -> Iterator[str]:
    """ "--max-model-len 4096 → 8192", "--enable-lora added"."""
    old, new = _by_flag(before), _by_flag(after)
    for flag in sorted(old.keys() | new.keys()):
        match old.get(flag), new.get(flag):
            case None, added:
                yield clean(f"{flag} {added}".strip() + " added")
            case gone, None:
                yield clean(f"{flag} {gone}".strip() + " removed")
            case one, other if one != other:
                yield clean(f"{flag} {one or 'none'} → {other or 'none'}")


def _by_flag(argv: Json) -> dict[str, str]:
    flags: dict[str, str] = {}
    flag = ""
    for word in map(str, argv if isinstance(argv, list) else []):
        if word.startswith("--"):
            flag, _, held = word.partition("=")
            flags[flag] = held
        else:
            flags[flag] = f"{flags.get(flag, '')} {word}".strip()
    return flags


def _at(value: Json, path: str) -> Json:
    for part in path.split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _live(change: Change[Any]) -> Json:
    return fields_of(change.observed.state) if change.observed else None


def _applied(change: Change[Any]) -> Json:
    applied = change.entry.applied if change.entry else {}
    return dict(change.resource.desired.compared(applied) if change.resource else applied)


def _desired(change: Change[Any]) -> Json:
    if change.observed is not None and change.observed.would_be is not None:
        return fields_of(change.observed.would_be)
    return fields_of(change.resource.desired) if change.resource else None
