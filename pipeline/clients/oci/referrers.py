"""What points at an image (signatures, SBOMs): the referrers list where a registry keeps none itself. Used by both repositories.

OCI distribution specification 1.1.0, "Listing Referrers" and "Referrers Tag Schema": the list is then an image index under
the tag `sha256-<hex>`, which clients keep up to date.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.clients.oci.repository import INDEX, Descriptor, ImageManifest
from pipeline.core.digest import Digest, Json, canonical
from pipeline.core.errors import BackendError, Corrupt

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"  # of the config of what has none
_TAG = re.compile(r"sha256-[0-9a-f]{64}")
_TRIES = 5  # of writing a list that others write too


def list_tag(subject: Digest) -> str:
    """The tag of the list: "sha256-<64 hex>"."""
    return subject.replace(":", "-")


def is_list_tag(tag: str) -> bool:
    return _TAG.fullmatch(tag) is not None


def subject_of(manifest: ImageManifest) -> Digest:
    """The image that a manifest points at. Raises ValueError where there is none: ours to get right."""
    subject = manifest.document().get("subject")
    if not isinstance(subject, dict) or not isinstance(subject.get("digest"), str):
        raise ValueError("a referrer needs a subject")
    return Digest(str(subject["digest"]))


def described(manifest: ImageManifest) -> Descriptor:
    """A referrer as a list shows it; its type is the manifest's own, else its config's."""
    document = manifest.document()
    config = document.get("config")
    kind = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    return Descriptor(
        manifest.media_type,
        manifest.digest,
        len(manifest.body),
        str(kind) if kind else None,
        manifest.annotations(),
    )


def told(found: Iterable[Descriptor], read: Callable[[str], ImageManifest | None]) -> Iterator[Descriptor]:
    """Each with what its manifest says, where the list does not.

    Lists by tag that go-containerregistry keeps (0.22, and with it cosign) name the config's type and no annotations.
    """
    for each in found:
        manifest = read(each.digest) if each.artifact_type in (None, EMPTY_TYPE) else None
        yield described(manifest) if manifest else each


def listed(index: bytes, location: str) -> tuple[Descriptor, ...]:
    """The descriptors of an index. Raises Corrupt where it is none."""
    try:
        return tuple(_descriptor(each) for each in json.loads(index)["manifests"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Corrupt(location, "a list of referrers is not an image index") from problem


def of_type(found: Iterable[Descriptor], artifact_type: str | None) -> tuple[Descriptor, ...]:
    """In a stated order: by type, then digest. A registry need not filter, so it is done here."""
    chosen = (each for each in found if artifact_type in (None, each.artifact_type))
    return tuple(sorted(chosen, key=lambda each: (each.artifact_type or "", each.digest)))


def enlist(
    added: Sequence[Descriptor],
    read: Callable[[], ImageManifest | None],
    write: Callable[[ImageManifest], object],
    location: str,
) -> None:
    """Add some to a list by tag; callers let one thread in. Other machines may overwrite it, so it is read again.

    The specification knows no better way. Raises BackendError when the list does not keep it.
    """
    for _ in range(_TRIES):
        index = enlisted(read(), added, location)
        if index is None:
            return
        write(index)
    hint = "somebody else writes it all the time: run it again"
    names = ", ".join(each.digest for each in added)
    raise BackendError(location, f"the list of what points at an image does not keep {names}", hint)


def enlisted(found: ImageManifest | None, added: Sequence[Descriptor], location: str) -> ImageManifest | None:
    """A list with some more in it; None where it has them all."""
    before = listed(found.body, location) if found else ()
    known = {each.digest for each in before}
    new = [each for each in added if each.digest not in known]
    return index_of((*before, *new)) if new else None


def delist(
    gone: Digest,
    read: Callable[[], ImageManifest | None],
    write: Callable[[ImageManifest], object],
    remove: Callable[[Digest], object],
    location: str,
) -> None:
    """Take one out of a list by tag, and the former list away; callers let one thread in. Reads again, as `enlist` does."""
    for _ in range(_TRIES):
        former = read()
        left = delisted(former, gone, location)
        if former is None or left is None:
            return
        if left:
            write(index_of(left))
        remove(former.digest)
    hint = "somebody else writes it all the time: run it again"
    raise BackendError(location, f"the list of what points at an image goes on naming {gone}", hint)


def delisted(found: ImageManifest | None, gone: Digest, location: str) -> tuple[Descriptor, ...] | None:
    """What stays in a list without one; None where it does not name that one."""
    before = listed(found.body, location) if found else ()
    left = tuple(each for each in before if each.digest != gone)
    return left if len(left) < len(before) else None


def index_of(descriptors: Sequence[Descriptor]) -> ImageManifest:
    """The list of these, in the one form in which it is written here."""
    ordered: list[Json] = [each.document() for each in of_type(descriptors, None)]
    return ImageManifest(
        canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": ordered}),
        INDEX,
    )


def _descriptor(found: dict[str, Json]) -> Descriptor:
    annotations = found.get("annotations")
    kind = found.get("artifactType")
    return Descriptor(
        str(found["mediaType"]),
        Digest(str(found["digest"])),
        int(str(found["size"])),
        str(kind) if kind else None,
        {key: str(value) for key, value in annotations.items()} if isinstance(annotations, dict) else {},
    )
