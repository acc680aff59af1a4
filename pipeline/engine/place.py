"""Pinned models at their places: everything that targets and templates work with, from records and pins. Pure but for overlays.

A chat template of the user's is read here: it is small, beside models.yaml, and its hash is part of what is planned.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.clients.openai import DEFAULT_QUESTION
from pipeline.core.image import Engine, Registry, Variant
from pipeline.core.model import WEIGHTS, Artifact, Lifecycle, Model, Overlay, Part, Question, Secret
from pipeline.core.protocols import Place
from pipeline.engine.compose import Placed
from pipeline.engine.parts import declared
from pipeline.engine.resolve import base_of, hardware_of, platforms_of, template_of
from pipeline.engine.world import World
from pipeline.manifest.lock import engine_key
from pipeline.manifest.spec import Manifest, ModelSpec
from pipeline.resources.engine.pin import unpinned

CHAT_TEMPLATE = "chat_template.jinja"  # transformers and vLLM both prefer this file to tokenizer_config.json
OWN_REGISTRY = "here"  # a layout below .mp, where none is declared


@dataclass(frozen=True)
class Pinned:
    """What one model is made of: its files and its engine."""

    artifacts: Mapping[str, Artifact]  # by role
    engines: tuple[Engine, ...]  # one for each platform, this machine's first


def place_models(world: World, models: Mapping[str, Pinned], *, cached: bool = True) -> tuple[Placed, ...]:
    """Models ready to compose, each at all of its targets. Not `cached`: none of them may be kept on this disk."""
    registries = registries_of(world)
    placed = (_place(world, name, pinned, registries) for name, pinned in models.items())
    return tuple(one if cached else replace(one, model=replace(one.model, cached=False)) for one in placed)


def engines_of(world: World, variant: Variant, pinned: Mapping[str, Engine]) -> tuple[Engine, ...]:
    """The pinned engines of a variant, or open ones: enough to compose with, never to build."""
    return tuple(
        pinned.get(engine_key(variant, platform)) or unpinned(variant, platform, base_of(world, variant))
        for platform in platforms_of(world, variant.template)
    )


def registries_of(world: World) -> dict[str, Registry]:
    """The declared registries by name."""
    return declared_registries(world.manifest, world.settings.root)


def declared_registries(manifest: Manifest, root: Path) -> dict[str, Registry]:
    """The registries of a manifest; folders and files are relative to the manifest's folder."""

    def absolute(path: str | None) -> str | None:
        return str((root / path).absolute()) if path else None

    return {
        name: Registry(
            name,
            spec.url,
            absolute(spec.layout),
            spec.insecure,
            absolute(spec.ca),
            spec.mirrors,
            spec.max_layer_bytes,
            spec.max_request_bytes,
            "" if spec.compression == "none" else spec.compression,
            signed=manifest.sign is not None and spec.url is not None,
        )
        for name, spec in manifest.registries.items()
    }


def registry_name(manifest: Manifest, target: Any) -> str:
    """The name of the registry that a target's images are in; it is part of their addresses."""
    named: str | None = getattr(target, "registry", None) or manifest.defaults.registry
    if named is None and len(manifest.registries) == 1:
        return next(iter(manifest.registries))
    return named or OWN_REGISTRY


def _place(world: World, name: str, pinned: Pinned, registries: Mapping[str, Registry]) -> Placed:
    spec = world.manifest.models[name]
    places = tuple(p for p in places_of(world, name, registries) if not stands(p.options))
    return Placed(_model(world, name, spec, pinned), places, tuple(p.spec.kind for p in places))


def places_of(
    world: World, name: str, registries: Mapping[str, Registry] | None = None
) -> Iterable[Place[Any]]:
    """One model at each of its targets."""
    known = registries_of(world) if registries is None else registries
    for target, options in world.manifest.models[name].targets.items():
        spec = world.manifest.targets[target]
        yield Place(
            name=target,
            spec=spec,
            options=options,
            registry=_registry(world, spec, known),
            project=world.manifest.project,
            environment=world.settings.environment,
            where=world.document.where("models", name, "targets", target),
        )


def stands(options: Any) -> bool:
    """Whether others made what runs there; Any: each kind of target has options of its own."""
    return bool(getattr(options, "stands", False))


def _registry(world: World, target: Any, registries: Mapping[str, Registry]) -> Registry:
    """The registry a target (of any kind) names, else the default, else the only one, else a layout of our own."""
    name = registry_name(world.manifest, target)
    if name == OWN_REGISTRY and name not in registries:
        return Registry(name, layout=str(world.settings.state / "registry"))
    return registries[name]


def _model(world: World, name: str, spec: ModelSpec, pinned: Pinned) -> Model:
    parts = tuple(
        Part(role, pinned.artifacts[role], one.folder)
        for role, one in declared(spec).items()
        if role != WEIGHTS
    )
    return Model(
        name=name,
        artifact=pinned.artifacts[WEIGHTS],
        parts=parts,
        cached=spec.cache == "keep",
        hardware=hardware_of(world, name),
        template=template_of(world, name),
        engine=pinned.engines[0],
        other_engines=pinned.engines[1:],
        overlays=_overlays(world, spec),
        max_model_len=spec.serve.max_model_len,
        args=spec.serve.args,
        env={key: value for key, value in spec.env.items() if isinstance(value, str)},
        secret_env={
            k: secret_of(world.manifest, v.secret) for k, v in spec.env.items() if not isinstance(v, str)
        },
        api_key=secret_of(world.manifest, spec.serve.api_key.secret) if spec.serve.api_key else None,
        faces=spec.serve.faces,
        questions=_questions(spec, pinned.artifacts.values()),
        lifecycle=lifecycle_of(spec),
        where=world.document.where("models", name),
    )


def _questions(spec: ModelSpec, artifacts: Iterable[Artifact]) -> tuple[Question, ...]:
    """What the user wants asked, else a greeting; as a chat when there is a template to make a prompt with."""
    chat = spec.chat is not None or any(one.facts.chat_template_sha256 is not None for one in artifacts)
    if not spec.test:
        return (replace(DEFAULT_QUESTION, chat=chat),)
    return tuple(Question(t.prompt, t.expect.contains if t.expect else None, chat) for t in spec.test)


def lifecycle_of(spec: ModelSpec) -> Lifecycle:
    said = spec.lifecycle
    return Lifecycle(said.protect, said.on_remove, said.ignore_drift)


def secret_of(manifest: Manifest, name: str) -> Secret:
    declared = manifest.secrets[name]
    there = declared.kubernetes
    place = (there.name, there.key) if there else None
    return Secret(name, declared.env, declared.file, place, restarts=declared.on_rotate == "restart")


def _overlays(world: World, spec: ModelSpec) -> tuple[Overlay, ...]:
    if spec.chat is None or spec.chat.template is None:
        return ()
    file = (world.settings.root / spec.chat.template).absolute()
    body = file.read_bytes()
    return (Overlay(CHAT_TEMPLATE, hashlib.sha256(body).hexdigest(), len(body), str(file)),)
