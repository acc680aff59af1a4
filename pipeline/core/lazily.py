"""A table whose values are made when they are asked for: what a manifest does not name costs no time at the start."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class Lazily(Mapping[str, V]):
    """A mapping of names to values, from a mapping of names to what makes each of them. A value is made once.

    To know the names, how many there are and whether one is among them makes nothing.
    """

    def __init__(self, makers: Mapping[str, Callable[[], V]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, V] = {}

    def __getitem__(self, name: str) -> V:
        if name not in self._made:
            self._made.setdefault(name, self._makers[name]())  # two threads get the same one
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
