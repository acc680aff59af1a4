"""What moved upstream since it was pinned, and what of it changed: `mp outdated`. Reads metadata and small files; pins nothing."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.core.diagnostic import Where
from pipeline.core.digest import Json
from pipeline.core.errors import MpError, Refused
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Source, SourceSpec
from pipeline.core.reference import scheme_of
from pipeline.engine.gathering import READERS
from pipeline.engine.parts import Key
from pipeline.engine.resolve import choose_variants, source_specs
from pipeline.engine.world import World
from pipeline.sources.kinds import RUNNING, WEIGHTS, Kind, kind_of

CONFIGS = ("config.json", "generation_config.json", "adapter_config.json")  # compared key by key
MOST_BYTES = 10 << 20  # of a config that is read
HEAVY = WEIGHTS | {Kind.PICKLE}


@frozen
class Difference:
    """One thing that changed between two pins of a source."""

    subject: str  # "weights", "chat template", "licence", "gating", "tokenizer", "config.json", another file
    text: str  # "2 of 4 files", "rope_theta 10000 → 1000000"
    fetch_bytes: int = 0  # what taking it over would download


@frozen
class Outdated:
    """One source of a model that is not what is pinned, or that could not be asked."""

    key: Key  # model, role
    locked: Artifact
    now: (
        Artifact | None
    )  # None: `problem` says why it is not known; of what is refused without what may run code
    changes: tuple[Difference, ...]
    problem: MpError | None = None
    where: Where | None = None

    @property
    def moved(self) -> bool:
        """It was asked, and is something else now: also something that may not be taken."""
        return self.now is not None or isinstance(self.problem, Refused)


@frozen
class Looked:
    """What came of asking."""

    found: tuple[Outdated, ...]
    asked: int  # sources
    unpinned: int  # sources that models.lock does not hold as they are declared: mp lock comes first


@frozen
class NewerEngine:
    """An engine version that this mp knows and models.lock does not have yet."""

    template: str
    variant: str
    locked: str
    newest: str


def outdated(world: World, names: Iterable[str]) -> Looked:
    """Every pinned source of the named models that has moved. What is pinned by commit or digest cannot move."""
    declared = [(name, role, spec) for name in names for role, spec in source_specs(world, name).items()]
    keys = [(name, role) for name, role, spec in declared if world.lock.stale(name, role, spec) is None]
    with ThreadPoolExecutor(READERS, "outdated") as pool:
        found = tuple(one for one in pool.map(lambda key: _look(world, key), keys) if one is not None)
    return Looked(found, len(keys), len(declared) - len(keys))


def newer_engines(world: World, names: Iterable[str]) -> tuple[NewerEngine, ...]:
    """Engines that `mp lock --upgrade` would move, because nobody declares their version."""
    names = tuple(names)
    now, _ = choose_variants(world, names)
    anew, _ = choose_variants(world, names, anew=True)
    pairs = {
        (now[name], anew[name]) for name in now if name in anew and now[name].version != anew[name].version
    }
    found = {NewerEngine(new.template, new.name, old.version, new.version) for old, new in pairs}
    return tuple(sorted(found, key=lambda one: (one.template, one.variant, one.locked)))


def differences(
    old: Artifact, new: Artifact, read: Callable[[Artifact, FileEntry], bytes | None]
) -> tuple[Difference, ...]:
    """What changed between two pins of one source, most important first. `read` gives a small file's bytes."""
    return (*_weights(old, new), *_facts(old, new), *_configs(old, new, read), *_others(old, new))


def _look(world: World, key: Key) -> Outdated | None:
    name, role = key
    spec, locked = source_specs(world, name)[role], world.lock.artifact(name, role)
    assert locked is not None, "only what is pinned and fresh is asked for"
    where = world.document.where("models", name)
    source = world.sources[scheme_of(spec.reference)]
    try:
        now = source.resolve(spec, locked)
        if now.pin == locked.pin and now.files == locked.files and now.facts == locked.facts:
            return None
        return Outdated(key, locked, now, differences(locked, now, _reader(source)), where=where)
    except Refused as problem:
        rest = _harmless(source, spec)
        changes = differences(locked, rest, _reader(source)) if rest else ()
        return Outdated(key, locked, rest, changes, problem, where)
    except MpError as problem:
        return Outdated(key, locked, None, (), problem, where)


