"""What publishing images would move, each alone and all together. Used by resources/publish and image."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.core.frozen import frozen
from pipeline.core.resource import Transfer

QUESTIONS = 4  # at once, for each image

A = TypeVar("A")
B = TypeVar("B")


@frozen
class Outlook:
    """What publishing one image would move, as if it were the only one."""

    place: str  # the registry
    engine: Transfer
    layers: tuple[tuple[str, Transfer], ...]  # by key


def together(outlooks: Iterable[Outlook]) -> Iterator[Transfer]:
    """What publishing each would move when all of them are: a layer goes to a registry once, with the first that wants it."""
    sent: set[tuple[str, str]] = set()
    for outlook in outlooks:
        total = outlook.engine
        for key, moved in outlook.layers:
            if (outlook.place, key) in sent:
                moved = Transfer(reused_bytes=moved.push_bytes, exact=moved.exact)
            elif moved.push_bytes:
                sent.add((outlook.place, key))
            total += moved
        yield total


def side_by_side(ask: Callable[[A], B], things: Sequence[A]) -> list[B]:
    """Questions to a registry, a few at a time; not worth a thread where they are few."""
    if len(things) <= 2:
        return [ask(thing) for thing in things]
    with ThreadPoolExecutor(min(QUESTIONS, len(things)), "ask") as pool:
        return list(pool.map(ask, things))
