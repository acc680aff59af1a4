"""Images of several platforms: an OCI index over the image manifests of one platform each. Pure but for reads; used by images and engines.

OCI image specification 1.1.1, image-index.md.
"""

from collections.abc import Iterator, Mapping

from pipeline.clients.oci.repository import DOCKER_LIST, INDEX, ImageManifest, Repository, blobs
from pipeline.core.digest import Digest, Json, canonical
from pipeline.core.frozen import frozen

_UNKNOWN = "unknown"  # as BuildKit calls the platform of what is no image: its attestations


@frozen
class Part:
    """What an index says of the image of one platform."""

    platform: str  # "linux/arm64"; a variant is left out
    digest: Digest


def is_index(manifest: ImageManifest) -> bool:
    return manifest.media_type in (INDEX, DOCKER_LIST) or "manifests" in manifest.document()


def index(images: Mapping[str, ImageManifest], annotations: Mapping[str, str]) -> ImageManifest:
    """The images of several platforms under one name; the same images give the same bytes."""
    listed: list[Json] = [_descriptor(platform, image) for platform, image in sorted(images.items())]
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": listed,
        "annotations": dict(annotations),
    }
    return ImageManifest(canonical(document), INDEX)


def parts(manifest: ImageManifest) -> tuple[Part, ...]:
    """The images an index names, each with its platform; of others it may name nothing is said."""
    listed = manifest.document().get("manifests")
    return tuple(_parts(listed if isinstance(listed, list) else []))


def images(repository: Repository, manifest: ImageManifest) -> Iterator[tuple[str, ImageManifest]]:
    """The images behind a manifest by platform, as far as they are there; "" where it is one image itself."""
    if not is_index(manifest):
        yield "", manifest
        return
    for part in parts(manifest):
        if image := repository.manifest(part.digest):
            yield part.platform, image


def is_whole(repository: Repository, manifest: ImageManifest) -> bool:
    """Whether everything that a manifest names is in the repository."""
    if not is_index(manifest):
        return all(repository.has(blob, size_bytes) for blob, size_bytes in blobs(manifest))
    found = list(images(repository, manifest))
    return len(found) == len(parts(manifest)) and all(is_whole(repository, image) for _, image in found)


def _descriptor(platform: str, image: ImageManifest) -> Json:
    system, _, machine = platform.partition("/")
    return {
        "mediaType": image.media_type,
        "digest": image.digest,
        "size": len(image.body),
        "platform": {"os": system, "architecture": machine},
    }


def _parts(listed: list[Json]) -> Iterator[Part]:
    for one in listed:
        platform = one.get("platform") if isinstance(one, dict) else None
        if isinstance(one, dict) and isinstance(platform, dict) and platform.get("os") != _UNKNOWN:
            yield Part(f"{platform.get('os')}/{platform.get('architecture')}", Digest(str(one["digest"])))
