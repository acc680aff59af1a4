"""Bringing an earlier version back from the inventory alone: the protocol of drivers that can, and recipes as JSON."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from pipeline.core.digest import Json
from pipeline.core.errors import MpError
from pipeline.core.model import Question, Secret
from pipeline.core.resource import Address, Entry, Observed, Resource, S, Version

Record = Mapping[str, Any]  # a recipe as JSON: as heterogeneous as its fields


@runtime_checkable
class Restores(Protocol[S]):
    """What a driver has besides that can bring an earlier version back: no manifest, no source, no lock."""

    def recall(self, resource: Resource[S], inputs: Mapping[Address, Observed[Any]]) -> Mapping[str, Json]:
        """What `restore` needs besides the state: digests, questions, where secrets are found, never their values."""
        ...

    def restore(self, entry: Entry, version: Version) -> Resource[S]:
        """The resource as it was then, at the place of the entry; it needs nothing. Raises MpError when that cannot be."""
        ...


def to_json(recipe: Any) -> dict[str, Json]:  # Any: a dataclass of any kind
    """Every field, also of the dataclasses inside; a Secret is a reference and holds no value."""
    return cast(dict[str, Json], _plain(dataclasses.asdict(recipe)))


def recipe_of(entry: Entry, version: Version) -> Record:
    """Raises MpError when the version was kept without one."""
    if version.recipe is None:
        raise MpError(
            f"{entry.address}: how its earlier version was made is not known", "apply the one you want"
        )
    return version.recipe


@contextlib.contextmanager
def whole(entry: Entry) -> Iterator[None]:
    """Reads what was kept; another version of mp may have kept other fields."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as problem:
        text = f"{entry.address}: its earlier version was kept by another mp"
        raise MpError(text, "apply the version you want") from problem


def secret_from(record: Record | None) -> Secret | None:
    if record is None:
        return None
    there = record["kubernetes"]
    return Secret(record["name"], record["env"], record["file"], (there[0], there[1]) if there else None)


def questions_from(records: Sequence[Record]) -> tuple[Question, ...]:
    return tuple(Question(**record) for record in records)


def _plain(value: Any) -> Json:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else cast(Json, value)
