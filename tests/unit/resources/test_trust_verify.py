"""Which sources count as signed: real keys, certificates and signatures, and every way in which one may be wrong."""

import contextlib
import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pytest
from model_signing import hashing

from pipeline.clients.cosign import Authority, Cosign
from pipeline.clients.modelsigning import signed_files
from pipeline.core.errors import BackendError, Missing, Refused
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Source, SourceSpec
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.resources.image.trust.verify import ModelSigner, Verifier
from pipeline.sources.local import LocalSource
from tests.fakes import engine as tiny
from tests.parts import signing

FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 100, "sub/tokenizer.json": b"words"}


@dataclass
class Shelf:
    """A signed model in a folder, which is a source."""

    folder: Path
    key: signing.Key

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def source(self) -> Source:
        return LocalSource(self.folder / "hashes")

    @property
    def signer(self) -> ModelSigner:
        return ModelSigner(self.key.public)

    def artifact(self) -> Artifact:
        """The folder as it is now, locked."""
        return self.source.resolve(SourceSpec(f"file://{self.model}", ""), None)

    def verifier(self, source: Source | None = None, *, offline: bool = False) -> Verifier:
        cache = Cache(self.folder / "cache")
        found = source or self.source
        return Verifier(cache, {"file": found}, Cosign({"PATH": "/nowhere"}), offline=offline)

    def require(self, artifact: Artifact | None = None, signer: ModelSigner | None = None) -> None:
        self.verifier().require(artifact or self.artifact(), signer or self.signer)

    def refusal(self, artifact: Artifact | None = None, signer: ModelSigner | None = None) -> str:
        with pytest.raises(Refused) as refused:
            self.require(artifact, signer)
        return refused.value.message


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    for path, body in FILES.items():
        file = tmp_path / "model" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    made = Shelf(tmp_path, signing.key(tmp_path))
    signing.sign_folder(made.model, made.key)
    return made


def with_files(artifact: Artifact, *entries: FileEntry) -> Artifact:
    kept = {entry.path: entry for entry in artifact.files} | {entry.path: entry for entry in entries}
    return replace(artifact, files=tuple(kept[path] for path in sorted(kept)))


def test_a_model_that_is_signed_as_it_is_passes(shelf: Shelf) -> None:
    shelf.require()


def test_another_key_is_refused(shelf: Shelf) -> None:
    other = signing.key(shelf.folder, "other")
    assert "model.sig is not signed by key" in shelf.refusal(signer=ModelSigner(other.public))


def test_weights_that_are_not_the_signed_ones_are_refused(shelf: Shelf) -> None:
    (shelf.model / "model.safetensors").write_bytes(b"others" * 100)
    assert '"model.safetensors" has sha256' in shelf.refusal()


def test_a_file_that_nobody_signed_is_refused(shelf: Shelf) -> None:
    (shelf.model / "chat_template.jinja").write_text("{{ messages }}")
    assert shelf.refusal() == '"chat_template.jinja" is not signed'


def test_a_source_without_a_signature_is_refused(shelf: Shelf) -> None:
    (shelf.model / "model.sig").unlink()
    assert shelf.refusal() == "it has no model.sig among its files"


def test_what_is_signed_and_not_taken_does_not_matter(shelf: Shelf) -> None:
    whole = shelf.artifact()
    shelf.require(replace(whole, files=tuple(e for e in whole.files if not e.path.startswith("sub/"))))


@pytest.mark.parametrize("field", ["name", "digest"])
def test_a_list_that_was_changed_after_it_was_signed_is_refused(shelf: Shelf, field: str) -> None:
    signature = shelf.model / "model.sig"
    bundle = json.loads(signature.read_bytes())
    statement = json.loads(b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["resources"][0][field] = "0" * 64
    bundle["dsseEnvelope"]["payload"] = b64encode(json.dumps(statement).encode()).decode()
    signature.write_text(json.dumps(bundle))
    assert "not signed by key" in shelf.refusal()


def test_a_signature_of_another_model_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes(b"{}")
    body = signing.sign_folder(other, shelf.key).read_bytes()
    (shelf.model / "model.sig").write_bytes(body)
    assert shelf.refusal() == '"model.safetensors" is not signed'


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda: hashing.Config().use_shard_serialization(), "pieces of files"),
        (lambda: hashing.Config().use_file_serialization(hashing_algorithm="blake2"), "hashes by blake2b"),
    ],
)
def test_a_list_that_cannot_be_compared_with_the_lock_is_refused(
    shelf: Shelf, how: Callable[[], hashing.Config], why: str
) -> None:
    signing.sign_folder(shelf.model, shelf.key, how())
    assert why in shelf.refusal()


def test_a_certificate_counts_under_its_root_alone(shelf: Shelf) -> None:
    own, other = signing.authority(shelf.folder), signing.authority(shelf.folder, "other")
    own.sign(shelf.model)
    shelf.require(signer=ModelSigner(certificates=(own.root,)))
    assert "not signed by a certificate" in shelf.refusal(signer=ModelSigner(certificates=(other.root,)))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"mediaType": 1}']
)
def test_bytes_that_are_no_signature_are_refused(shelf: Shelf, body: bytes) -> None:
    (shelf.model / "model.sig").write_bytes(body)
    assert "model.sig" in shelf.refusal()


def test_no_change_of_a_byte_passes_as_something_else_or_flies(shelf: Shelf) -> None:
    whole, changes = (shelf.model / "model.sig").read_bytes(), random.Random(5)
    signed = signed_files(whole, shelf.key.public, ())
    for _ in range(60):
        body = bytearray(whole)
        body[changes.randrange(len(body))] ^= 1 << changes.randrange(8)
        with contextlib.suppress(Refused):
            assert signed_files(bytes(body), shelf.key.public, ()) == signed


def test_a_key_that_is_none_is_named(shelf: Shelf) -> None:
    shelf.key.public.write_text("no key")
    with pytest.raises(BackendError, match=r"acme\.pub cannot be used"):
        shelf.require()


class Silent:
    """A source that nobody may ask."""

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        raise AssertionError("asked")

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        raise AssertionError(f"asked for {entry.path}")


def test_a_signature_in_the_cache_is_not_fetched_again(shelf: Shelf) -> None:
    artifact = shelf.artifact()
    Cache(shelf.folder / "cache").add(artifact, shelf.source, tiny.ignore, Address("m/artifact"))
    shelf.verifier(Silent()).require(artifact, shelf.signer)


def test_a_signature_that_is_not_the_locked_one_is_refused(shelf: Shelf) -> None:
    artifact = shelf.artifact()
    signature = shelf.model / "model.sig"
    signature.write_bytes(signature.read_bytes()[::-1])
    assert "model.sig is not the locked one" in shelf.refusal(artifact)


def test_a_huge_signature_is_not_read(shelf: Shelf) -> None:
    huge = FileEntry("model.sig", 2**40, "0" * 64)
    assert "that is no signature" in shelf.refusal(with_files(shelf.artifact(), huge))


def test_cosign_does_not_vouch_for_a_folder(shelf: Shelf) -> None:
    with pytest.raises(Refused, match="this is none"):
        shelf.verifier().require(shelf.artifact(), Authority("acme.pub"))


def test_an_image_is_not_believed_without_cosign(shelf: Shelf) -> None:
    artifact = replace(shelf.artifact(), source="oci://registry.local/acme/tiny")
    with pytest.raises(Missing, match="cosign"):
        shelf.verifier().require(artifact, Authority("acme.pub"))
    with pytest.raises(BackendError, match="offline"):
        shelf.verifier(offline=True).require(artifact, Authority("acme.pub"))
