"""What every Repository promises: the same suite over an OCI layout and a real docker-registry."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.clients.oci.closure import closure
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import (
    CONFIG,
    LAYER,
    MANIFEST,
    Descriptor,
    ImageManifest,
    Repository,
    blobs,
)
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Corrupt, Missing
from pipeline.core.image import Registry
from tests.parts.registry import RealRegistry

BLOCK = b"weights " * 10_000


@pytest.fixture(params=["layout", pytest.param("registry", marks=pytest.mark.registry)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """An empty registry of each kind."""
    if request.param == "layout":
        return Registry("here", layout=str(tmp_path / "layouts"))
    real: RealRegistry = request.getfixturevalue("registry")
    return Registry("main", url=f"{real.host}/{uuid.uuid4().hex}")


@pytest.fixture
def repository(place: Registry) -> Repository:
    return Repositories({})(place, "qwen3")


def blocks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 7_000):
        yield content[start : start + 7_000]


def push(repository: Repository, content: bytes, known: Digest | None = None) -> Digest:
    return repository.push(known, len(content), lambda start: blocks(content[start:]))


def image(repository: Repository, content: bytes, **annotations: str) -> ImageManifest:
    """A small whole image whose blobs are pushed."""
    config = json.dumps({"os": "linux", "content": len(content)}).encode()
    layers = [{"mediaType": LAYER, "digest": push(repository, content), "size": len(content)}]
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": push(repository, config), "size": len(config)},
        "layers": layers,
        "annotations": annotations,
    }
    return ImageManifest(json.dumps(body).encode(), MANIFEST)


def test_an_empty_repository_holds_nothing_and_says_so(repository: Repository) -> None:
    absent = digest(b"absent")

    assert repository.head("v1") is None
    assert repository.describe("v1") is None
    assert repository.manifest("v1") is None
    assert repository.manifest(absent) is None
    assert repository.blob(absent) is None
    assert not repository.has(absent)
    assert repository.tags() == ()


@pytest.mark.parametrize("known", [True, False], ids=["digest known", "digest found on the way"])
def test_a_pushed_blob_is_there_whole(repository: Repository, known: bool) -> None:
    pushed = push(repository, BLOCK, digest(BLOCK) if known else None)

    assert pushed == digest(BLOCK)
    assert repository.has(pushed)
    assert repository.has(pushed, len(BLOCK))
    assert repository.keeps(pushed, len(BLOCK))
    assert not repository.has(pushed, len(BLOCK) + 1)
    assert repository.blob(pushed) == BLOCK
    with repository.open_blob(pushed) as stream:
        assert stream.read(8) == b"weights "
        assert len(stream.read()) == len(BLOCK) - 8


def test_a_blob_is_read_from_an_offset(repository: Repository) -> None:
    pushed = push(repository, BLOCK)

    with repository.open_blob(pushed, 70_003) as stream:
        assert stream.read() == BLOCK[70_003:]


def test_pushing_twice_is_fine(repository: Repository) -> None:
    assert push(repository, BLOCK) == push(repository, BLOCK)


def test_bytes_that_differ_from_their_digest_are_refused_and_not_there(repository: Repository) -> None:
    with pytest.raises(Corrupt):
        push(repository, BLOCK, digest(b"something else"))

    assert not repository.has(digest(b"something else"))


def test_an_upload_that_fails_on_our_side_leaves_nothing(repository: Repository) -> None:
    def breaks(start: int) -> Iterator[bytes]:
        yield BLOCK[:1000]
        raise Corrupt("cache", "a file is not what its sha256 says")

    with pytest.raises(Corrupt, match="not what its sha256"):
        repository.push(None, len(BLOCK), breaks)

    assert not repository.has(digest(BLOCK))
    assert not repository.has(digest(BLOCK[:1000]))


def test_a_tag_names_an_image_with_its_annotations(repository: Repository) -> None:
    manifest = image(repository, BLOCK, **{"dev.mp.fingerprint": "f" * 64})

    assert repository.put_manifest("mp-1", manifest) == manifest.digest

    assert repository.head("mp-1") == (manifest.digest, len(manifest.body))
    assert repository.head(manifest.digest) == (manifest.digest, len(manifest.body))
    described = repository.describe("mp-1")
    assert described is not None
    assert described.digest == manifest.digest
    assert described.annotations["dev.mp.fingerprint"] == "f" * 64
    assert repository.manifest("mp-1") == manifest
    assert repository.manifest(manifest.digest) == manifest


def test_tags_are_sorted_and_a_moved_tag_names_the_new_image(repository: Repository) -> None:
    first, second = image(repository, b"first"), image(repository, b"second")
    for tag in ("v2", "main", "v1"):
        repository.put_manifest(tag, first)

    repository.put_manifest("main", second)

    assert repository.tags() == ("main", "v1", "v2")
    assert repository.head("main") == (second.digest, len(second.body))
    assert repository.head("v1") == (first.digest, len(first.body))


def test_an_image_may_be_stored_under_its_digest_alone(repository: Repository) -> None:
    manifest = image(repository, BLOCK)

    repository.put_manifest(manifest.digest, manifest)

    assert repository.manifest(manifest.digest) == manifest
    assert repository.tags() == ()


def test_a_blob_is_taken_over_from_another_repository(place: Registry) -> None:
    repositories = Repositories({})
    pushed = push(repositories(place, "qwen3.weights"), BLOCK)
    other = repositories(place, "qwen3")

    assert other.mount(pushed, "qwen3.weights")
    assert not other.mount(digest(b"absent"), "qwen3.weights")

    assert other.blob(pushed) == BLOCK
    assert not other.has(digest(b"absent"))


def test_opening_a_blob_that_is_not_there_raises_missing(repository: Repository) -> None:
    with pytest.raises(Missing), repository.open_blob(digest(b"absent")):
        pass


SBOM = "application/vnd.cyclonedx+json"
SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"


def referrer(repository: Repository, subject: ImageManifest, kind: str, body: bytes) -> ImageManifest:
    """An artifact about an image, its blobs pushed."""
    named = {"mediaType": subject.media_type, "digest": subject.digest, "size": len(subject.body)}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, "digest": push(repository, b"{}"), "size": 2},
        "layers": [{"mediaType": kind, "digest": push(repository, body), "size": len(body)}],
        "subject": named,
        "annotations": {"made.by": body.decode()},
    }
    return ImageManifest(json.dumps(document).encode(), MANIFEST)


def test_what_points_at_an_image_is_found_by_its_type(repository: Repository) -> None:
    subject = image(repository, BLOCK)
    repository.put_manifest("v1", subject)
    sbom, signature = (referrer(repository, subject, k, k.encode()) for k in (SBOM, SIGNATURE))

    for made in (signature, sbom, sbom):
        assert repository.put_referrer(made) == made.digest

    expected = [
        Descriptor(MANIFEST, made.digest, len(made.body), kind, {"made.by": kind})
        for made, kind in ((sbom, SBOM), (signature, SIGNATURE))
    ]
    assert repository.referrers(subject.digest) == tuple(expected)
    assert repository.referrers(subject.digest, SIGNATURE) == tuple(expected[1:])
    assert repository.referrers(subject.digest, "text/x-nothing") == ()
    assert repository.manifest(sbom.digest) == sbom
    assert repository.tags() == ("v1",)


def test_several_that_point_at_one_image_are_listed_at_once(repository: Repository) -> None:
    subject = image(repository, BLOCK)
    made = [referrer(repository, subject, SBOM, b"part %d" % number) for number in range(3)]
    repository.put_referrer(made[0])
    assert repository.put_referrer(*made) == made[0].digest
    found = [each.digest for each in repository.referrers(subject.digest)]
    assert sorted(found) == sorted(each.digest for each in made)


def test_an_image_that_nothing_points_at_has_no_referrers(repository: Repository) -> None:
    assert repository.referrers(digest(b"absent")) == ()


def test_writers_of_one_list_of_referrers_lose_nothing(place: Registry) -> None:
    repositories = Repositories({})
    repository = repositories(place, "qwen3")
    subject = image(repository, BLOCK)
    made = [referrer(repository, subject, SBOM, b"writer %d" % number) for number in range(3)]

    def put(manifest: ImageManifest) -> None:
        repositories(place, "qwen3").put_referrer(manifest)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(put, made))

    assert {each.digest for each in repository.referrers(subject.digest)} == {m.digest for m in made}


def test_a_manifest_without_a_subject_is_no_referrer(repository: Repository) -> None:
    with pytest.raises(ValueError, match="subject"):
        repository.put_referrer(image(repository, BLOCK))


def test_a_removed_image_takes_its_tags_and_what_points_at_it_along(repository: Repository) -> None:
    kept, gone = image(repository, BLOCK), image(repository, BLOCK + b"more", version="old")
    for name, manifest in (("v1", kept), ("v0", gone), ("mp-0123456789ab", gone)):
        repository.put_manifest(name, manifest)
    pointing = [referrer(repository, one, SBOM, one.digest.encode()) for one in (kept, gone)]
    for one in pointing:
        repository.put_referrer(one)

    found = closure(repository, gone.digest)
    repository.remove(found.manifests)
    repository.remove(found.manifests)  # may be repeated

    assert repository.tags() == ("v1",)
    assert repository.manifest(gone.digest) is None
    assert repository.referrers(gone.digest) == ()
    assert repository.manifest(pointing[1].digest) is None
    assert repository.manifest("v1") == kept
    assert [each.digest for each in repository.referrers(kept.digest)] == [pointing[0].digest]
    assert all(repository.has(blob, size) for blob, size in blobs(kept))


def test_one_of_what_points_at_an_image_goes_alone(repository: Repository) -> None:
    subject = image(repository, BLOCK)
    repository.put_manifest("v1", subject)
    stays, goes = (referrer(repository, subject, SBOM, body) for body in (b"stays", b"goes"))
    repository.put_referrer(stays)
    repository.put_referrer(goes)

    repository.drop_referrer(goes)
    repository.drop_referrer(goes)  # may be repeated

    assert [each.digest for each in repository.referrers(subject.digest)] == [stays.digest]
    assert repository.manifest(goes.digest) is None
    assert repository.manifest("v1") == subject
    assert all(repository.has(blob, size) for one in (subject, stays) for blob, size in blobs(one))
    repository.drop_referrer(stays)
    assert repository.referrers(subject.digest) == ()
    assert repository.manifest("v1") == subject


def test_an_image_is_told_with_everything_that_goes_with_it(repository: Repository) -> None:
    subject = image(repository, BLOCK)
    repository.put_manifest("v1", subject)
    pointing = referrer(repository, subject, SBOM, b"parts")
    repository.put_referrer(pointing)

    found = closure(repository, subject.digest)

    assert found.manifests[0] == pointing.digest, "what points at an image goes before it"
    assert found.manifests[-1] == subject.digest
    expected = dict([*blobs(subject), *blobs(pointing)])
    expected |= {one.digest: len(one.body) for one in (subject, pointing)}
    assert expected.items() <= found.sizes.items()
    assert set(found.sizes) - set(expected) == set(found.manifests) - {subject.digest, pointing.digest}
    assert closure(repository, digest(b"absent")).manifests == ()
