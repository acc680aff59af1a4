"""Gigabytes that nobody holds: the content of a large file, made block by block as it is read. For tests/fakes/hub."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from pipeline.core.digest import canonical
from pipeline.core.frozen import frozen

BLOCK_BYTES = 1 << 20


@frozen
class Bulk:
    """A safetensors file of `size_bytes` with one tensor of noise; no two blocks are equal, nor two seeds."""

    seed: int
    size_bytes: int
    flipped_at: int | None = None  # one bit of this byte is wrong

    def __len__(self) -> int:
        return self.size_bytes

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, at most a block at a time."""
        end = self.size_bytes if end is None else end
        while start < end:
            offset = start % BLOCK_BYTES
            block = self._block(start // BLOCK_BYTES)[offset : offset + end - start]
            yield block
            start += len(block)

    def flipped(self, at: int) -> "Bulk":
        return replace(self, flipped_at=at)

    @property
    def sha256(self) -> str:
        """64 hex, of the right bytes."""
        return _sha256(replace(self, flipped_at=None))

    def _block(self, number: int) -> bytes:
        begin = number * BLOCK_BYTES
        block = bytearray(_noise(self.seed))
        block[-8:] = number.to_bytes(8, "big")
        if number == 0:
            head = self._head()
            block[: len(head)] = head
        if self.flipped_at is not None and begin <= self.flipped_at < begin + BLOCK_BYTES:
            block[self.flipped_at - begin] ^= 1
        return bytes(block[: self.size_bytes - begin])

    def _head(self) -> bytes:
        """As safetensors begins: 8 bytes with the length of a JSON text, and the text."""
        text_bytes = 120  # room for a tensor of any size
        count = self.size_bytes - 8 - text_bytes
        text = canonical({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}})
        return text_bytes.to_bytes(8, "little") + text.ljust(text_bytes)


@cache
def _noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(BLOCK_BYTES)


@cache
def _sha256(bulk: Bulk) -> str:
    hasher = hashlib.sha256()
    for block in bulk.blocks():
        hasher.update(block)
    return hasher.hexdigest()
