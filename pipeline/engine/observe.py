"""See what is there: every driver once, side by side. What cannot be read is Unreadable, never absent."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.core.errors import BackendError
from pipeline.core.protocols import Answer, Driver
from pipeline.core.resource import Address, Entry, Resource, Unreadable
from pipeline.engine.moving import settled


def observe(
    wanted: Mapping[Address, Resource[Any]], gone: Sequence[Entry], drivers: Mapping[str, Driver[Any]]
) -> dict[Address, Answer]:
    """An answer for every wanted resource and every orphan, one call per kind, and what answers mean for one another."""
    resources: defaultdict[str, list[Resource[Any]]] = defaultdict(list)
    entries: defaultdict[str, list[Entry]] = defaultdict(list)
    for resource in wanted.values():
        resources[resource.kind].append(resource)
    for entry in gone:
        entries[entry.kind].append(entry)
    kinds = sorted(resources.keys() | entries.keys())
    answers: dict[Address, Answer] = {}
    if not kinds:
        return answers
    with ThreadPoolExecutor(max_workers=len(kinds), thread_name_prefix="observe") as pool:
        for seen in pool.map(lambda kind: _ask(drivers.get(kind), resources[kind], entries[kind]), kinds):
            answers.update(seen)
    return settled(answers)


def _ask(
    driver: Driver[Any] | None, wanted: Sequence[Resource[Any]], known: Sequence[Entry]
) -> Mapping[Address, Answer]:
    addresses = [*(r.address for r in wanted), *(e.address for e in known)]
    if driver is None:  # an inventory written by an mp that knew more kinds
        return dict.fromkeys(addresses, Unreadable("no driver for this kind"))
    try:
        return driver.observe(wanted, known)
    except BackendError as problem:
        return dict.fromkeys(addresses, Unreadable(problem.message, problem.hint))
