"""A deployment in a cluster as it was before, from what the inventory keeps of it. Used by the driver."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.digest import Json
from pipeline.core.resource import Address, Entry, Observed, Resource, Version
from pipeline.core.restoring import Record, questions_from, recipe_of, secret_from, to_json, whole
from pipeline.resources.cluster.state import ClusterRecipe, ClusterState


def recalled(resource: Resource[ClusterState], inputs: Mapping[Address, Observed[Any]]) -> Mapping[str, Json]:
    """Its recipe with the digests that are known of its images."""
    recipe = resource.desired.recipe
    assert recipe is not None, "a desired deployment knows how it is made"
    seen = {image: inputs[where].digest for image, where in recipe.images.items() if where in inputs}
    digests: dict[str, Json] = {image: str(digest) for image, digest in seen.items() if digest}
    return to_json(recipe) | {"images": {}, "digests": {**recipe.digests, **digests}}


def as_it_was(entry: Entry, version: Version) -> Resource[ClusterState]:
    """Raises MpError when it was kept by an mp that wrote it otherwise."""
    record = recipe_of(entry, version)
    with whole(entry):
        state: dict[str, Any] = dict(version.state)
        desired = ClusterState(**state, recipe=_recipe(record))
    return Resource(entry.address, entry.kind, entry.locator, desired)


def _recipe(record: Record) -> ClusterRecipe:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
    }
    fields["questions"] = questions_from(record["questions"])
    fields["api_key"] = secret_from(record["api_key"])
    return ClusterRecipe(**fields)
