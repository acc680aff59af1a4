"""What processes remember together: an append-only file of lines. Used by the cache for what hashing has shown."""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

V = TypeVar("V")

_FORBIDDEN = frozenset("\t\n\r")


class Memory(Generic[V]):
    """`key\\tword\\tword\\n`, each line appended in one write; the last line of a key counts.

    Read when something is asked that is not known yet, then only what came since. A line that is no line (cut off by a
    full disk, written by nobody) is as good as none: a damaged memory costs time and nothing else.
    """

    def __init__(self, path: Path, parse: Callable[[Sequence[str]], V]) -> None:
        self._path = path
        self._parse = parse  # raises ValueError for words that mean nothing
        self._known: dict[str, V] = {}
        self._guard = threading.Lock()
        self._inode = 0
        self._read_bytes = 0
        self._torn = False  # the file ends within a line

    def get(self, key: str) -> V | None:
        """What is remembered, by other processes too."""
        with self._guard:
            if key not in self._known:
                with contextlib.suppress(OSError):
                    self._refresh()
            return self._known.get(key)

    def put(self, key: str, words: Sequence[str], *, durable: bool = False) -> None:
        """Remember; nothing is written when it is known already. Raises OSError."""
        if any(not _FORBIDDEN.isdisjoint(word) for word in (key, *words)):
            raise ValueError(f"a memory keeps single words: {key!r}")
        value = self._parse(words)
        with self._guard:
            self._refresh()
            if self._known.get(key) == value:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            line = "\t".join((key, *words)) + "\n"
            with self._path.open("ab", buffering=0) as file:
                # one word too many makes sure that what was cut off never counts
                file.write(f"\tcut\n{line}".encode() if self._torn else line.encode())
                if durable:
                    os.fsync(file.fileno())
            self._known[key] = value

    def _refresh(self) -> None:
        try:
            seen = self._path.stat()
        except FileNotFoundError:
            return
        if (seen.st_ino, seen.st_size) == (self._inode, self._read_bytes):
            return
        with self._path.open("rb") as file:
            if seen.st_ino == self._inode and seen.st_size > self._read_bytes:
                file.seek(self._read_bytes)
            else:  # another file
                self._inode, self._read_bytes = seen.st_ino, 0
                self._known.clear()
            lines = file.read().split(b"\n")
        self._torn = bool(lines[-1])
        self._read_bytes += sum(len(line) + 1 for line in lines[:-1])
        for line in lines[:-1]:
            key, *words = line.decode(errors="replace").split("\t")
            with contextlib.suppress(ValueError):
                self._known[key] = self._parse(words)
