"""Bytes whose source cannot tell their hash: read once, by whoever comes first, and remembered by what names them. Used by store."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, TypeAlias

from pipeline.core.frozen import frozen
from pipeline.resources.cache.blobs import POLL_S, Blobs, disk
from pipeline.resources.cache.memory import Memory
from pipeline.resources.cache.reading import Opening, hashed

Absorbed: TypeAlias = tuple[str, int]  # sha256 (64 hex) and size in bytes


class _Known(Exception):
    """Another one has read the same bytes meanwhile."""

    def __init__(self, answer: Absorbed) -> None:
        super().__init__()
        self.answer = answer


def absorbed_of(words: Sequence[str]) -> Absorbed:
    """A line of the memory. Raises ValueError."""
    size, sha256 = words
    if len(sha256) != 64:
        raise ValueError(sha256)
    return sha256, int(size)


@frozen
class Absorbing:
    """The bytes that one identity names."""

    identity: str  # one line: "s3://b/k etag=…"
    size_bytes: int | None
    opening: Opening
    blobs: Blobs
    memory: Memory[Absorbed]
    root: str  # of the cache
    pause: Callable[[float], None]

    def run(self, *, keep: bool) -> Absorbed:
        """As it is remembered, or read now. Raises what `opening` raises, Corrupt, Exhausted."""
        while True:
            if found := self._known():
                return found
            if not keep:
                answer = hashed(self._name, self.size_bytes, self.opening, self.pause)
                self._remember(answer)
                return answer
            if made := self._made():
                return made
            self.pause(POLL_S)

    def _made(self) -> Absorbed | None:
        """A blob of them; None while another process is at it."""
        try:
            with self.blobs.reserved(self.size_bytes or 0):
                return self.blobs.absorb(
                    self._key, self._name, self.size_bytes, self._unless_known, self._remember
                )
        except _Known as problem:
            return problem.answer

    def _unless_known(self, start: int) -> AbstractContextManager[BinaryIO]:
        if start == 0 and (found := self._known()):  # whoever was at it has just ended
            raise _Known(found)
        return self.opening(start)

    def _known(self) -> Absorbed | None:
        found = self.memory.get(self._key)
        return found if found is not None and self.size_bytes in (None, found[1]) else None

    def _remember(self, answer: Absorbed) -> None:
        with disk(self.root):
            self.memory.put(self._key, [str(answer[1]), answer[0]], durable=True)

    @property
    def _key(self) -> str:
        """An identity may hold what does not belong into a file."""
        return hashlib.sha256(self.identity.encode()).hexdigest()

    @property
    def _name(self) -> str:
        return self.identity.partition(" ")[0]
