"""Layers compressed on their way into a registry, where one asks for it: docs/targets.md says what it costs. Used by publish.

zlib's bytes differ between its builds: a compressed digest is remembered and told by annotations, never computed anew to be equal.
"""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.clients.oci.repository import BLOCK_BYTES, Chunks
from pipeline.core.digest import Digest
from pipeline.resources.cache.blobs import disk
from pipeline.resources.image.layers import Held

LEVEL = 1  # 6 takes three times as long for half a percent of weights
_GZIP = 16 + zlib.MAX_WBITS  # zlib writes the header: no name, no time


@contextmanager
def gzipped(chunks: Chunks, folder: Path) -> Iterator[tuple[Held, Chunks]]:
    """What a blob becomes, and its bytes from any offset.

    They are kept in a file without a name below `folder`, so that an upload can go on; nothing is left of it.
    Raises what `chunks` raises, Exhausted, Denied.
    """
    with disk(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115  # closed below
    with file:
        held = _write(file, chunks(0), str(folder))

        def blocks(start: int) -> Iterator[bytes]:
            while block := os.pread(file.fileno(), BLOCK_BYTES, start):
                yield block
                start += len(block)

        yield held, blocks


def _write(file: BinaryIO, blocks: Iterator[bytes], folder: str) -> Held:
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
    inside, outside = hashlib.sha256(), hashlib.sha256()
    size_bytes = 0

    def put(block: bytes) -> None:
        nonlocal size_bytes
        outside.update(block)
        size_bytes += len(block)
        with disk(folder):
            file.write(block)

    for block in blocks:
        inside.update(block)
        put(compressor.compress(block))
    put(compressor.flush())
    with disk(folder):
        file.flush()
    return Held(_named(outside), size_bytes, _named(inside))


def _named(hasher: "hashlib._Hash") -> Digest:
    return Digest(f"sha256:{hasher.hexdigest()}")
