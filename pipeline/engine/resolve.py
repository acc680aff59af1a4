"""From what is declared to what is pinned: every model's artifact, engine and places, from the lock or resolved anew.

Reads metadata only. What the lock does not hold is resolved in memory; apply writes it first, `--locked` refuses.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.core.diagnostic import Diagnostic, Where, error, warning
from pipeline.core.errors import Missing, MpError
from pipeline.core.image import Engine, Registry, Variant
from pipeline.core.model import Artifact, Hardware, Lifecycle, Model, Overlay, Question, Secret
from pipeline.core.protocols import Place, SourceSpec
from pipeline.engine.compose import Placed
from pipeline.engine.world import World
from pipeline.manifest.lock import engine_key
from pipeline.manifest.places import HardwareSpec
from pipeline.manifest.spec import Manifest, ModelSpec
from pipeline.resources.pin import unpinned
from pipeline.sources import NEAR, parse_source, scheme_of

READERS = 8  # metadata requests at once
CHAT_TEMPLATE = "chat_template.jinja"  # transformers and vLLM both prefer this file to tokenizer_config.json
OWN_REGISTRY = "here"  # a layout below .mp, where none is declared
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Pins:
    """What is pinned now, and why it differs from the lock that was read."""

    artifacts: Mapping[str, Artifact]  # by model
    specs: Mapping[str, SourceSpec]  # by model
    engines: Mapping[str, Engine]  # by manifest.lock.engine_key
    stale: tuple[str, ...]  # 'tiny: version "main" → "v2"', empty when the lock is fresh
    diagnostics: tuple[Diagnostic, ...]


def pin_artifacts(world: World, names: Iterable[str], upgrade: frozenset[str] = frozenset()) -> Pins:
    """The artifact of every named model: the lock's where it is fresh, else resolved from its source."""
    specs = {name: source_spec(world, name) for name in names}
    fresh, stale = _sorted_out(world, specs, upgrade)
    if world.locked and stale:
        return Pins(fresh, specs, {}, tuple(f"{n}: {why}" for n, why in stale.items()), ())

    def resolve(name: str) -> Artifact:
        locked = world.lock.models.get(name)
        source = world.sources[scheme_of(specs[name].reference)]
        return source.resolve(specs[name], locked.artifact if locked else None)

    found, problems = _gather(stale, resolve, lambda name: _where_source(world, name))
    changed = tuple(f"{n}: {why}" for n, why in stale.items() if n in found and _differs(world, n, found[n]))
    return Pins({**fresh, **found}, specs, {}, changed, problems)


def _sorted_out(
    world: World, specs: Mapping[str, SourceSpec], upgrade: frozenset[str]
) -> tuple[dict[str, Artifact], dict[str, str]]:
    """Artifacts that the lock holds and that are still right, and why the others are not."""
    fresh: dict[str, Artifact] = {}
    stale: dict[str, str] = {}
    for name, spec in specs.items():
        locked = world.lock.models.get(name)
        reason = "upgrade was asked for" if name in upgrade else world.lock.stale_model(name, spec)
        if locked is not None and reason is None and _has_changed(world, spec, locked.artifact):
            reason = "the folder has changed"
        if locked is None or reason is not None:
            stale[name] = reason or "not in models.lock"
        else:
            fresh[name] = locked.artifact
    return fresh, stale


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


def locked_engines(world: World, wanted: Mapping[str, Variant]) -> Pins:
    """The engines of these variants that models.lock holds and that are still what the manifest asks for."""
    fresh = {
        key: world.lock.engines[key] for key, v in wanted.items() if _stale_engine(world, key, v) is None
    }
    return Pins({}, {}, fresh, (), ())


