"""Digests and fingerprints: names that are hashes of inputs. Used by every room that names or compares things."""

import hashlib
import json
from typing import NewType, TypeAlias

Digest = NewType("Digest", str)  # "sha256:<64 hex>"

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8. Equal values give equal bytes."""
    return _ENCODER.encode(value).encode()


def fingerprint(value: object) -> str:
    """64 hex: sha256 of the canonical JSON of the inputs that determine a thing."""
    return hashlib.sha256(canonical(value)).hexdigest()


def digest(content: bytes) -> Digest:
    """The OCI digest of some bytes."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def image_tag(full: str) -> str:
    """The tag of a thing with this fingerprint: "mp-<12 hex>"."""
    return f"mp-{full[:12]}"
