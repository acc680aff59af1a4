"""Whether a registry takes the layers of the images that are wanted there: said before anything moves. Pure; used by compose."""

from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.clients.oci.limits import Limits, limits_of
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.image import Registry
from pipeline.core.resource import Resource, owner_of
from pipeline.resources.image.layers import Layer
from pipeline.resources.image.resource import ImageState


def too_large(resources: Iterable[Resource[Any]]) -> Iterator[Diagnostic]:
    """An error for every layer that is larger than its registry takes; once a model and registry."""
    told: set[tuple[str, str, str]] = set()
    for resource in resources:
        recipe = resource.desired.recipe if isinstance(resource.desired, ImageState) else None
        if recipe is None:
            continue
        registry = recipe.name.registry
        known, owner = limits_of(registry), owner_of(resource.address)
        for layer in recipe.layers:
            key = (owner, registry.location, layer.title)
            if known.max_layer_bytes and layer.size_bytes > known.max_layer_bytes and key not in told:
                told.add(key)
                yield error(_summary(owner, layer, registry, known), resource.where, _hint(registry), owner)


def _summary(owner: str, layer: Layer, registry: Registry, known: Limits) -> str:
    name = f"{registry.location} ({known.registry})" if known.registry else registry.location
    return (
        f'{owner}: "{layer.title}" makes a layer of {_size(layer.size_bytes)}, '
        f"and {name} takes {_size(known.max_layer_bytes or 0)} at most"
    )


def _hint(registry: Registry) -> str:
    return (
        "name another registry, weights: mount, or a source with smaller shards: a file cannot be in two layers; "
        f"if it takes more: registries: {{{registry.name}: {{max_layer: …}}}}"
    )


def _size(size_bytes: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= one:
            return f"{size_bytes / one:,.2f} {unit}"
    return f"{size_bytes} bytes"