def pin_engines(world: World, wanted: Mapping[str, Variant], *, anew: bool = False) -> Pins:
    """The engine of every wanted variant, by engine key: the lock's, else (or when `anew`) resolved, which takes seconds."""
    fresh = {} if anew else locked_engines(world, wanted).engines
    stale = {
        key: _stale_engine(world, key, variant) or "upgrade was asked for"
        for key, variant in wanted.items()
        if key not in fresh
    }
    changed = tuple(f"engine {key}: {why}" for key, why in stale.items())
    if world.locked:
        return Pins({}, {}, fresh, changed, ())

    def pin(key: str) -> Engine:
        return world.pin_engine(wanted[key], world.platform, _base(world, wanted[key]))

    found, problems = _gather(stale, pin, lambda key: None)
    return Pins({}, {}, {**fresh, **found}, changed, problems)


def place_models(
    world: World, pins: Pins, names: Iterable[str]
) -> tuple[tuple[Placed, ...], tuple[Diagnostic, ...]]:
    """Models ready to compose; engines that `pins` does not hold are left open (nothing may be built from them)."""
    placed: list[Placed] = []
    problems: list[Diagnostic] = []
    registries = registries_of(world)
    for name in names:
        if name not in pins.artifacts:
            continue
        try:
            placed.append(_place(world, name, pins, registries))
        except LookupError as problem:
            problems.append(error(f"{name}: {problem}", world.document.where("models", name), model=name))
    return tuple(placed), tuple(problems)


def source_spec(world: World, name: str) -> SourceSpec:
    """A model's source as its source room understands it."""
    spec = world.manifest.models[name]
    reference = parse_source(spec.source, world.settings.root)
    return SourceSpec(reference, spec.version or "", tuple(spec.files.include), tuple(spec.files.exclude))


def variant_of(world: World, name: str) -> Variant:
    """The engine variant a model wants. Raises LookupError with the versions there are."""
    spec = world.manifest.models[name]
    template = template_of(world, name)
    declared = world.manifest.engines.get(template)
    version = (spec.engine.version if spec.engine else None) or (declared.version if declared else None)
    return world.templates[template].variant(version, hardware_of(world, name))


def template_of(world: World, name: str) -> str:
    template = world.manifest.models[name].template or world.manifest.defaults.template
    assert template is not None, "the manifest's reader asks for it"
    return template


def hardware_of(world: World, name: str) -> Hardware:
    key = world.manifest.models[name].hardware or world.manifest.defaults.hardware
    if key is None:
        return Hardware("cpu", 0)
    return _hardware(key, world.manifest.hardware[key])


def registries_of(world: World) -> dict[str, Registry]:
    """The declared registries; layout folders are relative to the manifest's folder."""
    return {
        name: Registry(
            name,
            spec.url,
            str((world.settings.root / spec.layout).absolute()) if spec.layout else None,
            spec.insecure,
        )
        for name, spec in world.manifest.registries.items()
    }


def _hardware(name: str, spec: HardwareSpec) -> Hardware:
    return Hardware(name, spec.gpus, spec.gpu, spec.gpu_memory_gib, spec.cpu, spec.memory_bytes)


def _place(world: World, name: str, pins: Pins, registries: Mapping[str, Registry]) -> Placed:
    spec = world.manifest.models[name]
    variant = variant_of(world, name)
    engine = pins.engines.get(engine_key(variant, world.platform)) or unpinned(
        variant, world.platform, _base(world, variant)
    )
    model = _model(world, name, spec, pins.artifacts[name], engine)
    places, kinds = [], []
    for target, options in spec.targets.items():
        declared = world.manifest.targets[target]
        places.append(
            Place(
                target,
                declared,
                options,
                _registry(world, declared, registries),
                world.manifest.project,
                world.settings.environment,
                world.document.where("models", name, "targets", target),
            )
        )
        kinds.append(declared.kind)
    return Placed(model, tuple(places), tuple(kinds))


def _registry(world: World, target: Any, registries: Mapping[str, Registry]) -> Registry:
    """The registry a target (of any kind) names, else the default, else the only one, else a layout of our own."""
    name = registry_name(world.manifest, target)
    if name == OWN_REGISTRY and name not in registries:
        return Registry(name, layout=str(world.settings.state / "registry"))
    return registries[name]


def registry_name(manifest: Manifest, target: Any) -> str:
    """The name of the registry that a target's images are in; it is part of their addresses."""
    named: str | None = getattr(target, "registry", None) or manifest.defaults.registry
    if named is None and len(manifest.registries) == 1:
        return next(iter(manifest.registries))
    return named or OWN_REGISTRY


