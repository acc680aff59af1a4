"""Bring an image's layers, config and tags into a repository: nothing is sent that is there. Used by resources/image."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

from pipeline.clients.oci.repository import (
    BLOCK_BYTES,
    Chunks,
    ImageManifest,
    Repository,
    contents,
    held,
)
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Corrupt, Missing
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.protocols import Source
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import Address, Transfer
from pipeline.resources.cache.store import Cache
from pipeline.resources.image.assembly import FINGERPRINT, EngineParts, Placed, held_layers
from pipeline.resources.image.compress import gzipped
from pipeline.resources.image.feed import DamagedCopy, Feeds, ahead
from pipeline.resources.image.index import images, index, is_whole
from pipeline.resources.image.known import KnownLayers, sound
from pipeline.resources.image.layers import Held, Layer, Stream
from pipeline.resources.image.outlook import Outlook, side_by_side
from pipeline.resources.image.recipe import Recipe

REPORTED_BYTES = 64 * 2**10  # smaller blocks are headers and padding
UPLOADS = 4  # at once, over all images: a registry hashes each by itself

OpenRepository: TypeAlias = Callable[[Registry, str], Repository]


@frozen
class Shop:
    """One image's repository, and those of the same registry that may have its layers: itself, then its sibling."""

    recipe: Recipe
    repository: Repository
    homes: tuple[Repository, ...]


@frozen
class Made:
    """An image of one platform that is new in a repository."""

    recipe: Recipe
    image: ImageManifest
    engine: Digest | None  # of the engine image of that platform


@frozen
class Published:
    """What a tag is to name, and the images that it is or stands for."""

    image: ImageManifest
    parts: tuple[Made, ...]