def _harmless(source: Source, spec: SourceSpec) -> Artifact | None:
    """What a refused source is without the files that may run code, to be compared; None where more is wrong."""
    chosen = replace(spec.filter, exclude=(*spec.filter.exclude, *RUNNING))
    try:
        return source.resolve(replace(spec, filter=chosen), None)
    except MpError:
        return None


def _reader(source: Source) -> Callable[[Artifact, FileEntry], bytes | None]:
    def read(artifact: Artifact, entry: FileEntry) -> bytes | None:
        try:
            with source.open(artifact, entry, 0) as stream:
                return stream.read(MOST_BYTES)
        except MpError:
            return None  # an older version may be gone: that it changed is known from its hash

    return read


def _weights(old: Artifact, new: Artifact) -> Iterator[Difference]:
    before, after = _by_path(old, weights=True), _by_path(new, weights=True)
    held = {entry.sha256 for entry in old.files}
    fresh = [entry for entry in after.values() if entry.sha256 not in held]
    if fresh:
        size_bytes = sum(entry.size_bytes for entry in fresh)
        yield Difference("weights", f"{len(fresh)} of {len(after)} files", size_bytes)
    elif before.keys() != after.keys():
        yield Difference("weights", f"{len(before)} → {len(after)} files, the same bytes")


def _facts(old: Artifact, new: Artifact) -> Iterator[Difference]:
    before, after = old.facts, new.facts
    if before.chat_template_sha256 != after.chat_template_sha256:
        yield Difference("chat template", _appeared(before.chat_template_sha256, after.chat_template_sha256))
    if before.license != after.license:
        yield Difference("licence", f"{before.license or 'none named'} → {after.license or 'none named'}")
    elif before.license_sha256 != after.license_sha256:
        yield Difference("licence", f"its text {_appeared(before.license_sha256, after.license_sha256)}")
    if before.gated != after.gated:
        yield Difference("gating", "its terms must be accepted now" if after.gated else "it is open now")


def _configs(
    old: Artifact, new: Artifact, read: Callable[[Artifact, FileEntry], bytes | None]
) -> Iterator[Difference]:
    before, after = _by_path(old, weights=False), _by_path(new, weights=False)
    for path in CONFIGS:
        one, other = before.get(path), after.get(path)
        if one is None or other is None or one.sha256 == other.sha256:
            continue
        keys = list(_keys(_flat(read(old, one)), _flat(read(new, other))))
        yield from (Difference(path, key) for key in keys)
        if not keys:
            yield Difference(path, "changed")


def _keys(before: Mapping[str, Json] | None, after: Mapping[str, Json] | None) -> Iterator[str]:
    if before is None or after is None:
        return
    for key in sorted({*before, *after}):
        if key not in after:
            yield f"{key} {_shown(before[key])} is gone"
        elif key not in before:
            yield f"{key} {_shown(after[key])} is new"
        elif before[key] != after[key]:
            yield f"{key} {_shown(before[key])} → {_shown(after[key])}"


def _others(old: Artifact, new: Artifact) -> Iterator[Difference]:
    """The tokenizer together, every other small file by itself; code is what allowed lists let through."""
    before, after = _by_path(old, weights=False), _by_path(new, weights=False)
    changed = [p for p in sorted({*before, *after}) if _sha256(before.get(p)) != _sha256(after.get(p))]
    if tokenizer := [path for path in changed if _is_tokenizer(path)]:
        yield Difference("tokenizer", ", ".join(tokenizer))
    for path in changed:
        if not _is_tokenizer(path) and path not in (*CONFIGS, "chat_template.jinja"):
            yield Difference(path, _appeared(_sha256(before.get(path)), _sha256(after.get(path))))


def _by_path(artifact: Artifact, *, weights: bool) -> dict[str, FileEntry]:
    return {e.path: e for e in artifact.files if (kind_of(e.path) in HEAVY) is weights}


def _is_tokenizer(path: str) -> bool:
    name = path.rpartition("/")[2]
    known = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sentencepiece")
    return name.startswith(known) or name.endswith(".tiktoken")


def _sha256(entry: FileEntry | None) -> str | None:
    return entry.sha256 if entry else None


def _appeared(before: str | None, after: str | None) -> str:
    if before is None:
        return "new"
    return "gone" if after is None else "changed"


def _flat(content: bytes | None) -> dict[str, Json] | None:
    """A JSON document with nested keys as "rope_scaling.factor"; None when it is none."""
    try:
        document = json.loads(content) if content is not None else None
    except ValueError:
        return None
    return dict(_leaves(document, "")) if isinstance(document, dict) else None


def _leaves(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def _shown(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"