def _model(world: World, name: str, spec: ModelSpec, artifact: Artifact, engine: Engine) -> Model:
    values = {key: value for key, value in spec.env.items() if isinstance(value, str)}
    secrets = {
        key: _secret(world, value.secret) for key, value in spec.env.items() if not isinstance(value, str)
    }
    return Model(
        name,
        artifact,
        hardware_of(world, name),
        template_of(world, name),
        engine,
        _overlays(world, spec),
        spec.serve.max_model_len,
        spec.serve.args,
        values,
        secrets,
        _secret(world, spec.serve.api_key.secret) if spec.serve.api_key else None,
        tuple(Question(test.prompt, test.expect.contains if test.expect else None) for test in spec.test),
        Lifecycle(spec.lifecycle.protect, spec.lifecycle.on_remove),
        world.document.where("models", name),
    )


def _secret(world: World, name: str) -> Secret:
    return Secret(name, world.manifest.secrets[name].env)


def _overlays(world: World, spec: ModelSpec) -> tuple[Overlay, ...]:
    if spec.chat is None or spec.chat.template is None:
        return ()
    file = (world.settings.root / spec.chat.template).absolute()
    body = file.read_bytes()
    return (Overlay(CHAT_TEMPLATE, hashlib.sha256(body).hexdigest(), len(body), str(file)),)


def _base(world: World, variant: Variant) -> str | None:
    declared = world.manifest.engines.get(variant.template)
    return declared.base if declared else None


def _stale_engine(world: World, key: str, variant: Variant) -> str | None:
    """Why a locked engine is not what the manifest asks for; None when it is."""
    locked, base = world.lock.engines.get(key), _base(world, variant)
    if locked is None:
        return "not in models.lock"
    name, _, digest = (base or variant.base).partition("@")
    if locked.base != name or (digest and locked.base_digest != digest):
        return f'base "{locked.base}" → "{base or variant.base}"'
    if locked.python != variant.python:
        return f"python {locked.python} → {variant.python}"
    return None


def _where_source(world: World, name: str) -> Where:
    return world.document.where("models", name, "source")


def _differs(world: World, name: str, artifact: Artifact) -> bool:
    locked = world.lock.models.get(name)
    return locked is None or locked.artifact != artifact


def _gather(
    keys: Mapping[str, str], read: Callable[[str], Value], where: Callable[[str], Where | None]
) -> tuple[dict[str, Value], tuple[Diagnostic, ...]]:
    """Read every key side by side; what fails is a diagnostic, the others go on."""
    found: dict[str, Value] = {}
    problems: list[Diagnostic] = []

    def attempt(key: str) -> Value | MpError:
        try:
            return read(key)
        except MpError as problem:
            return problem

    if not keys:
        return found, ()
    with ThreadPoolExecutor(max_workers=min(READERS, len(keys)), thread_name_prefix="resolve") as pool:
        for key, result in zip(keys, pool.map(attempt, keys), strict=True):
            if isinstance(result, MpError):
                problems.append(error(f"{key}: {result.message}", where(key), result.hint, key))
            else:
                found[key] = result
    return found, tuple(problems)


def open_bases(pins: Pins, built: frozenset[str]) -> tuple[Diagnostic, ...]:
    """A remark for every engine whose image is wanted (`built`: Engine.key) and whose base has no digest yet."""
    return tuple(
        warning(
            f'engine {key}: base "{engine.base}" could not be resolved to a digest here: its image cannot be built',
            hint=f"name a base that this machine reaches: engines: {{{engine.template}: {{base: …@sha256:…}}}}",
        )
        for key, engine in sorted(pins.engines.items())
        if engine.base_digest is None and engine.key in built
    )


def merge(one: Pins, other: Pins) -> Pins:
    return replace(
        one,
        engines={**one.engines, **other.engines},
        stale=(*one.stale, *other.stale),
        diagnostics=(*one.diagnostics, *other.diagnostics),
    )
