"""The annotations on objects: whose they are, which object they were written for, and what was written. Pure."""

from collections.abc import Mapping

from pipeline.core.digest import Json
from pipeline.core.mark import as_texts, mark_in
from pipeline.core.resource import Mark

OBJECT = "dev.mp.object"  # "Deployment/qwen": a copy under another name has a mark that does not fit it
# Of pods whose controller tells them apart by no label that can be computed: which version of the template they are of.
TEMPLATE = "dev.mp.template"
REVISIONS = "dev.mp.revisions"  # of pods: the secrets that restart them, as rotation.py tells them
SERVES = "dev.mp.serves"  # label of pods that a Service has in front, whichever Deployment they are of
FILLED = "dev.mp.filled"  # of a claim: 12 hex of the files that it holds, each verified
FINGERPRINT = "dev.mp.fingerprint"  # of the object as mp wrote it, its digests and this annotation aside


def annotations_of(mark: Mark, key: str) -> dict[str, Json]:
    """`key` is "Deployment/qwen"."""
    return {**as_texts(mark), OBJECT: key}


def key_of(one: Mapping[str, Json]) -> str:
    """ "Deployment/qwen" of an object."""
    return f"{one['kind']}/{_metadata(one)['name']}"


def mark_of(one: Mapping[str, Json]) -> Mark | None:
    """Whose a live object is; None when mp did not make it, or made another that this is a copy of."""
    found = _annotations(one)
    return mark_in(found) if found.get(OBJECT) == key_of(one) else None


def fingerprint_of(one: Mapping[str, Json]) -> str:
    """What mp wrote last on a live object; "" where it says nothing."""
    return str(_annotations(one).get(FINGERPRINT) or "")


def _annotations(one: Mapping[str, Json]) -> Mapping[str, Json]:
    found = _metadata(one).get("annotations")
    return found if isinstance(found, dict) else {}


def _metadata(one: Mapping[str, Json]) -> Mapping[str, Json]:
    found = one["metadata"]
    assert isinstance(found, dict), "an object has metadata"
    return found
