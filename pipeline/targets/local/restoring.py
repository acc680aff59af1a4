"""A process as it was before, from what the inventory keeps of it. Used by the driver."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.digest import Json
from pipeline.core.errors import MpError
from pipeline.core.resource import Entry, Resource, Version
from pipeline.core.restoring import Record, recipe_of, to_json, whole
from pipeline.targets.local.spec import LocalRecipe, LocalState
from pipeline.targets.restoring import recipe_from


def recalled(resource: Resource[LocalState]) -> Mapping[str, Json]:
    """Its recipe."""
    assert resource.desired.recipe is not None, "a desired process knows how it is made"
    return to_json(resource.desired.recipe)


def restored(entry: Entry, version: Version) -> Resource[LocalState]:
    """Raises MpError when it was started by files that this mp does not have any more."""
    record = recipe_of(entry, version)
    with whole(entry):
        state: dict[str, Any] = dict(version.state)
        desired = LocalState(**state, recipe=_recipe(record))
        runtime = [(Path(record["root"], path), sha256) for path, sha256 in record["runtime"]]
    for file, sha256 in runtime:
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            text = f"{entry.address}: its earlier version was started by another {file.name}"
            raise MpError(text, "mp was updated since: apply the version you want")
    return Resource(entry.address, entry.kind, entry.locator, desired)


def _recipe(record: Record) -> LocalRecipe:
    runtime = tuple((str(path), str(sha256)) for path, sha256 in record["runtime"])
    return LocalRecipe(
        **vars(recipe_from(record)), serve=record["serve"], root=record["root"], runtime=runtime
    )
