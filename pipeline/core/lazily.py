"""A table whose values are made when they are asked for: what a manifest does not name costs no time at the start."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, overload

V = TypeVar("V")
D = TypeVar("D")


class Lazily(Mapping[str, V]):
    """A mapping of names to values, from a mapping of names to what makes each of them. Safe for threads.

    A value is made once, and one after the other, so that makers may share what they make. To know the names, how many there
    are and whether one is among them makes nothing.
    """

    def __init__(self, makers: Mapping[str, Callable[[], V]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, V] = {}
        self._making = threading.RLock()

    def __getitem__(self, name: str) -> V:
        if name not in self._made:
            with self._making:
                if name not in self._made:
                    self._made[name] = self._makers[name]()
        return self._made[name]

    @overload
    def get(self, name: str, default: None = None, /) -> V | None: ...
    @overload
    def get(self, name: str, default: V | D, /) -> V | D: ...
    def get(self, name: str, default: V | D | None = None, /) -> V | D | None:
        """The value, or the default where there is no such name. A KeyError of a maker is a mistake, and is seen."""
        if name not in self._makers:
            return default
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
