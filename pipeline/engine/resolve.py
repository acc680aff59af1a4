"""From what is declared to what is pinned: every model's artifact and engine, from the lock or resolved anew.

Reads metadata only. What the lock does not hold is resolved in memory; apply writes it first, `--locked` refuses.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.core.diagnostic import Diagnostic, Where, error, warning
from pipeline.core.errors import Missing, MpError
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Variant
from pipeline.core.model import WEIGHTS, Artifact
from pipeline.core.protocols import SourceSpec
from pipeline.core.reference import parse, scheme_of
from pipeline.engine.gathering import gather
from pipeline.engine.parts import Declared, Key, declared, label
from pipeline.engine.world import World
from pipeline.manifest.lock import engine_key
from pipeline.manifest.stated import engine_version_of, hardware_of, template_of
from pipeline.sources import NEAR, trusted_at_first


@frozen
class Wanted:
    """An engine that is to be pinned."""

    variant: Variant
    platform: str


@frozen
class Pins:
    """What is pinned now, and why it differs from the lock that was read."""

    models: Mapping[str, Mapping[str, Artifact]]  # by name and role
    engines: Mapping[str, Engine]  # by manifest.lock.engine_key
    stale: tuple[str, ...]  # 'tiny: version "main" → "v2"', empty when the lock is fresh
    diagnostics: tuple[Diagnostic, ...]
    refusals: tuple[Diagnostic, ...] = ()  # sources that may not be used: code, pickles, wrong signatures


def pin_artifacts(
    world: World, names: Iterable[str], upgrade: frozenset[str] = frozenset(), *, cached: bool = True
) -> Pins:
    """The artifacts of every named model: the lock's where they are fresh, else resolved from their sources.

    Without `cached` nothing that has to be read for its hash stays on this disk.
    """
    specs = {
        (name, role): spec
        for name in names
        for role, spec in source_specs(world, name, cached=cached).items()
    }
    fresh, stale = _sorted_out(world, specs, upgrade)
    if world.locked and stale:
        return Pins(_by_model(specs, fresh), {}, tuple(f"{label(k)}: {why}" for k, why in stale.items()), ())

    def resolve(key: Key) -> Artifact:
        source = world.sources[scheme_of(specs[key].reference)]
        return source.resolve(specs[key], world.lock.artifact(*key))

    found, problems, refused = gather(stale, resolve, lambda key: _where_source(world, key), label)
    changed = tuple(
        f"{label(key)}: {why}"
        for key, why in stale.items()
        if key in found and world.lock.artifact(*key) != found[key]
    )
    gone = tuple(
        f"{label((name, role))}: no longer declared"
        for name in dict.fromkeys(name for name, _ in specs)
        for role in world.lock.models.get(name, {})
        if (name, role) not in specs
    )
    remarks = tuple(
        _trusted(world, key, artifact) for key, artifact in found.items() if trusted_at_first(artifact)
    )
    return Pins(_by_model(specs, {**fresh, **found}), {}, (*changed, *gone), (*problems, *remarks), refused)


def choose_variants(
    world: World, names: Iterable[str], *, anew: bool = False
) -> tuple[dict[str, Variant], tuple[Diagnostic, ...]]:
    """The engine variant of every named model. A version nobody declared stays the locked one until `anew`."""
    chosen: dict[str, Variant] = {}
    problems: list[Diagnostic] = []
    for name in names:
        try:
            chosen[name] = _variant(world, name, anew=anew)
        except LookupError as problem:
            problems.append(error(f"{name}: {problem}", world.document.where("models", name), model=name))
    return chosen, tuple(problems)


def wanted_engines(world: World, variants: Iterable[Variant]) -> dict[str, Wanted]:
    """Every variant on every platform that its images are made for, by engine key."""
    return {
        engine_key(variant, platform): Wanted(variant, platform)
        for variant in variants
        for platform in platforms_of(world, variant.template)
    }


def platforms_of(world: World, template: str) -> tuple[str, ...]:
    """What a template's images are made for, this machine's platform first; that alone where nothing is said."""
    spec = world.manifest.engines.get(template)
    declared = spec.platforms if spec and spec.platforms else (world.platform,)
    return tuple(sorted(declared, key=lambda platform: (platform != world.platform, platform)))


def locked_engines(world: World, wanted: Mapping[str, Wanted]) -> dict[str, Engine]:
    """The engines that models.lock holds and that are still what the manifest asks for."""
    return {
        key: world.lock.engines[key]
        for key, one in wanted.items()
        if _stale_engine(world, key, one.variant) is None
    }


def pin_engines(world: World, wanted: Mapping[str, Wanted], *, anew: bool = False) -> Pins:
    """The engine of every wanted variant, by engine key: the lock's, else (or when `anew`) resolved, which takes seconds."""
    fresh = {} if anew else locked_engines(world, wanted)
    stale = {
        key: _stale_engine(world, key, one.variant) or "upgrade was asked for"
        for key, one in wanted.items()
        if key not in fresh
    }
    changed = tuple(f"engine {key}: {why}" for key, why in stale.items())
    if world.locked:
        return Pins({}, fresh, changed, ())

    def pin(key: str) -> Engine:
        one = wanted[key]
        return world.pin_engine(one.variant, one.platform, base_of(world, one.variant))

    found, problems, refused = gather(stale, pin, lambda key: _where_engine(world, wanted[key].variant), str)
    return Pins({}, {**fresh, **found}, changed, problems, refused)


