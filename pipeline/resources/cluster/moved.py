"""Registries that moved: an image that runs under its old name, and is the same under the new one, restarts nothing. Pure.

A tag is a fingerprint of what is inside, so repository and tag say that an image is meant to be the same; whether it is says
its digest, which the engine compares. The new name is written with the next real change.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.digest import Digest, Json
from pipeline.core.resource import Address
from pipeline.resources.cluster.fields import record
from pipeline.resources.cluster.sending import IMAGE_FIELDS, images_of
from pipeline.resources.cluster.shape import shaped


def moved(
    live: Mapping[str, Object], wanted: Mapping[str, Json], images: Mapping[str, Address]
) -> tuple[dict[str, Object], dict[Address, Digest]]:
    """Live objects with the new names of their images, where nothing else is to change; and the digests that run.

    `images`: the wanted name of an image → the resource that it is.
    """
    found, runs = dict(live), dict[Address, Digest]()
    for key, one in live.items():
        old: dict[str, str] = {}
        renamed = _renamed(one, wanted.get(key), images, old)
        if old and shaped(renamed, record(wanted.get(key))) == wanted.get(key):
            found[key] = renamed
            runs |= {images[name]: Digest(digest) for name, digest in old.items()}
    return found, runs


def staying(live: Mapping[str, Object], runs: Mapping[Address, Digest]) -> str:
    """What a plan says of it: "its image is the same there: pulls from ghcr.io/acme until its next change"."""
    names = {
        name.rpartition("/")[0]
        for one in live.values()
        for name in images_of(one)
        if name.partition("@")[2] in runs.values()
    }
    return f"its registry has moved and its image is the same: it pulls from {' and '.join(sorted(names))} until its next change"


def _renamed(live: Any, wanted: Any, images: Mapping[str, Address], old: dict[str, str]) -> Any:
    """The live value with wanted names of images. `old` gets the digest of each."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        return {
            key: _name(value, wanted.get(key), images, old)
            if key in IMAGE_FIELDS and isinstance(value, str)
            else _renamed(value, wanted.get(key), images, old)
            for key, value in live.items()
        }
    if isinstance(live, list) and isinstance(wanted, list) and len(live) == len(wanted):
        return [
            _renamed(one, other, images, old)
            for one, other in zip(live, _in_order(live, wanted), strict=True)
        ]
    return live


def _name(live: str, wanted: Any, images: Mapping[str, Address], old: dict[str, str]) -> str:
    name, _, digest = live.partition("@")
    if wanted not in images or wanted == name or not digest or _tail(name) != _tail(wanted):
        return live
    old[wanted] = digest
    return f"{wanted}@{digest}"


def _in_order(live: list[Any], wanted: list[Any]) -> list[Any]:
    """Wanted items beside the live ones of the same name: the server may keep another order."""
    named = {one["name"]: one for one in wanted if isinstance(one, dict) and "name" in one}
    return [named.get(one.get("name")) if isinstance(one, dict) and named else other
            for one, other in zip(live, wanted, strict=True)]  # fmt: skip


def _tail(name: str) -> str:
    """Repository and tag, without the registry and its prefix: "qwen:mp-1a2b3c4d5e6f"."""
    return name.rpartition("/")[2]
