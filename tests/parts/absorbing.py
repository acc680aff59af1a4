"""The smallest thing that absorbs: reads once, hashes, remembers. What sources get in their tests instead of a cache."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO

from pipeline.resources.cache.reading import received


class Absorbing:
    """`read` has the identities whose bytes were read, in order."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, int]] = {}
        self.read: list[str] = []

    def __call__(
        self,
        identity: str,
        size_bytes: int | None,
        opening: Callable[[int], AbstractContextManager[BinaryIO]],
        *,
        keep: bool = True,
    ) -> tuple[str, int]:
        if identity not in self.known:
            self.read.append(identity)
            digest, count = hashlib.sha256(), 0
            for chunk in received(identity, size_bytes, opening, lambda _: None):
                digest.update(chunk)
                count += len(chunk)
            self.known[identity] = (digest.hexdigest(), count)
        return self.known[identity]
