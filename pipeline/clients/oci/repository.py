"""What a repository of images is, whatever keeps it: the protocol, its records and media types. Opened through clients/oci."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from pipeline.core.digest import Digest, Json
from pipeline.core.digest import digest as digest_of
from pipeline.core.errors import Corrupt
from pipeline.core.frozen import frozen

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
FILES = (
    "dev.mp.files"  # annotation of a layer of weights that mp wrote: {"path below /models": "sha256"} as JSON
)
BLOCK_BYTES = 2**20

Chunks: TypeAlias = Callable[
    [int], Iterator[bytes]
]  # the bytes of a blob from an offset; may be called again


@frozen
class Tagged:
    """What a tag or digest names, without its bytes."""

    digest: Digest
    size_bytes: int  # of the image manifest itself
    annotations: Mapping[str, str]
    media_type: str = MANIFEST


@frozen
class Descriptor:
    """An image manifest as a list of referrers shows it."""

    media_type: str
    digest: Digest
    size_bytes: int
    artifact_type: str | None = None  # "application/vnd.cyclonedx+json"
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def document(self) -> dict[str, Json]:
        made: dict[str, Json] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size_bytes,
        }
        if self.artifact_type:
            made["artifactType"] = self.artifact_type
        if self.annotations:
            made["annotations"] = dict(self.annotations)
        return made


@frozen
class ImageManifest:
    """An image manifest as it is stored."""

    body: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        return digest_of(self.body)

    def document(self) -> dict[str, Json]:
        parsed: Json = json.loads(self.body)
        if not isinstance(parsed, dict):
            raise Corrupt("registry", "an image manifest is not a JSON object")
        return parsed

    def annotations(self) -> dict[str, str]:
        found = self.document().get("annotations")
        return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}

    def tagged(self) -> Tagged:
        return Tagged(self.digest, len(self.body), self.annotations(), self.media_type)


class Repository(Protocol):
    """One repository. A reference is a tag or a digest. Every method raises Denied, Unreachable; 404 is None or False."""

    @property
    def location(self) -> str:
        """For messages: "127.0.0.1:5000/qwen3-8b"."""
        ...

    def head(self, reference: str) -> tuple[Digest, int] | None:
        """Digest and size of an image manifest: the cheapest question there is."""
        ...

    def describe(self, reference: str) -> Tagged | None:
        """Digest and annotations of an image manifest."""
        ...

    def manifest(self, reference: str) -> ImageManifest | None: ...

    def tags(self) -> tuple[str, ...]:
        """Sorted; empty where there is no repository. Tags that only list referrers are left out."""
        ...

    def has(self, digest: Digest, size_bytes: int | None = None) -> bool:
        """Whether a blob is there; with a size, only one of exactly that size counts. Reads no content."""
        ...

    def keeps(self, digest: Digest, size_bytes: int) -> bool:
        """As `has`, asked before an image names the blob: where it is cheap, the content is hashed as well."""
        ...

    def blob(self, digest: Digest) -> bytes | None:
        """A small blob whole, verified: configs."""
        ...

    def open_blob(self, digest: Digest, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """A blob as a stream from an offset, not verified. Raises Missing, and Corrupt where a registry says that it is shorter."""
        ...

    def mount(self, digest: Digest, from_repository: str, size_bytes: int | None = None) -> bool:
        """Take a blob over from another repository of the same registry; False where it cannot be had that way.

        A layout looks at the blob as `keeps` does; a registry answers for its own.
        """
        ...

    def push(self, digest: Digest | None, size_bytes: int, chunks: Chunks) -> Digest:
        """Store a blob of exactly `size_bytes`. May be repeated; a blob that did not arrive whole is not there.

        Where a connection broke it goes on with what did not arrive, if the registry allows it.
        Raises Corrupt when the bytes do not have the digest, and whatever `chunks` raises.
        """
        ...

    def put_manifest(self, reference: str, manifest: ImageManifest) -> Digest:
        """Store an image manifest under a tag or its digest. What it names must be there already."""
        ...

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """What points at an image: signatures, SBOMs; sorted by type and digest, empty where nothing does."""
        ...

    def put_referrer(self, manifest: ImageManifest, *more: ImageManifest) -> Digest:
        """Store image manifests that have one `subject`, so that `referrers` finds them. May be repeated.

        Its config and layers must be there already; the subject may come later.
        """
        ...

    def drop_referrer(self, manifest: ImageManifest) -> None:
        """Take away what `put_referrer` stored: its subject, and all else that points at that, stay. May be repeated.

        Raises Denied where the registry does not let anybody delete: nothing was removed then.
        """
        ...

    def untagged(self) -> tuple[Digest, ...]:
        """Image manifests that are listed without a tag: a layout's; a registry over HTTP does not tell."""
        ...

    def loose(self) -> tuple[Digest, ...]:
        """Blobs that no image names and nobody is about to: of uploads and removals that were killed. A layout's."""
        ...

    def paths(self, blobs: Iterable[Digest]) -> tuple[Path, ...]:
        """Where blobs lie on this machine's disk; nowhere for a registry over HTTP."""
        ...

    def remove(self, manifests: Sequence[Digest]) -> int:
        """Take image manifests away in this order, with every tag that names them; then, in a layout, all blobs that are
        loose by now. The bytes that this frees on this machine's disk. May be repeated.

        Raises Denied where the registry does not let anybody delete: nothing was removed then.
        """
        ...


def held(body: bytes) -> Chunks:
    """Bytes that are in memory already: configs."""
    return lambda start: iter([body[start:]])


def blobs(manifest: ImageManifest) -> tuple[tuple[Digest, int], ...]:
    """Digest and size of all that a single-platform image manifest names: its config, then its layers."""
    config, layers = contents(manifest)
    described = manifest.document()["config"]
    size = described.get("size") if isinstance(described, dict) else None
    return ((config, int(str(size))), *layers)


def contents(manifest: ImageManifest) -> tuple[Digest, list[tuple[Digest, int]]]:
    """The config's digest and the layers' digests and sizes of a single-platform image manifest."""
    document = manifest.document()
    config, layers = document.get("config"), document.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list):
        raise Corrupt("registry", "this is not the image manifest of one platform")
    found = [layer for layer in layers if isinstance(layer, dict)]
    return Digest(str(config["digest"])), [
        (Digest(str(layer["digest"])), int(str(layer["size"]))) for layer in found
    ]
