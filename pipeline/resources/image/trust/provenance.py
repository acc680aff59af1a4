"""Where an image comes from: the statement of what mp put together, and from what. Pure; used by attach.

in-toto Statement v1 and SLSA Provenance v1. Only what is known goes in. Two runs with equal inputs, commit and version of mp
make equal statements: there is no time and no number of a run in it.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pipeline.core.digest import Digest, canonical
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, ImageName
from pipeline.core.model import Artifact
from pipeline.resources.image.layers import LAYOUT_VERSION
from pipeline.resources.image.recipe import Recipe
from pipeline.resources.image.trust.naming import image_url, model_url

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:mp:builder"  # mp has no address on the web: names are URNs
MODEL_BUILD, ENGINE_BUILD = "urn:mp:image:model:1", "urn:mp:image:engine:1"

Statement = dict[str, Any]  # Any: as heterogeneous as JSON


@frozen
class Run:
    """What is known of the run that makes an image."""

    version: str  # of mp
    commit: str | None = None  # of the checkout with the manifest
    lock_sha256: str | None = None  # of models.lock


def of_model(recipe: Recipe, digest: Digest, engine_digest: Digest | None, run: Run) -> bytes:
    """A model or weights image."""
    model = recipe.model
    outside: Statement = {
        "model": model.name,
        "project": recipe.project,
        "sources": {role: _source(artifact) for role, artifact in model.artifacts.items()},
        "overlays": [{"path": each.path, "sha256": each.sha256} for each in model.overlays],
    }
    used = [_artifact(role, artifact) for role, artifact in model.artifacts.items()]
    if recipe.build is not None:
        outside["engine"] = {"name": recipe.build.engine.key, "fingerprint": recipe.build.fingerprint}
    if recipe.engine is not None and engine_digest is not None:
        used.append(_image("engine", recipe.engine.repository, engine_digest))
    inside = {"layout": LAYOUT_VERSION, "fingerprint": recipe.fingerprint}
    return _statement(recipe.name, digest, MODEL_BUILD, outside, inside, used, run)


def of_engine(name: ImageName, build: Build, digest: Digest, run: Run) -> bytes:
    engine = build.engine
    outside: Statement = {
        "template": engine.template,
        "version": engine.version,
        "variant": engine.variant,
        "platform": engine.platform,
        "python": engine.python,
        "index": engine.index,
        "requirements_sha256": engine.requirements_sha256,
    }
    inside = {"fingerprint": build.fingerprint, "files": dict(build.files)}
    return _statement(name, digest, ENGINE_BUILD, outside, inside, [*_base(engine)], run)


def _statement(
    name: ImageName,
    digest: Digest,
    kind: str,
    outside: Statement,
    inside: Statement,
    used: list[Statement],
    run: Run,
) -> bytes:
    known = {"commit": run.commit, "lock_sha256": run.lock_sha256}
    definition = {
        "buildType": kind,
        "externalParameters": outside | {key: value for key, value in known.items() if value},
        "internalParameters": inside,
        "resolvedDependencies": used,
    }
    builder = {"id": BUILDER, "version": {"mp": run.version}}
    return canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": name.repository, "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": PREDICATE,
            "predicate": {"buildDefinition": definition, "runDetails": {"builder": builder}},
        }
    )


def _source(artifact: Artifact) -> Statement:
    """As models.lock has it; of a folder on this machine only what is in it."""
    found: Statement = {"pin": artifact.pin, "filter": asdict(artifact.filter)}
    if artifact.version:
        found["version"] = artifact.version
    if not artifact.source.startswith("file:"):
        found["source"] = artifact.source
    return found


def _artifact(role: str, artifact: Artifact) -> Statement:
    """A source with its digest, and its files as what they hold."""
    form, _, value = artifact.pin.rpartition("-")
    found: Statement = {
        "name": role,
        "digest": {"sha256" if form == "sha256" else "gitCommit": value},
        "annotations": {"files": {entry.path: entry.sha256 for entry in artifact.files}},
    }
    if not artifact.source.startswith("file:"):
        found["uri"] = model_url(artifact) or artifact.source
    return found


def _base(engine: Engine) -> Iterator[Statement]:
    if engine.base_digest:
        yield _image("base", engine.base, Digest(engine.base_digest))


def _image(role: str, name: str, digest: Digest) -> Statement:
    without_tag = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    return {
        "name": role,
        "uri": image_url(without_tag, digest),
        "digest": {"sha256": digest.removeprefix("sha256:")},
    }
