"""What a plan says besides its changes: engines that cannot be built yet, weights that cannot be fetched. Pure."""

from collections.abc import Iterable
from typing import Any

from pipeline.core.change import Action, Change
from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.image import Engine
from pipeline.core.model import Artifact
from pipeline.core.reference import scheme_of
from pipeline.core.resource import Resource, owner_of
from pipeline.engine.resolve import Pins
from pipeline.sources import NEAR


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


def misplaced(wanted: Iterable[Resource[Any]], platform: str) -> tuple[Diagnostic, ...]:
    """An error for every environment of this machine whose engine is made for other platforms alone."""
    engines = (
        getattr(resource.desired, "engine", None) for resource in wanted if resource.kind == "environment"
    )
    return tuple(
        error(
            f"engine {engine.key} is made for {engine.platform}: it cannot run on this machine, which is {platform}",
            hint=f"add {platform} to engines: {engine.template}: platforms, or take the local target away",
        )
        for engine in engines
        if isinstance(engine, Engine) and engine.platform != platform
    )


def unfetchable(changes: Iterable[Change[Any]]) -> tuple[Diagnostic, ...]:
    """A remark for every artifact that is not in the cache and whose source is not asked, being offline."""
    found = []
    for change in changes:
        artifact = getattr(change.resource.desired, "artifact", None) if change.resource else None
        if (
            isinstance(artifact, Artifact)
            and change.action is Action.CREATE
            and scheme_of(artifact.source) not in NEAR
            and change.transfer.download_bytes
        ):
            size = f"{change.transfer.download_bytes:,} bytes"
            summary = (
                f"{owner_of(change.address)}: offline, and {size} of {artifact.source} are not in the cache"
            )
            hint = "bring them with mp cache import, or mp pull where there is a network"
            found.append(
                warning(
                    summary,
                    change.resource.where if change.resource else None,
                    hint,
                    owner_of(change.address),
                )
            )
    return tuple(found)
