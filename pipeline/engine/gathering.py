"""Many things read side by side; what fails or is refused is told of each, and the others go on. Used by resolve."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.core.diagnostic import Diagnostic, Where, error
from pipeline.core.errors import MpError, Refused

READERS = 8  # metadata requests at once
K = TypeVar("K")
Value = TypeVar("Value")


def gather(
    keys: Mapping[K, str],
    read: Callable[[K], Value],
    where: Callable[[K], Where | None],
    label: Callable[[K], str],
) -> tuple[dict[K, Value], tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """Read every key side by side; what fails is a diagnostic, and what is refused another, the others go on."""
    found: dict[K, Value] = {}
    problems: list[Diagnostic] = []
    refused: list[Diagnostic] = []

    def attempt(key: K) -> Value | MpError:
        try:
            return read(key)
        except MpError as problem:
            return problem

    if not keys:
        return found, (), ()
    with ThreadPoolExecutor(max_workers=min(READERS, len(keys)), thread_name_prefix="resolve") as pool:
        for key, result in zip(keys, pool.map(attempt, keys), strict=True):
            if isinstance(result, MpError):
                owner = label(key)
                told = error(f"{owner}: {result.message}", where(key), result.hint, owner.split()[0])
                (refused if isinstance(result, Refused) else problems).append(told)
            else:
                found[key] = result
    return found, tuple(problems), tuple(refused)
