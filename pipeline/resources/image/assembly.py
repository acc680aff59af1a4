"""Image manifests and configs of model and weights images: pure JSON from layers. Used by resources/image and engine."""

import json
from collections.abc import Iterator, Mapping, Sequence

from pipeline.clients.archive import Stored, Unpacked
from pipeline.clients.oci.repository import CONFIG, FILES, LAYER, MANIFEST, ImageManifest
from pipeline.core.digest import Digest, Json, canonical
from pipeline.core.digest import digest as digest_of
from pipeline.core.errors import Corrupt
from pipeline.core.frozen import frozen
from pipeline.resources.image.layers import Held, Layer, layer_key

FINGERPRINT = "dev.mp.fingerprint"
DIFF_ID = "dev.mp.diff-id"  # annotation of a compressed layer: the digest of its tar
ENVIRONMENT = "COPY app /opt/app"  # the step of a Dockerfile whose layers mp makes itself
_OF_THE_BUILD = (
    "container",
    "container_config",
    "id",
    "parent",
)  # fields of old configs that mean nothing here


@frozen
class Placed:
    """A layer of weights that is in the repository."""

    layer: Layer
    held: Held


@frozen
class EngineParts:
    """An engine image as it lies in its repository."""

    manifest: ImageManifest
    config: bytes


@frozen
class Assembled:
    """What is pushed after the layers: the config, then the image manifest."""

    config: bytes
    manifest: ImageManifest


def assemble(
    placed: Sequence[Placed], engine: EngineParts | None, platform: str, annotations: Mapping[str, str]
) -> Assembled:
    """Engine layers first, then the weights; the same inputs give the same bytes."""
    config = canonical(_config(placed, engine, platform, annotations))
    own: list[Json] = [
        {
            "mediaType": _suffixed(one.layer.compression),
            "digest": one.held.digest,
            "size": one.held.size_bytes,
            "annotations": _annotations(one),
        }
        for one in placed
    ]
    below = [_as_oci(layer) for layer in _layers(engine.manifest)] if engine else []
    return _assembled(config, [*below, *own], annotations)


def engine_image(
    unpacked: Unpacked, environment: Sequence[tuple[str, Stored]], annotations: Mapping[str, str]
) -> Assembled:
    """An engine image as OCI: what a Docker engine built, with the environment's layers where its folder was copied."""
    config: Json = json.loads(unpacked.config)
    config = {k: v for k, v in config.items() if k not in _OF_THE_BUILD} if isinstance(config, dict) else {}
    history = _list(config.get("history"))
    rootfs = config.get("rootfs")
    diff_ids = _list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None)
    layers = list(unpacked.layers)
    step, at = _behind(history, ENVIRONMENT, len(layers))
    steps: list[Json] = [{"created_by": f"mp: {title}"} for title, _ in environment]
    history[step:step] = steps
    diff_ids[at:at] = [stored.digest for _, stored in environment]
    layers[at:at] = [stored for _, stored in environment]
    config |= {"history": history, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    body = canonical(config)
    described: list[Json] = [
        {"mediaType": one.media_type, "digest": one.digest, "size": one.size_bytes} for one in layers
    ]
    return _assembled(body, described, annotations)


def _assembled(config: bytes, layers: Sequence[Json], annotations: Mapping[str, str]) -> Assembled:
    """The image manifest over a config and descriptors of layers."""
    manifest: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": list(layers),
        "annotations": dict(annotations),
    }
    return Assembled(config, ImageManifest(canonical(manifest), MANIFEST))


def _behind(history: Sequence[Json], words: str, layers: int) -> tuple[int, int]:
    """Where layers go that belong to the step with these words: steps and layers up to it; the end where it is not told."""
    steps = [step if isinstance(step, dict) else {} for step in history]
    made = [not step.get("empty_layer") for step in steps]
    for index, step in enumerate(steps):
        if words in str(step.get("created_by", "")) and sum(made) == layers:
            return index + 1, sum(made[: index + 1])
    return len(history), layers


