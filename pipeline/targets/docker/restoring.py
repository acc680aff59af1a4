"""A container as it was before, from what the inventory keeps of it. Used by the driver."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.digest import Digest, Json
from pipeline.core.image import ImageName, Registry
from pipeline.core.resource import Address, Entry, Observed, Resource, Version
from pipeline.core.restoring import Record, recipe_of, to_json, whole
from pipeline.targets.docker.spec import DockerRecipe, DockerState
from pipeline.targets.restoring import recipe_from


def recalled(resource: Resource[DockerState], inputs: Mapping[Address, Observed[Any]]) -> Mapping[str, Json]:
    """Its recipe with the digest that it ran with; files only where they are mounted."""
    state, recipe = resource.desired, resource.desired.recipe
    assert recipe is not None, "a desired container knows how it is made"
    seen = inputs.get(recipe.image_address)
    record = to_json(recipe) | {"digest": (seen.digest if seen else None) or recipe.digest}
    return record if state.weights == "mount" else record | {"files": [], "overlays": []}


def restored(entry: Entry, version: Version) -> Resource[DockerState]:
    """Raises MpError when it was kept by an mp that wrote it otherwise."""
    record = recipe_of(entry, version)
    with whole(entry):
        state: dict[str, Any] = dict(version.state)
        desired = DockerState(**{**state, "command": tuple(state["command"])}, recipe=_recipe(record))
    return Resource(entry.address, entry.kind, entry.locator, desired)


def _recipe(record: Record) -> DockerRecipe:
    image = record["image"]
    registry = Registry(**{**image["registry"], "mirrors": tuple(image["registry"]["mirrors"])})
    return DockerRecipe(
        **vars(recipe_from(record)),
        image=ImageName(registry, image["repository"], image["tag"]),
        image_address=Address(record["image_address"]),
        digest=Digest(record["digest"]) if record["digest"] else None,
    )
