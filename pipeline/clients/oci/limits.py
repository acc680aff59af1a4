"""What a registry takes, by its host: data/registries.yaml, and what the manifest says of it. Used by clients/oci and plans."""

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.size import size_bytes

DATA = Path(__file__).parent / "data" / "registries.yaml"


@frozen
class Limits:
    """None: not known, or none."""

    registry: str | None = None  # "GitHub Container Registry"
    max_layer_bytes: int | None = None
    max_request_bytes: int | None = None  # of any request: larger layers always go in parts
    max_part_bytes: int | None = None  # of a request that goes on with an upload
    window_s: int | None = None  # what one upload may take
    patch: bool = True
    mounts: bool = True
    referrers: bool | None = None  # None: it is asked


def limits(host: str) -> Limits:
    """What is known of a host, "ghcr.io"."""
    found = (known for patterns, known in _known() if any(fnmatchcase(host, one) for one in patterns))
    return next(found, Limits())


def limits_of(registry: Registry) -> Limits:
    """The host's, where the manifest does not say otherwise. A layout has none."""
    if registry.url is None:
        return Limits()
    known = limits(registry.url.partition("/")[0])
    return replace(
        known,
        max_layer_bytes=registry.max_layer_bytes or known.max_layer_bytes,
        max_request_bytes=registry.max_request_bytes,
    )


@cache
def _known() -> tuple[tuple[tuple[str, ...], Limits], ...]:
    import yaml

    return tuple((tuple(entry["hosts"]), _limits(entry)) for entry in yaml.safe_load(DATA.read_bytes()))


def _limits(entry: dict[str, Any]) -> Limits:  # Any: a record of our own file
    return Limits(
        registry=entry["name"],
        max_layer_bytes=size_bytes(entry["max_layer"]) if "max_layer" in entry else None,
        max_part_bytes=size_bytes(entry["max_part"]) if "max_part" in entry else None,
        window_s=entry.get("window_s"),
        patch=entry.get("patch", True),
        mounts=entry.get("mounts", True),
        referrers=entry.get("referrers"),
    )
