"""The SBOM of an image: CycloneDX with nothing but what was verified: files by hash, packages by lock. Pure; used by attach.

CycloneDX 1.6 (ECMA-424, first edition). Equal inputs give equal bytes: there is no time in it, and its serial number is
made from its content.
"""

import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.core.digest import Digest, canonical, fingerprint
from pipeline.core.image import Engine, ImageName
from pipeline.core.model import WEIGHTS, Artifact, Model, Part
from pipeline.resources.image.recipe import Recipe
from pipeline.resources.image.trust.naming import image_url, licenses, model_url, package_url, spdx

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_IMAGE = "image"  # the reference of the whole
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;]+)")

Component = dict[str, Any]  # Any: as heterogeneous as JSON


def of_model(recipe: Recipe, engine_digest: Digest | None) -> bytes:
    """A model or weights image: its sources with their files, what is laid over them, and what the engine is made of."""
    model = recipe.model
    parts = [_source(model, WEIGHTS, model.artifact)]
    parts += [_source(model, part.role, part.artifact, part) for part in model.parts]
    parts += [_file("overlay", overlay.path, overlay.sha256) for overlay in model.overlays]
    if recipe.build is not None:
        parts += _engine(recipe.build.engine)
        if recipe.engine is not None and engine_digest is not None:
            parts.append(_image("engine", recipe.engine.repository, engine_digest))
    return _document(recipe.name, recipe.fingerprint, parts)


def of_engine(name: ImageName, full: str, engine: Engine) -> bytes:
    """An engine image: the packages of its environment and its base."""
    return _document(name, full, _engine(engine))


def _document(name: ImageName, full: str, parts: list[Component]) -> bytes:
    whole = {
        "type": "container",
        "bom-ref": _IMAGE,
        "name": name.repository,
        "version": name.tag,
        "properties": [{"name": "dev.mp.fingerprint", "value": full}],
    }
    made: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
        "dependencies": [{"ref": _IMAGE, "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, fingerprint(made))
    return canonical({**made, "serialNumber": f"urn:uuid:{serial}"})


def _source(model: Model, role: str, artifact: Artifact, part: Part | None = None) -> Component:
    """One source and those of its files that are in the image, by their paths below /models."""
    is_model = part is None or bool(part.adapter)
    found: Component = {
        "type": "machine-learning-model" if is_model else "data",
        "bom-ref": role,
        "name": _name(model, artifact),
        "version": artifact.pin,
        "components": [_file(role, path, sha256) for path, sha256 in _files(model, artifact, part)],
    }
    if url := model_url(artifact):
        found["purl"] = url
    if said := licenses(artifact.facts.license):
        found["licenses"] = [_license(license) for license in said]
    if is_model and artifact.facts.architecture:
        found["modelCard"] = {"modelParameters": {"modelArchitecture": artifact.facts.architecture}}
    return found


def _name(model: Model, artifact: Artifact) -> str:
    """As its source names it; a path of this machine means nothing elsewhere."""
    scheme, _, path = artifact.source.partition("://")
    return model.name if scheme == "file" else path


def _files(model: Model, artifact: Artifact, part: Part | None) -> Iterator[tuple[str, str]]:
    below = f"{part.folder}/" if part and part.folder else ""
    for path, origin in sorted(model.origins.items()):
        if origin.artifact is artifact and path.startswith(below):
            yield path, origin.entry.sha256


def _file(role: str, path: str, sha256: str) -> Component:
    hashes = [{"alg": "SHA-256", "content": sha256}]
    return {"type": "file", "bom-ref": f"{role}/{path}", "name": path, "hashes": hashes}


def _engine(engine: Engine) -> list[Component]:
    found = [*_packages(engine.requirements)]
    if engine.base_digest:
        found.append(_image("base", engine.base, Digest(engine.base_digest)))
    return found


def _packages(requirements: Iterable[str]) -> Iterator[Component]:
    """Each package of the lock. Its hashes are of all files that the lock takes: one of them is what is installed."""
    for line in requirements:
        if not (pinned := _PINNED.match(line)):
            continue
        name, version = pinned.groups()
        hashes = sorted(set(_HASH.findall(line)))
        found: Component = {"type": "library", "bom-ref": f"{name}=={version}", "name": name}
        found |= {"version": version, "purl": package_url(name, version)}
        if hashes:
            found["hashes"] = [{"alg": "SHA-256", "content": each} for each in hashes]
        yield found


def _image(reference: str, name: str, digest: Digest) -> Component:
    without_tag = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    return {
        "type": "container",
        "bom-ref": reference,
        "name": without_tag,
        "version": digest,
        "purl": image_url(without_tag, digest),
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
    }


def _license(said: str) -> dict[str, Any]:
    identifier = spdx(said)
    return {"license": {"id": identifier} if identifier else {"name": said}}
