"""One layer of an image as a place of files: what is in it, their bytes from anywhere, and their hashes. Used by sources/oci."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

from pipeline.clients.oci.repository import Repository
from pipeline.core.errors import Corrupt, Refused, Unreachable
from pipeline.core.protocols import Absorb
from pipeline.sources.oci.packing import Packed
from pipeline.sources.oci.tar import FILE, Blob, Content, Member, Section, ceiling, next_member
from pipeline.sources.oci.tree import Found, Tree

READ_BYTES = 2**20
PARKED = (
    4  # readings of a compressed layer that wait for who reads on: as many as files are fetched at a time
)


@dataclass
class Learned:
    """What reading a layer once told: by path."""

    sha256: dict[str, str] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)


class Layer:
    """Safe for threads. A compressed layer is read in order; who opens its files one after the other reads it once."""

    def __init__(
        self, reference: str, repository: Repository, packed: Packed, pause: Callable[[float], None]
    ) -> None:
        self.packed = packed
        self._reference = reference
        self._repository = repository
        self._pause = pause
        self._tree = Tree(reference, packed)
        self._guard = threading.Lock()  # of all below
        self._next_header: int | None = 0  # None: the whole layer was listed
        self._parked: list[Content] = []
        if not packed.archive:
            size_bytes = packed.size_bytes if packed.is_plain else packed.expanded_bytes
            self._tree.add(Member(packed.path, FILE, size_bytes or 0, 0, 0))
            self._next_header = None

    def tree(self) -> Tree:
        """Everything in it. A compressed layer is read to its end for that, of a plain one the headers."""
        self.find(None)
        return self._tree

    def find(self, path: str | None) -> Found | None:
        """A file by its path in the model, reading on until it is there."""
        with self._guard:
            if self._next_header is not None and (path is None or path not in self._tree.files):
                self._list(path)
            return self._tree.files.get(path) if path is not None else None

    def loses(self, path: str) -> bool:
        """Whether a lower layer's file is hidden by this one; asked when all of it was listed."""
        return self._tree.loses(path)

    @contextmanager
    def open(self, found: Found, start: int) -> Iterator[BinaryIO]:
        """The bytes of a file in it from an offset, not verified."""
        start = min(start, found.size_bytes)
        with self._guard:
            content = self._take(found.offset + start)
        section = Section(content, found.size_bytes - start)
        try:
            content.skip_to(found.offset + start)
            yield cast(BinaryIO, io.BufferedReader(section, READ_BYTES))
        except BaseException:
            content.close()
            raise
        self._park(content)

    def learn(
        self, wanted: Callable[[str], bool], absorb: Absorb | None, kept: Callable[[str, int], bool]
    ) -> Learned:
        """Read the layer once: hash the files that are `wanted`, handing each to `absorb`, and keep the bytes of `kept`.

        What it tells is what the layer's digest stands for: that is verified at the end. Raises Corrupt.
        """
        learned, hasher = Learned(), hashlib.sha256()
        tree = Tree(self._reference, self.packed)
        content = self._content(hasher.update)
        try:
            while member := self._next(content):
                found = tree.add(member)
                if (
                    found is not None
                    and found.kind == FILE
                    and (wanted(found.path) or kept(found.path, found.size_bytes))
                ):
                    self._learn(content, found, absorb if wanted(found.path) else None, learned, kept)
                content.skip_to(member.end)
            content.drain()
        finally:
            content.close()
        if f"sha256:{hasher.hexdigest()}" != self.packed.digest:
            raise Corrupt(
                self._reference, f"the bytes of {self.packed.digest} are not those", "publish it again"
            )
        with self._guard:
            self._tree, self._next_header = tree, None
        return learned

    def _learn(
        self,
        content: Content,
        found: Found,
        absorb: Absorb | None,
        learned: Learned,
        kept: Callable[[str, int], bool],
    ) -> None:
        """One file, from where the reading stands. Its hash is our own: `absorb` may only remember another reading's."""
        hasher, parts = hashlib.sha256(), list[bytes]()
        keep = kept(found.path, found.size_bytes)

        def update(block: bytes) -> None:
            hasher.update(block)
            if keep:
                parts.append(block)

        section = Section(content, found.size_bytes, update)
        if absorb is not None and found.size_bytes:
            identity = f"{self._reference}@{self.packed.digest} {found.path}"
            absorb(identity, found.size_bytes, partial(_once, self._reference, section, found.size_bytes))
        while section.read(READ_BYTES):
            pass
        learned.sha256[found.path] = hasher.hexdigest()
        if keep:
            learned.content[found.path] = b"".join(parts)

    def _list(self, path: str | None) -> None:
        assert self._next_header is not None
        content = self._take(self._next_header)
        try:
            content.skip_to(self._next_header)
            while path is None or path not in self._tree.files:
                member = self._next(content)
                if member is None:
                    self._next_header = None
                    break
                self._tree.add(member)
                self._next_header = member.end
                if path is None or path not in self._tree.files:
                    content.skip_to(member.end)
        except BaseException:
            content.close()
            raise
        if self._next_header is None or not self.packed.compression:
            content.close()
        else:
            self._parked.append(content)

    def _next(self, content: Content) -> Member | None:
        if not self.packed.archive:
            ended = content.position > 0 or self.packed.size_bytes == 0
            size_bytes = self.packed.expanded_bytes or 0
            return None if ended else Member(self.packed.path, FILE, size_bytes, 0, size_bytes)
        return next_member(self._reference, content)

    def _take(self, position: int) -> Content:
        """A reading that stands before this position, the nearest one; else a new one."""
        before = [content for content in self._parked if content.position <= position]
        if not before:
            return self._content()
        nearest = max(before, key=lambda content: content.position)
        self._parked.remove(nearest)
        return nearest

    def _park(self, content: Content) -> None:
        """Keep a reading of a compressed layer for whoever wants what comes next."""
        with self._guard:
            done = self._next_header is None and all(
                found.offset < content.position for found in self._tree.files.values()
            )
            if not self.packed.compression or done:
                content.close()
                return
            self._parked.append(content)
            if len(self._parked) > PARKED:
                self._parked.pop(0).close()

    def _content(self, update: Callable[[bytes], object] | None = None) -> Content:
        if self.packed.compression not in ("", "gzip"):
            text = f"{self.packed.digest} is compressed with {self.packed.compression}, which mp cannot read"
            hint = "publish it with gzip, as skopeo copy --dest-compress-format gzip does, or uncompressed"
            raise Refused(f"{self._reference}: {text}", hint)
        blob = Blob(
            self._reference,
            partial(self._repository.open_blob, self.packed.digest),
            self.packed.size_bytes,
            self._pause,
            update or (lambda block: None),
        )
        most = ceiling(
            self.packed.size_bytes, self.packed.expanded_bytes if self.packed.compression else None
        )
        return Content(self._reference, blob, self.packed.compression, most, leaps=update is None)


@contextmanager
def _once(reference: str, section: Section, size_bytes: int, start: int) -> Iterator[BinaryIO]:
    """The file that a reading stands at: it goes on by itself when a connection breaks, and never back."""
    while (ahead_bytes := start - size_bytes + section.left_bytes) > 0 and section.left_bytes:
        section.read(min(READ_BYTES, ahead_bytes))
    if ahead_bytes < 0:
        raise Unreachable(reference, "a layer is read once, in order", "run it again")
    yield cast(BinaryIO, section)
