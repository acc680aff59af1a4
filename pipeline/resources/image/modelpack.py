"""A model as a ModelPack artifact: its files as they are, and a config that says what the model is. Pure; used by recipes.

Config and annotations hold what is known and nothing else: no time, no owner, no name of this machine.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from pipeline.clients.oci.repository import MANIFEST, ImageManifest
from pipeline.core.digest import Digest, Json, canonical, fingerprint
from pipeline.core.digest import digest as digest_of
from pipeline.core.model import Model
from pipeline.core.modelpack import ARTIFACT, CONFIG, FILEPATH, PRECISIONS, raw
from pipeline.resources.image.assembly import Assembled
from pipeline.resources.image.layers import Layer, raw_layers
from pipeline.resources.image.trust.naming import licenses, spdx

VERSION = 1  # of the bytes that `artifact` makes
_TITLE = "org.opencontainers.image.title"  # under this name ORAS writes a layer to disk
_HUB = "https://huggingface.co/"
_FORMATS = ("safetensors", "gguf")


def artifact_fingerprint(model: Model) -> str:
    """Of everything inside: the files, and what is said of them."""
    files: Json = [[layer.files[0].path, layer.key] for layer in _layers(model)]
    return fingerprint({"modelpack": VERSION, "files": files, "told": _told(model)})


def distinct(model: Model) -> tuple[Layer, ...]:
    """The layers to push: equal files are one."""
    found: dict[str, Layer] = {}
    for layer in _layers(model):
        found.setdefault(layer.key, layer)
    return tuple(found.values())


def artifact(model: Model, annotations: Mapping[str, str]) -> Assembled:
    """Config and manifest, with one layer a file, by path; the same inputs give the same bytes."""
    layers = _layers(model)
    digests: list[Json] = [layer.digest for layer in layers]
    files: Json = {"type": "layers", "diffIds": digests}
    config = canonical({**_told(model), "modelfs": files})
    manifest: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [_descriptor(layer.files[0].path, layer.digest, layer.size_bytes) for layer in layers],
        "annotations": dict(annotations),
    }
    return Assembled(config, ImageManifest(canonical(manifest), MANIFEST))


def _layers(model: Model) -> tuple[Layer, ...]:
    return raw_layers(model.files, model.overlays)


def _descriptor(path: str, digest: Digest | None, size_bytes: int) -> Json:
    return {
        "mediaType": raw(path),
        "digest": digest,
        "size": size_bytes,
        "annotations": {FILEPATH: path, _TITLE: path},
    }


def _told(model: Model) -> dict[str, Json]:
    """What the config says of the model besides its files."""
    artifact, facts = model.artifact, model.artifact.facts
    scheme, _, path = artifact.source.partition("://")
    source = "" if scheme == "file" else f"{_HUB}{path}" if scheme == "hf" else artifact.source
    identifiers: list[Json] = [found for name in licenses(facts.license) if (found := spdx(name))]
    descriptor = _known(
        name=model.name,
        version=artifact.version,
        revision=artifact.pin,
        sourceURL=source,
        licenses=identifiers,
    )
    dtype = facts.dtype or ""
    config = _known(
        architecture=facts.architecture, format=_format(model), precision=PRECISIONS.get(dtype, dtype)
    )
    return {"descriptor": descriptor, "config": config}


def _format(model: Model) -> str:
    """The format of the weights, where all of them have one."""
    suffixes = {PurePosixPath(entry.path).suffix.removeprefix(".") for entry in model.artifact.files}
    found = [name for name in _FORMATS if name in suffixes]
    return found[0] if len(found) == 1 else ""


def _known(**words: Json) -> dict[str, Json]:
    return {key: word for key, word in words.items() if word}