def source_specs(world: World, name: str, *, cached: bool = True) -> dict[str, SourceSpec]:
    """A model's sources by role, as their rooms understand them."""
    spec = world.manifest.models[name]
    return {
        role: _spec(world, one, kept=cached and spec.cache == "keep") for role, one in declared(spec).items()
    }


def _spec(world: World, one: Declared, *, kept: bool) -> SourceSpec:
    reference = parse(one.source, world.settings.root, world.manifest.aliases)
    return SourceSpec(reference.source, reference.version or one.version or "", one.filter, kept)


def base_of(world: World, variant: Variant) -> str | None:
    """The base image that `engines:` names for a variant's template."""
    declared = world.manifest.engines.get(variant.template)
    return declared.base if declared else None


def merge(one: Pins, other: Pins) -> Pins:
    return replace(
        one,
        engines={**one.engines, **other.engines},
        stale=(*one.stale, *other.stale),
        diagnostics=(*one.diagnostics, *other.diagnostics),
        refusals=(*one.refusals, *other.refusals),
    )


def _sorted_out(
    world: World, specs: Mapping[Key, SourceSpec], upgrade: frozenset[str]
) -> tuple[dict[Key, Artifact], dict[Key, str]]:
    """Artifacts that the lock holds and that are still right, and why the others are not."""
    fresh: dict[Key, Artifact] = {}
    stale: dict[Key, str] = {}
    for (name, role), spec in specs.items():
        locked = world.lock.artifact(name, role)
        reason = "upgrade was asked for" if name in upgrade else world.lock.stale(name, role, spec)
        if locked is not None and reason is None and _has_changed(world, spec, locked):
            reason = "the folder has changed"
        if locked is None or reason is not None:
            stale[name, role] = reason or "not in models.lock"
        else:
            fresh[name, role] = locked
    return fresh, stale


def _by_model(
    specs: Mapping[Key, SourceSpec], found: Mapping[Key, Artifact]
) -> dict[str, dict[str, Artifact]]:
    """Models of which every source is known."""
    models: dict[str, dict[str, Artifact]] = {}
    for name, role in specs:
        models.setdefault(name, {})
        if (name, role) in found:
            models[name][role] = found[name, role]
    roles = Counter(name for name, _ in specs)
    return {name: parts for name, parts in models.items() if len(parts) == roles[name]}


def _has_changed(world: World, spec: SourceSpec, locked: Artifact) -> bool:
    """A source on this machine has no version but its content: it is looked at every time, which needs no network.

    A folder that is not on this machine is as it was locked: the cache or a registry may have it.
    """
    scheme = scheme_of(spec.reference)
    if scheme not in NEAR:
        return False
    try:
        return world.sources[scheme].resolve(spec, locked) != locked
    except Missing:
        return False
    except MpError:
        return True  # it is resolved again, and then the reason is said


def _variant(world: World, name: str, *, anew: bool) -> Variant:
    template = world.templates[template_of(world.manifest, name)]
    version = engine_version_of(world.manifest, name)
    newest = template.variant(version, hardware_of(world.manifest, name))
    if version is not None or anew:
        return newest
    return template.variant(_locked_version(world, newest), hardware_of(world.manifest, name))


def _locked_version(world: World, newest: Variant) -> str | None:
    """The version that models.lock holds for those who name none: a new mp moves nobody's engine by itself."""
    declared = {spec.engine.version for spec in world.manifest.models.values() if spec.engine}
    platforms = platforms_of(world, newest.template)
    held = {
        e.version
        for e in world.lock.engines.values()
        if (e.template, e.variant) == (newest.template, newest.name) and e.platform in platforms
    }
    known = [v for v in world.templates[newest.template].versions() if v in held]
    return next((v for v in known if v not in declared), next(iter(known), None))


def _stale_engine(world: World, key: str, variant: Variant) -> str | None:
    """Why a locked engine is not what the manifest asks for; None when it is."""
    locked, base = world.lock.engines.get(key), base_of(world, variant)
    if locked is None:
        return "not in models.lock"
    name, _, digest = (base or variant.base).partition("@")
    if locked.base != name or (digest and locked.base_digest != digest):
        return f'base "{locked.base}" → "{base or variant.base}"'
    if locked.python != variant.python:
        return f"python {locked.python} → {variant.python}"
    return None


def _trusted(world: World, key: Key, artifact: Artifact) -> Diagnostic:
    return warning(
        f"{label(key)}: nobody said which bytes {artifact.source} must have: those of now are locked and trusted",
        _where_source(world, key),
        f'write version: "sha256:{artifact.files[0].sha256}" once you know that they are right',
        key[0],
    )


def _where_source(world: World, key: Key) -> Where:
    name, role = key
    return world.document.where("models", name, *([] if role == WEIGHTS else role.split(".")), "source")


def _where_engine(world: World, variant: Variant) -> Where | None:
    """Where an engine is declared; nowhere when it is the default."""
    declared = variant.template in world.manifest.engines
    return world.document.where("engines", variant.template) if declared else None