class Publisher:
    """Pushes what is missing. What was pushed by this process is taken over by other repositories, not sent again."""

    def __init__(self, cache: Cache, sources: Mapping[str, Source], repositories: OpenRepository) -> None:
        self._cache = cache
        self._known = KnownLayers(cache)
        self._feeds = Feeds(cache, sources)
        self._open = repositories
        self._uploads = threading.BoundedSemaphore(UPLOADS)
        self._guard = threading.Lock()  # of the two below
        self._locks: dict[tuple[str, str], threading.Lock] = {}  # registry, layer key
        self._homes: dict[tuple[str, Digest], str] = {}  # registry, layer → repository that has it

    def shop(self, recipe: Recipe) -> Shop:
        registry = recipe.name.registry
        own = self._open(registry, recipe.name.repository)
        others = (self._open(registry, recipe.sibling),) if recipe.sibling else ()
        return Shop(recipe, own, (own, *others))

    def outlook(self, shop: Shop, previous: Sequence[str]) -> Outlook:
        """What publishing would move; exact where every layer's digest is known. `previous`: tags, digests to ask."""
        known = self._known.of(shop.recipe.layers, shop.homes, previous)

        def look(layer: Layer) -> tuple[str, Transfer]:
            found = known.get(layer.key)
            if found and any(one.has(found.digest, found.size_bytes) for one in shop.homes):
                return layer.key, Transfer(reused_bytes=found.size_bytes)
            straight_bytes = self._feeds.straight_bytes(shop.recipe.model, layer)
            push_bytes = found.size_bytes if found else layer.most_bytes
            return layer.key, Transfer(straight_bytes, push_bytes, exact=found is not None)

        engine = Transfer(reused_bytes=self._engine_bytes(shop))
        return Outlook(
            shop.recipe.name.registry.location, engine, tuple(side_by_side(look, shop.recipe.layers))
        )

    def standing(self, shop: Shop, reference: str) -> ImageManifest | None:
        """The image behind a reference when it is the wanted one and whole."""
        manifest = sound(shop.repository, reference)
        if manifest is None or manifest.annotations().get(FINGERPRINT) != shop.recipe.fingerprint:
            return None
        return manifest if is_whole(shop.repository, manifest) else None

    def publish(
        self, shop: Shop, engine_digest: Digest | None, previous: Sequence[str], emit: Emit
    ) -> Published:
        """Push layers and configs; of several platforms also their images. Tagging is the caller's, and last.

        May be repeated. Raises Corrupt after a damaged file left the cache, Missing, Denied, Unreachable, Exhausted.
        """
        recipe = shop.recipe
        engines = self._engines(shop, engine_digest) if engine_digest else {}
        placed = self._place_all(shop, self._known.of(shop.recipe.layers, shop.homes, previous), emit)
        made = tuple(_put(shop.repository, part, placed, engines) for part in recipe.parts)
        if len(made) == 1:
            return Published(made[0].image, made)
        found = {one.recipe.model.engine.platform: one.image for one in made}
        for image in found.values():
            shop.repository.put_manifest(image.digest, image)
        return Published(index(found, recipe.annotations(engine_digest)), made)

    def _engine_bytes(self, shop: Shop) -> int:
        """Bytes of the engine image that a model image takes over, where it is there already."""
        engine = shop.recipe.engine
        if engine is None:
            return 0
        repository = self._open(engine.registry, engine.repository)
        manifest = repository.manifest(engine.tag)
        found = images(repository, manifest) if manifest else ()
        return sum({layer: size for _, image in found for layer, size in held_layers(image)}.values())

    def _engines(self, shop: Shop, engine_digest: Digest) -> dict[str, EngineParts]:
        """The engine image by platform, its layers brought into this repository."""
        engine = shop.recipe.engine
        if engine is None:
            raise AssertionError("a weights image has no engine")
        source = self._open(engine.registry, engine.repository)
        manifest = source.manifest(engine_digest)
        found = dict(images(source, manifest)) if manifest else {}
        if "" in found:  # one image and no index
            found = {shop.recipe.model.engine.platform: found[""]}
        gone = Missing(source.location, f"engine image {engine.tag} is gone", "run mp apply again")
        if not found.keys() >= set(shop.recipe.model.platforms):
            raise gone
        made = {}
        for platform in shop.recipe.model.platforms:
            config = source.blob(contents(found[platform])[0])
            if config is None:
                raise gone
            self._take_over(shop, source, engine.repository, found[platform])
            made[platform] = EngineParts(found[platform], config)
        return made

    def _take_over(self, shop: Shop, source: Repository, name: str, image: ImageManifest) -> None:
        """Have an engine image's layers in this repository."""

        def take(found: tuple[Digest, int]) -> None:
            layer, size_bytes = found
            there = shop.repository.keeps(layer, size_bytes) or shop.repository.mount(layer, name, size_bytes)
            if not there:
                with self._uploads:
                    shop.repository.push(layer, size_bytes, partial(_blocks, source, layer))

        side_by_side(take, sorted(set(contents(image)[1])))

    def _place_all(self, shop: Shop, known: Mapping[str, Held], emit: Emit) -> list[Placed]:
        """Missing layers side by side; one of them alone needs no thread."""
        asked = [layer.key for layer in shop.recipe.layers if layer.key in known]
        kept = side_by_side(
            lambda key: shop.repository.keeps(known[key].digest, known[key].size_bytes), asked
        )
        there = {key: known[key] for key, is_kept in zip(asked, kept, strict=True) if is_kept}
        missing = [layer for layer in shop.recipe.layers if layer.key not in there]
        meter = _Meter(emit, shop.recipe.address, sum(layer.size_bytes for layer in missing))

        def place(layer: Layer) -> Held:
            return self._place(shop, layer, known.get(layer.key), meter)

        if len(missing) < 2:
            there |= {layer.key: place(layer) for layer in missing}
        else:
            with ThreadPoolExecutor(UPLOADS, "push") as pool:
                futures = {layer.key: pool.submit(place, layer) for layer in missing}
                try:
                    there |= {key: future.result() for key, future in futures.items()}
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)
        return [Placed(layer, there[layer.key]) for layer in shop.recipe.layers]

    def _place(self, shop: Shop, layer: Layer, known: Held | None, meter: "_Meter") -> Held:
        """Have one layer in the repository. Two images with one layer: the second waits and takes it over."""
        place = shop.recipe.name.registry.location
        with self._guard:
            lock = self._locks.setdefault((place, layer.key), threading.Lock())
        with lock:
            own = self._known.sure(layer)
            found = next((one for one in (own, known) if one and self._is_there(shop, one)), None)
            if found is None:
                with self._uploads:
                    found = self._upload(shop, layer, own, meter)
                self._known.remember(layer, found)
        with self._guard:
            self._homes[place, found.digest] = shop.recipe.name.repository
        return found

    def _is_there(self, shop: Shop, held: Held) -> bool:
        if shop.repository.keeps(held.digest, held.size_bytes):
            return True
        with self._guard:
            home = self._homes.get((shop.recipe.name.registry.location, held.digest))
        return any(
            shop.repository.mount(held.digest, other, held.size_bytes)
            for other in {home, shop.recipe.sibling}
            if other
        )

    def _upload(self, shop: Shop, layer: Layer, known: Held | None, meter: "_Meter") -> Held:
        """Send one layer. A copy in the cache that is damaged is gone then: what need not be there is read from its source.

        No byte is hashed that somebody else answers for. A digest that is known was made here of verified files (or is
        the file's own): a repository refuses any other bytes under it. Then all is read again, and the wrong file named.
        A digest that is not known is that of whatever is sent: then each file is hashed as well, or a byte that changed
        in the cache since would be published; but for files that came into the cache just now.
        """
        model = shop.recipe.model
        read = self._feeds.of(model, layer)
        is_sure = self._feeds.is_here(model, layer) if known else self._feeds.is_verified(model, layer)
        hashing = bool(layer.compression) or not is_sure
        while True:
            stream = Stream(layer, read, hashing=hashing)
            chunks = meter.counted(layer, ahead(stream) if hashing else stream)
            try:
                return self._sent(shop.repository, layer, known, chunks)
            except DamagedCopy:
                if model.cached:
                    raise
            except Corrupt:
                if hashing:
                    raise
                hashing, known = True, known if layer.digest else None

    def _sent(self, repository: Repository, layer: Layer, known: Held | None, chunks: Chunks) -> Held:
        if not layer.compression:
            found = repository.push(known.digest if known else None, layer.size_bytes, chunks)
            return Held(found, layer.size_bytes, found)
        with gzipped(chunks, self._cache.root) as (held, compressed):
            repository.push(held.digest, held.size_bytes, compressed)
        return held


