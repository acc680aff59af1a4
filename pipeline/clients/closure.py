"""Everything that an image names, and what points at it. Used by repositories and by resources/reclaim_images before anything is removed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.clients.referrers import list_tag
from pipeline.clients.repository import ImageManifest, Repository
from pipeline.core.digest import Digest, Json


@dataclass(frozen=True)
class Closure:
    """One image with all that it needs and all that points at it."""

    manifests: tuple[Digest, ...] = ()  # in the order in which they may go: what points at an image before it
    sizes: Mapping[Digest, int] = field(default_factory=dict)  # of every manifest and blob, in bytes


def closure(repository: Repository, image: Digest) -> Closure:
    """Empty when the image is gone. Raises Corrupt when a manifest is damaged: nobody knows then what it names."""
    sizes: dict[Digest, int] = {}
    return Closure(tuple(_walk(repository, image, sizes, pointing=True)), sizes)


def named(repository: Repository, image: Digest) -> Mapping[Digest, int]:
    """Sizes of the image's own manifests and blobs, without what points at it."""
    sizes: dict[Digest, int] = {}
    list(_walk(repository, image, sizes, pointing=False))
    return sizes


def _walk(
    repository: Repository, image: Digest, sizes: dict[Digest, int], *, pointing: bool
) -> Iterator[Digest]:
    manifest = repository.manifest(image) if image not in sizes else None
    if manifest is None:
        return
    sizes[image] = len(manifest.body)
    if pointing:
        for referrer in repository.referrers(image):
            yield from _walk(repository, referrer.digest, sizes, pointing=True)
        if (listing := repository.manifest(list_tag(image))) and listing.digest not in sizes:
            sizes[listing.digest] = len(listing.body)
            yield listing.digest
    yield image
    for part in _described(manifest, "manifests"):
        yield from _walk(repository, Digest(str(part["digest"])), sizes, pointing=pointing)
    for blob in (*_described(manifest, "config"), *_described(manifest, "layers")):
        sizes[Digest(str(blob["digest"]))] = int(str(blob["size"]))


def _described(manifest: ImageManifest, key: str) -> Iterator[dict[str, Json]]:
    found = manifest.document().get(key)
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, dict):
            yield one
