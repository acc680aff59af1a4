"""What is known of layers before they are made: this machine's memory, and annotations of published images. Used by publish."""

from collections.abc import Iterator, Sequence

from pipeline.clients.oci.repository import ImageManifest, Repository
from pipeline.core.errors import Corrupt
from pipeline.resources.cache.store import Cache
from pipeline.resources.image.assembly import known_layers
from pipeline.resources.image.index import images
from pipeline.resources.image.layers import Held, Layer

MOST_ASKED = 16  # images that are asked for their layers, in each repository


class KnownLayers:
    """Layers by key. What was hashed here is sure; what an annotation says is somebody's word, and is never remembered."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def of(
        self, layers: Sequence[Layer], repositories: Sequence[Repository], previous: Sequence[str]
    ) -> dict[str, Held]:
        """From this machine's memory, and else from images that were published before. `previous`: tags, digests to ask first."""
        wanted = {layer.key for layer in layers}
        found = {layer.key: known for layer in layers if (known := self.sure(layer))}
        for repository in repositories:
            asked = _references(repository, previous)
            while not wanted <= found.keys() and (reference := next(asked, None)):
                if manifest := sound(repository, reference):
                    for _, image in images(repository, manifest):
                        found = dict(known_layers(image)) | found
        return found

    def sure(self, layer: Layer) -> Held | None:
        """What is nobody else's word: a file's own digest, or what this machine hashed."""
        if layer.digest is not None:
            return Held(layer.digest, layer.size_bytes, layer.digest)
        found = self._cache.recall_layer(layer.key)
        plain = self._cache.recall_layer(layer.plain.key) if layer.compression else found
        return Held(*found, plain[0]) if found and plain else None

    def remember(self, layer: Layer, held: Held) -> None:
        """A layer that was hashed here."""
        if layer.digest is not None:
            return
        self._cache.remember_layer(layer.key, held.digest, held.size_bytes)
        if layer.compression:
            self._cache.remember_layer(layer.plain.key, held.diff_id, layer.size_bytes)


def sound(repository: Repository, reference: str) -> ImageManifest | None:
    """A damaged image manifest is as good as none: what it named is published anew."""
    try:
        return repository.manifest(reference)
    except Corrupt:
        return None


def _references(repository: Repository, previous: Sequence[str]) -> Iterator[str]:
    """The likely ones first; then every other tag, versions before fingerprints and the later names first."""
    yield from previous
    others = sorted(set(repository.tags()) - set(previous), key=lambda tag: (tag.startswith("mp-"), tag))
    versions = [tag for tag in others if not tag.startswith("mp-")]
    yield from [*reversed(versions), *others[len(versions) :]][:MOST_ASKED]
