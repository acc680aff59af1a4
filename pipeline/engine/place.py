"""Pinned models at their places: everything that targets and templates work with, from records and pins. Pure but for overlays.

A chat template of the user's is read here: it is small, beside models.yaml, and its hash is part of what is planned.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipeline.clients.openai import DEFAULT_QUESTION
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Registry, Variant
from pipeline.core.model import WEIGHTS, Artifact, Model, Overlay, Part, Question
from pipeline.core.protocols import Place
from pipeline.engine.compose import Placed
from pipeline.engine.parts import declared
from pipeline.engine.resolve import base_of, platforms_of
from pipeline.engine.world import World
from pipeline.manifest.lock import engine_key
from pipeline.manifest.spec import ModelSpec
from pipeline.manifest.stated import (
    declared_registries,
    hardware_of,
    lifecycle_of,
    registry_of,
    secret_env,
    secret_of,
    stands,
    template_of,
    text_env,
)
from pipeline.resources.engine.pin import unpinned

CHAT_TEMPLATE = "chat_template.jinja"  # transformers and vLLM both prefer this file to tokenizer_config.json


@frozen
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
            registry=registry_of(world.manifest, spec, known, world.settings.state),
            project=world.manifest.project,
            environment=world.settings.environment,
            where=world.document.where("models", name, "targets", target),
        )


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
        hardware=hardware_of(world.manifest, name),
        template=template_of(world.manifest, name),
        engine=pinned.engines[0],
        other_engines=pinned.engines[1:],
        overlays=_overlays(world, spec),
        max_model_len=spec.serve.max_model_len,
        args=spec.serve.args,
        env=text_env(spec),
        secret_env=secret_env(world.manifest, spec),
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


def _overlays(world: World, spec: ModelSpec) -> tuple[Overlay, ...]:
    if spec.chat is None or spec.chat.template is None:
        return ()
    file = (world.settings.root / spec.chat.template).absolute()
    body = file.read_bytes()
    return (Overlay(CHAT_TEMPLATE, hashlib.sha256(body).hexdigest(), len(body), str(file)),)
