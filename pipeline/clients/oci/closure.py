"""Everything that an image names, and what points at it. Used by repositories and by resources/image/reclaim before anything is removed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from itertools import combinations

from pipeline.clients.oci.referrers import index_of, list_tag
from pipeline.clients.oci.repository import Descriptor, ImageManifest, Repository
from pipeline.core.digest import Digest, Json
from pipeline.core.frozen import frozen

_MOST_LISTED = 4  # referrers of one image whose former lists are looked for: 14 questions


@frozen
class Closure:
    """One image with all that it needs and all that points at it."""

    manifests: tuple[Digest, ...] = ()  # in the order in which they may go: what points at an image before it
    sizes: Mapping[Digest, int] = field(default_factory=dict)  # of every manifest and blob, in bytes
    annotations: Mapping[str, str] = field(default_factory=dict)  # of the image itself


def closure(repository: Repository, image: Digest) -> Closure:
    """Empty when the image is gone. Raises Corrupt when a manifest is damaged: nobody knows then what it names."""
    sizes: dict[Digest, int] = {}
    manifest = repository.manifest(image)
    order = tuple(_walk(repository, image, sizes, pointing=True))
    return Closure(order, sizes, manifest.annotations() if manifest else {})


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
        referrers = repository.referrers(image)
        for referrer in referrers:
            yield from _walk(repository, referrer.digest, sizes, pointing=True)
        for listing in _lists(repository, image, referrers):
            sizes[listing.digest] = len(listing.body)
            yield listing.digest
    yield image
    for part in _described(manifest, "manifests"):
        yield from _walk(repository, Digest(str(part["digest"])), sizes, pointing=pointing)
    for blob in (*_described(manifest, "config"), *_described(manifest, "layers")):
        sizes[Digest(str(blob["digest"]))] = int(str(blob["size"]))


def _lists(repository: Repository, image: Digest, referrers: Sequence[Descriptor]) -> Iterator[ImageManifest]:
    """The list of referrers where a tag has it, and those that it took the place of: without a tag they still name something."""
    listing = repository.manifest(list_tag(image))
    if listing is None:
        return
    yield listing
    for count in range(1, len(referrers) if len(referrers) <= _MOST_LISTED else 1):
        for some in combinations(referrers, count):
            before = index_of(some)
            if before.digest != listing.digest and repository.head(before.digest):
                yield before


def _described(manifest: ImageManifest, key: str) -> Iterator[dict[str, Json]]:
    found = manifest.document().get(key)
    for one in found if isinstance(found, list) else [found]:
        if isinstance(one, dict):
            yield one