class _Meter:
    """Adds up what all uploads of one image have sent; an upload that goes on counts from where it does."""

    def __init__(self, emit: Emit, address: Address, total_bytes: int) -> None:
        self._emit = emit
        self._address = address
        self._total_bytes = total_bytes
        self._guard = threading.Lock()
        self._sent: dict[str, int] = {}

    def counted(self, layer: Layer, chunks: Chunks) -> Chunks:
        def blocks(start: int) -> Iterator[bytes]:
            sent_bytes = start
            for block in chunks(start):
                yield block
                sent_bytes += len(block)
                if len(block) >= REPORTED_BYTES or sent_bytes == layer.size_bytes:
                    self._report(layer.key, sent_bytes)

        return blocks

    def _report(self, key: str, sent_bytes: int) -> None:
        with self._guard:
            self._sent[key] = sent_bytes
            done_bytes = sum(self._sent.values())
        self._emit(Progress(self._address, "push", done_bytes, self._total_bytes))


def _put(
    repository: Repository, recipe: Recipe, placed: Sequence[Placed], engines: Mapping[str, EngineParts]
) -> Made:
    """Put together the image of one platform, and push its config."""
    engine = engines.get(recipe.model.engine.platform)
    below = engine.manifest.digest if engine else None
    image = recipe.assembled(placed, engine, below)
    config = digest(image.config)
    if not repository.keeps(config, len(image.config)):
        repository.push(config, len(image.config), held(image.config))
    return Made(recipe, image.manifest, below)


def _blocks(source: Repository, layer: Digest, start: int) -> Iterator[bytes]:
    with source.open_blob(layer, start) as blob:
        while block := blob.read(BLOCK_BYTES):
            yield block
