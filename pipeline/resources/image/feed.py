"""Where the bytes of an image's files come from: this machine's cache, or straight from their sources. Used by resources/publish."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pipeline.clients.oci.repository import BLOCK_BYTES, Chunks
from pipeline.core.errors import BackendError, Corrupt, Missing, Unreachable
from pipeline.core.model import FileEntry, Model, Origin, Overlay
from pipeline.core.protocols import Source
from pipeline.resources.cache.artifact import source_of
from pipeline.resources.cache.blobs import signature
from pipeline.resources.cache.reading import received
from pipeline.resources.cache.store import Cache
from pipeline.resources.image.layers import Feed, Layer, Read


def ahead(chunks: Chunks) -> Chunks:
    """The same blocks; the next one is read, and hashed, in another thread while the last one is being sent."""

    def blocks(start: int) -> Iterator[bytes]:
        with ThreadPoolExecutor(1, "read") as pool:
            found = chunks(start)
            coming = pool.submit(next, found, b"")
            while block := coming.result():
                coming = pool.submit(next, found, b"")
                yield block

    return blocks


class DamagedCopy(Corrupt):
    """A file in the cache was not what its name says; it is gone from there now."""


class Feeds:
    """Opens the files of layers. `sources` is keyed by the scheme of the reference: "hf", "file"."""

    def __init__(
        self, cache: Cache, sources: Mapping[str, Source], pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._cache = cache
        self._sources = sources
        self._pause = pause

    def of(self, model: Model, layer: Layer) -> Read:
        """How the files of one of a model's layers are read."""
        return partial(_overlay, layer.overlay) if layer.overlay else partial(self._open, model)

    def straight_bytes(self, model: Model, layer: Layer) -> int:
        """What would be read from sources to make a layer, and not be kept."""
        if model.cached or layer.overlay:
            return 0
        return sum(entry.size_bytes for entry in layer.files if not self._is_here(entry))

    def is_here(self, model: Model, layer: Layer) -> bool:
        """Whether a layer is made of nothing but files in the cache."""
        return layer.overlay is None and self.straight_bytes(model, layer) == 0

    def is_verified(self, model: Model, layer: Layer) -> bool:
        """Whether nothing of a layer has to be hashed again: all of it is in the cache, since a short time."""
        return self.is_here(model, layer) and all(self._cache.is_fresh(entry) for entry in layer.files)

    def _open(self, model: Model, entry: FileEntry, start: int) -> Feed:
        if model.cached or self._is_here(entry):
            return Feed(self._kept(entry, start), partial(self._damaged, entry))
        origin = model.origins[entry.path]
        return Feed(self._straight(model, origin, start), partial(_wrong, model, origin))

    def _is_here(self, entry: FileEntry) -> bool:
        seen = signature(str(self._cache.blob(entry.sha256)))
        return seen is not None and seen[0] == entry.size_bytes

    def _kept(self, entry: FileEntry, start: int) -> Iterator[bytes]:
        try:
            with self._cache.open(entry) as file:
                file.seek(start)
                while block := file.read(BLOCK_BYTES):
                    yield block
        except OSError as problem:
            raise Missing(
                "cache", f'"{entry.path}" cannot be read: {problem.strerror or problem}'
            ) from problem

    def _damaged(self, entry: FileEntry, what: str) -> DamagedCopy:
        self._cache.discard(entry.sha256)
        return DamagedCopy("cache", f'"{entry.path}" {what}', "run mp apply again: it is fetched again")

    def _straight(self, model: Model, origin: Origin, start: int) -> Iterator[bytes]:
        """A source's bytes, going on where a connection broke. Its silence is no failure of the registry: no Unreachable."""
        artifact, entry = origin.artifact, origin.entry
        source = source_of(self._sources, artifact)
        try:
            yield from received(
                entry.path, entry.size_bytes, partial(source.open, artifact, entry), self._pause, start
            )
        except Unreachable as problem:
            raise BackendError(
                artifact.source,
                f'"{entry.path}" of {model.name} did not arrive whole: {problem.message}',
                problem.hint,
            ) from problem
        except Corrupt as problem:
            raise _wrong(model, origin, f"is wrong: {problem.message}") from problem


def _wrong(model: Model, origin: Origin, what: str) -> Corrupt:
    return Corrupt(
        origin.artifact.source,
        f'"{origin.entry.path}" of {model.name} {what}: nothing was tagged',
        "run mp apply again; if it stays so, the source has changed: run mp lock --upgrade",
    )


def _overlay(overlay: Overlay, entry: FileEntry, start: int) -> Feed:
    def blocks() -> Iterator[bytes]:
        with Path(overlay.file).open("rb") as file:
            file.seek(start)
            while block := file.read(BLOCK_BYTES):
                yield block

    return Feed(blocks(), lambda what: Corrupt(overlay.file, "changed after it was read", "run it again"))
