"""What points at an image that mp made: its SBOM and its provenance, put beside it before a tag names it. Used by the image drivers.

OCI image specification 1.1.1, manifest.md, "Guidelines for Artifact Usage": an image manifest with a subject, an artifact type,
an empty config and one layer. Registries without a list of such manifests get one by tag, which clients/ sees to.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path

from pipeline.clients.oci.referrers import EMPTY_TYPE
from pipeline.clients.oci.repository import MANIFEST, ImageManifest, Repository, Tagged, held
from pipeline.core.digest import Digest, canonical
from pipeline.core.digest import digest as digest_of
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, ImageName, Registry
from pipeline.resources.image.index import images
from pipeline.resources.image.recipe import Recipe
from pipeline.resources.image.trust import provenance, sbom
from pipeline.resources.image.trust.provenance import Run
from pipeline.resources.image.trust.signing import Signing, is_signed

EMPTY = b"{}"
_PREDICATE = "in-toto.io/predicate-type"  # the annotation by which BuildKit and others tell statements apart


@frozen
class Attachment:
    """One document that points at an image."""

    media_type: str  # of the document; the artifact's type too
    body: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)


class Attestor:
    """Writes down what every new image is made of and where it comes from."""

    def __init__(
        self, version: Callable[[], str], commit: str | None, lock: Path, signing: Signing | None = None
    ) -> None:
        self._version = version  # of mp: asked for only when something is written down
        self._commit = commit
        self._lock = lock
        self._signing = signing  # None: nothing is signed

    def require(self, registry: Registry) -> None:
        """Raises MpError where something is missing that signing needs: asked before anything is pushed."""
        if self._signing:
            self._signing.require(registry)

    def attest_model(
        self, repository: Repository, recipe: Recipe, image: ImageManifest, engine_digest: Digest | None
    ) -> None:
        """Put both documents beside a model or weights image, and sign all three. May be repeated."""
        made = provenance.of_model(recipe, image.digest, engine_digest, self._run)
        documents = _documents(sbom.of_model(recipe, engine_digest), made)
        self._attest(repository, recipe.name.registry, image, documents)

    def attest_engine(
        self, repository: Repository, name: ImageName, build: Build, image: ImageManifest
    ) -> None:
        """The same for an engine image."""
        made = provenance.of_engine(name, build, image.digest, self._run)
        documents = _documents(sbom.of_engine(name, build.fingerprint, build.engine), made)
        self._attest(repository, name.registry, image, documents)

    def attest_index(self, repository: Repository, registry: Registry, image: ImageManifest) -> None:
        """Sign what names the images of several platforms, each of which has documents of its own."""
        if self._signing:
            repository.put_manifest(image.digest, image)
            self._signing.sign(registry, repository.location, (image.digest,))

    def sign_standing(self, repository: Repository, registry: Registry, image: ImageManifest) -> None:
        """Sign an image that was there before, and the documents that mp has put beside it. May be repeated.

        What has a signature gets no second one. What the tag names comes last: its signature stands for all the others.
        """
        if self._signing is None or is_signed(repository, image.digest):
            return
        self._signing.require(registry)
        parts = [part.digest for _, part in images(repository, image)]
        wanted = [each for part in parts for each in (*_documents_of(repository, part), part)]
        left = [each for each in dict.fromkeys((*wanted, image.digest)) if not is_signed(repository, each)]
        self._signing.sign(registry, repository.location, left)

    def _attest(
        self,
        repository: Repository,
        registry: Registry,
        image: ImageManifest,
        documents: tuple[Attachment, ...],
    ) -> None:
        attached = attach(repository, image, documents)
        if self._signing:
            self._signing.sign(registry, repository.location, (*attached, image.digest))

    @cached_property
    def _run(self) -> Run:
        """What is known when the first image is made: apply has written models.lock before."""
        body = self._lock.read_bytes() if self._lock.is_file() else None
        return Run(self._version(), self._commit, hashlib.sha256(body).hexdigest() if body else None)


def referrer(image: ImageManifest, attachment: Attachment) -> ImageManifest:
    """As `pointing`, at an image that was read whole."""
    return pointing(image.tagged(), attachment)


def pointing(image: Tagged, attachment: Attachment) -> ImageManifest:
    """The manifest that ties a document to an image; the same document makes the same bytes."""
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": attachment.media_type,
        "config": {"mediaType": EMPTY_TYPE, "digest": digest_of(EMPTY), "size": len(EMPTY)},
        "layers": [
            {
                "mediaType": attachment.media_type,
                "digest": digest_of(attachment.body),
                "size": len(attachment.body),
            }
        ],
        "subject": {"mediaType": image.media_type, "digest": image.digest, "size": image.size_bytes},
    }
    if attachment.annotations:
        body["annotations"] = dict(attachment.annotations)
    return ImageManifest(canonical(body), MANIFEST)


def _documents(parts: bytes, made: bytes) -> tuple[Attachment, ...]:
    return (
        Attachment(sbom.MEDIA_TYPE, parts),
        Attachment(provenance.MEDIA_TYPE, made, {_PREDICATE: provenance.PREDICATE}),
    )


def _documents_of(repository: Repository, image: Digest) -> list[Digest]:
    """What mp has said of an image that is there."""
    kinds = (sbom.MEDIA_TYPE, provenance.MEDIA_TYPE)
    return [each.digest for each in repository.referrers(image) if each.artifact_type in kinds]


def attach(
    repository: Repository, image: ImageManifest, attachments: tuple[Attachment, ...]
) -> tuple[Digest, ...]:
    """The image goes first, by its digest: a tag names it when all that points at it is there."""
    repository.put_manifest(image.digest, image)
    for body in (EMPTY, *(attachment.body for attachment in attachments)):
        _put(repository, body)
    made = [referrer(image, attachment) for attachment in attachments]
    repository.put_referrer(*made)
    return tuple(each.digest for each in made)


def _put(repository: Repository, body: bytes) -> None:
    name = digest_of(body)
    if not repository.keeps(name, len(body)):
        repository.push(name, len(body), held(body))