def _list(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list) else []


def held_layers(manifest: ImageManifest) -> tuple[tuple[Digest, int], ...]:
    """Digests and sizes; nothing for an index or an artifact that somebody else put there."""
    found = manifest.document().get("layers")
    layers = [layer for layer in found if isinstance(layer, dict)] if isinstance(found, list) else []
    return tuple((Digest(str(layer["digest"])), int(str(layer["size"]))) for layer in layers)


def known_layers(manifest: ImageManifest) -> Iterator[tuple[str, Held]]:
    """Every layer of ours by its key: what the annotations tell a machine that never pushed."""
    found = manifest.document().get("layers")
    for layer in found if isinstance(found, list) else ():
        annotations = layer.get("annotations") if isinstance(layer, dict) else None
        listing = annotations.get(FILES) if isinstance(annotations, dict) else None
        if not isinstance(listing, str):
            continue
        try:
            pairs = json.loads(listing).items()
        except (ValueError, AttributeError):  # somebody else's annotation
            continue
        assert isinstance(layer, dict) and isinstance(annotations, dict), "it has annotations"
        _, _, compression = str(layer["mediaType"]).partition("+")
        key = layer_key([(path, str(sha256)) for path, sha256 in pairs], compression)
        name = Digest(str(layer["digest"]))
        yield key, Held(name, int(str(layer["size"])), Digest(str(annotations.get(DIFF_ID) or name)))


def labels(config: bytes) -> dict[str, str]:
    """The labels of an image's config."""
    parsed = json.loads(config)
    found = (parsed.get("config") or {}).get("Labels") if isinstance(parsed, dict) else None
    return {key: str(value) for key, value in (found or {}).items()}


def _config(
    placed: Sequence[Placed], engine: EngineParts | None, platform: str, annotations: Mapping[str, str]
) -> dict[str, Json]:
    system, _, architecture = platform.partition("/")
    config: dict[str, Json] = {"os": system, "architecture": architecture, "config": {}}
    if engine is not None:
        config = {k: v for k, v in json.loads(engine.config).items() if k not in _OF_THE_BUILD}
    settings = config.get("config")
    settings = dict(settings) if isinstance(settings, dict) else {}
    known = settings.get("Labels")
    settings["Labels"] = {**(known if isinstance(known, dict) else {}), FINGERPRINT: annotations[FINGERPRINT]}
    rootfs, history = config.get("rootfs"), config.get("history")
    before = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    config["config"] = settings
    config["rootfs"] = {
        "type": "layers",
        "diff_ids": [*(before if isinstance(before, list) else ()), *(one.held.diff_id for one in placed)],
    }
    added: list[Json] = [{"created_by": f"mp: {one.layer.title}"} for one in placed]
    config["history"] = [*(history if isinstance(history, list) else ()), *added]
    return config


def _layers(manifest: ImageManifest) -> list[dict[str, Json]]:
    found = manifest.document().get("layers")
    if not isinstance(found, list):
        raise Corrupt("registry", "this is not the image manifest of one platform")
    return [layer for layer in found if isinstance(layer, dict)]


def _as_oci(layer: Mapping[str, Json]) -> dict[str, Json]:
    """A Docker engine pushes layers under its own names; an OCI manifest calls the same bytes otherwise."""
    found = next((name for name in ("gzip", "zstd") if str(layer["mediaType"]).endswith(name)), "")
    return {"mediaType": _suffixed(found), "digest": layer["digest"], "size": layer["size"]}


def _suffixed(compression: str) -> str:
    """The media type of a layer."""
    return f"{LAYER}+{compression}" if compression else LAYER


def _annotations(one: Placed) -> dict[str, Json]:
    """What is inside; of a compressed layer also what it is uncompressed, which nobody else can tell."""
    inside: dict[str, Json] = {FILES: one.layer.listing}
    return {**inside, DIFF_ID: one.held.diff_id} if one.layer.compression else inside
