"""Objects in the order they are applied, and as they are sent: with digests and fingerprint. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.digest import Json, fingerprint
from pipeline.resources.cluster.marks import FINGERPRINT, key_of

VOLUME_FIELD = "reference"  # of an image volume
IMAGE_FIELDS = ("image", VOLUME_FIELD)

# What is needed comes before what needs it; deleting goes the other way.
ORDER = (
    "ServiceAccount",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Job",
    "Service",
    "PodDisruptionBudget",
    "Deployment",
    "StatefulSet",
    "LeaderWorkerSet",
    "Workspace",
    "InferenceSet",
    "HorizontalPodAutoscaler",
    "ScaledObject",
)


def ordered(found: Mapping[str, Json]) -> tuple[Object, ...]:
    """The objects of a state, in the order they are applied; also of a state that the inventory kept."""
    each = [one for one in found.values() if isinstance(one, dict)]
    return tuple(sorted(each, key=lambda one: (ORDER.index(str(one["kind"])), key_of(one))))


def written(one: Object, digests: Mapping[str, str]) -> Object:
    """An object as it is sent: with its fingerprint, and with the digests that are known of its images (by reference)."""
    full: Object = _with_digests(one, digests)
    metadata = full["metadata"]
    annotations = {**metadata["annotations"], FINGERPRINT: fingerprint(one)}
    return {**full, "metadata": {**metadata, "annotations": annotations}}


def images_of(one: Object) -> Iterable[str]:
    """Every image that an object names: of containers, and of image volumes."""
    yield from _texts(one, IMAGE_FIELDS)


def digests_in(*objects: Object) -> dict[str, str]:
    """The digest of each image that live objects name: "repo:tag" → "sha256:…"."""
    found = (image.partition("@") for one in objects for image in images_of(one))
    return {name: digest for name, _, digest in found if digest}


def mounts_images(one: Json) -> bool:
    """Whether an object has an image volume."""
    return any(_texts(one, (VOLUME_FIELD,)))


def _texts(one: Any, fields: Sequence[str]) -> Iterable[str]:
    pending: list[Any] = [one]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from (v for k, v in value.items() if k in fields and isinstance(v, str))
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _with_digests(value: Any, digests: Mapping[str, str]) -> Any:
    """`image:` of a container and `reference:` of an image volume, "repo:tag" → "repo:tag@sha256:…"."""
    if isinstance(value, list):
        return [_with_digests(item, digests) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _pinned(key, item, digests) for key, item in value.items()}


def _pinned(key: str, value: Any, digests: Mapping[str, str]) -> Any:
    if key in IMAGE_FIELDS and isinstance(value, str):
        return f"{value}@{digests[value]}" if value in digests else value
    return _with_digests(value, digests)
