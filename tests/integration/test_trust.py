"""Trust by the command line, on real parts: a registry that lists no referrers, real signatures, and cosign itself."""

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.clients.cosign import is_signature
from pipeline.clients.oci.referrers import index_of, list_tag, told
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import Repository, contents
from pipeline.core.digest import Digest
from pipeline.core.image import Registry
from pipeline.manifest.lock import Lock, engine_key, write_lock
from pipeline.resources.image.trust import provenance, sbom
from tests.parts import cosign, signing
from tests.parts.project import Project, Result
from tests.parts.registry import RealRegistry, running_registry
from tests.parts.tiny_image import PLATFORM, push_tiny_engine, tiny_engine

pytestmark = pytest.mark.registry

OK, ERROR, CHANGES, REFUSED, PARTIAL = 0, 1, 2, 4, 5
CONFIG = {"architectures": ["LlamaForCausalLM"], "license": "mit"}


@dataclass
class Works:
    """A project with one local model, published to a real registry."""

    project: Project
    registry: RealRegistry
    prefix: str

    @property
    def folder(self) -> Path:
        return self.project.folder

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @property
    def place(self) -> str:
        return f"{self.registry.host}/{self.prefix}"

    def repository(self, name: str = "tiny.weights") -> Repository:
        return Repositories({})(Registry("main", url=self.place), name)

    def write(self, source: str = "./weights", **more: Any) -> None:  # Any: sections as the user writes them
        model = {"source": source, "targets": {"main": {}}}
        if source.startswith("oci://"):
            model["version"] = "v1"
        self.project.write(
            {
                "version": 1,
                "project": "acme",
                "defaults": {"template": "transformers", "hardware": "cpu"},
                "hardware": {"cpu": {"gpus": 0}},
                "registries": {"main": {"url": self.place}},
                "targets": {"main": {"kind": "registry", "publish": ["weights"]}},
                "models": {"tiny": model},
                **more,
            }
        )

    def applied(self) -> Digest:
        """The digest of the image that an apply has published."""
        self.project.applied()
        tags = [tag for tag in self.repository().tags() if re.fullmatch(r"mp-[0-9a-f]{12}", tag)]
        found = self.repository().head(tags[-1])
        assert found is not None
        return found[0]

    def plan(self) -> Result:
        return self.project.mp("plan")

    def refused(self) -> str:
        """What a plan is refused for; apply is refused as well, and nothing is pushed."""
        result = self.plan()
        assert result.code == REFUSED, result.text
        assert self.project.mp("apply", "--yes").code == REFUSED
        assert self.repository().tags() == ()
        return result.out + result.err

    def document(self, of: Digest, kind: str) -> dict[str, Any]:
        """The one document of a type that points at an image."""
        (described,) = self.repository().referrers(of, kind)
        manifest = self.repository().manifest(described.digest)
        assert manifest is not None
        body = self.repository().blob(contents(manifest)[1][0][0])
        assert body is not None
        found: dict[str, Any] = json.loads(body)
        return found


@pytest.fixture
def works(tmp_path: Path, registry: RealRegistry) -> Works:
    folder = tmp_path / "project"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "config.json").write_text(json.dumps(CONFIG))
    (folder / "weights" / "model.safetensors").write_bytes(b"weights" * 1000)
    home = {"HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "COLUMNS": "300", "NO_COLOR": "1"}
    made = Works(Project(folder, tmp_path / "cache", home), registry, tmp_path.name.replace("_", "-").lower())
    made.write()
    return made


@pytest.fixture
def signed(works: Works) -> signing.Key:
    """The model's folder is signed with this key, and the manifest wants it so."""
    key = signing.key(works.folder)
    signing.sign_folder(works.weights, key)
    works.write(verify={"sources": [{"match": "./weights*", "model_signing": {"key": "acme.pub"}}]})
    return key


def test_an_image_in_a_registry_has_its_documents_beside_it(works: Works) -> None:
    made = works.applied()
    parts = works.document(made, sbom.MEDIA_TYPE)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(parts))
    assert problem is None, problem
    (weights,) = parts["components"]
    assert {part["name"] for part in weights["components"]} == {"config.json", "model.safetensors"}
    statement = works.document(made, provenance.MEDIA_TYPE)
    assert statement["subject"] == [{"name": "tiny.weights", "digest": {"sha256": made[7:]}}]
    lock = works.folder / "models.lock"
    said = statement["predicate"]["buildDefinition"]["externalParameters"]["lock_sha256"]
    assert said == sha256(lock.read_bytes()).hexdigest()


def test_this_registry_lists_no_referrers_so_a_tag_does(works: Works) -> None:
    made = works.applied()
    assert works.repository().manifest(made.replace(":", "-")) is not None


def test_the_second_plan_finds_nothing_to_do(works: Works) -> None:
    works.applied()
    assert works.project.mp("plan", "--detailed-exitcode").code == OK


def test_a_signed_model_is_published(works: Works, signed: signing.Key) -> None:
    works.applied()


def test_a_tampered_signature_stops_the_plan(works: Works, signed: signing.Key) -> None:
    signature = works.weights / "model.sig"
    bundle = json.loads(signature.read_text())
    body = bytearray(b64decode(bundle["dsseEnvelope"]["signatures"][0]["sig"]))
    body[-1] ^= 1
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = b64encode(body).decode()
    signature.write_text(json.dumps(bundle))
    assert "model.sig is not signed by key" in works.refused()


def test_weights_that_differ_from_their_signed_hash_stop_the_plan(works: Works, signed: signing.Key) -> None:
    (works.weights / "model.safetensors").write_bytes(b"others!" * 1000)
    text = works.refused()
    assert '"model.safetensors" has sha256' in text
    assert "models.yaml:" in text


def test_a_model_without_a_signature_stops_the_plan(works: Works, signed: signing.Key) -> None:
    (works.weights / "model.sig").unlink()
    assert "it has no model.sig among its files" in works.refused()


def test_a_rule_for_other_sources_asks_nothing(works: Works) -> None:
    signing.key(works.folder)
    works.write(verify={"sources": [{"match": "hf://acme/*", "model_signing": {"key": "acme.pub"}}]})
    works.applied()


def test_a_key_that_is_not_there_is_shown_with_its_line(works: Works) -> None:
    works.write(verify={"sources": [{"match": "*", "model_signing": {"key": "keys/acme.pub"}}]})
    result = works.project.mp("validate")
    assert result.code == ERROR
    assert re.search(r'models\.yaml:\d+:\d+: verify: "keys/acme\.pub" is not there', result.text)


def test_without_cosign_a_plan_that_signs_says_so(works: Works) -> None:
    works.write(sign={"cosign": {}})
    result = works.plan()
    assert result.code == ERROR
    assert "cosign: the program that signs images" in result.text
    assert works.repository().tags() == ()


def test_a_folder_of_layouts_is_not_signed_and_the_plan_says_so(works: Works) -> None:
    works.write(sign={"cosign": {}}, registries={"main": {"layout": "images"}})
    result = works.plan()
    assert result.code == OK, result.text
    assert 'images in "main" are not signed' in result.text
    works.project.applied()


@pytest.fixture
def cosigned(works: Works) -> signing.Key:
    """cosign is on PATH, and the manifest says that images are signed with this key."""
    key = signing.cosign_key(works.folder)
    works.project.environ = {
        **works.project.environ,
        "PATH": cosign.path(),
        "KEY_PASSWORD": signing.PASSWORD,
    }
    works.write(**signing_with("cosign.key"))
    return key


def signing_with(file: str) -> dict[str, Any]:  # Any: sections as the user writes them
    return {
        "secrets": {"key": {"file": file}, "password": {"env": "KEY_PASSWORD"}},
        "sign": {"cosign": {"key": {"secret": "key"}, "password": {"secret": "password"}}},
    }


@pytest.mark.cosign
def test_an_image_and_its_documents_are_signed(works: Works, cosigned: signing.Key, tmp_path: Path) -> None:
    made = works.applied()
    assert verified(works, cosigned, tmp_path, made) == 3


def verified(works: Works, key: signing.Key, folder: Path, image: Digest, name: str = "tiny.weights") -> int:
    """An image and its documents, each with a signature of the key's and no second one; how many these are."""
    roots = folder / "roots.json"
    roots.write_text('{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    options = ["--key", str(key.public), "--insecure-ignore-tlog=true", f"--trusted-root={roots}"]
    repository = works.repository(name)
    documents = [each.digest for each in repository.referrers(image) if is_ours(each.artifact_type)]
    for digest in (image, *documents):
        cosign.run("verify", *options, f"{works.place}/{name}@{digest}")
        pointing = told(repository.referrers(digest), repository.manifest)
        signatures = [each for each in pointing if is_signature(each)]
        assert len(signatures) == 1
    return 1 + len(documents)


def is_ours(kind: str | None) -> bool:
    return kind in (sbom.MEDIA_TYPE, provenance.MEDIA_TYPE)


@pytest.mark.cosign
def test_an_image_that_was_there_before_is_signed_afterwards(
    works: Works, cosigned: signing.Key, tmp_path: Path
) -> None:
    works.write()
    made = works.applied()
    works.write(**signing_with("cosign.key"))
    assert works.project.mp("drift").code == OK, "a change that was declared is no drift"
    planned = works.project.mp("plan", "--json").json()
    assert planned["transfer"]["push_bytes"] == 0
    assert "signed no → yes" in works.plan().out
    assert works.applied() == made
    assert verified(works, cosigned, tmp_path, made) == 3
    assert works.project.mp("plan", "--detailed-exitcode").code == OK


@pytest.mark.cosign
def test_a_signature_that_was_lost_is_drift_and_made_again(
    works: Works, cosigned: signing.Key, tmp_path: Path
) -> None:
    made = works.applied()
    left = [each for each in works.repository().referrers(made) if is_ours(each.artifact_type)]
    works.repository().put_manifest(list_tag(made), index_of(left))
    drift = works.project.mp("drift")
    assert (drift.code, "signed yes → no" in drift.out) == (CHANGES, True), drift.text
    works.applied()
    assert verified(works, cosigned, tmp_path, made) == 3


@pytest.mark.cosign
def test_a_signature_outlives_the_word_that_asked_for_it(works: Works, cosigned: signing.Key) -> None:
    works.applied()
    works.write()
    assert works.project.mp("plan", "--detailed-exitcode").code == OK
    assert works.project.mp("drift").code == OK


@pytest.mark.cosign
def test_an_engine_image_that_was_there_before_is_signed_too_and_nothing_is_built(
    works: Works, cosigned: signing.Key, tmp_path: Path
) -> None:
    engine = tiny_engine()
    push_tiny_engine(Registry("main", url=works.place), engine)
    write_lock(works.folder / "models.lock", Lock({}, {engine_key(engine, PLATFORM): engine}))
    declared: dict[str, Any] = {  # Any: sections as the user writes them
        "targets": {"main": {"kind": "registry", "publish": ["model"]}},
        "engines": {"transformers": {"base": f"{engine.base}@{engine.base_digest}"}},
    }
    works.write(**declared)
    works.project.applied()
    works.write(**declared, **signing_with("cosign.key"))
    planned = works.plan()
    assert planned.out.count("signed no → yes") == 2
    assert "images again" not in planned.out
    works.project.applied()
    for name in ("tiny", "transformers.engine"):
        (tag,) = [tag for tag in works.repository(name).tags() if tag.startswith("mp-")]
        found = works.repository(name).head(tag)
        assert found is not None
        assert verified(works, cosigned, tmp_path, found[0], name) >= 1
    assert works.project.mp("plan", "--detailed-exitcode").code == OK


@pytest.mark.cosign
def test_the_key_is_in_nothing_that_is_written_or_said(works: Works, cosigned: signing.Key) -> None:
    secret = cosigned.private.read_text().splitlines()[1]
    result = works.project.applied()
    assert secret not in result.text
    assert signing.PASSWORD not in result.text
    kept = [path for path in works.folder.rglob("*") if path.is_file() and path != cosigned.private]
    assert not [path for path in kept if secret.encode() in path.read_bytes()]


@pytest.mark.cosign
def test_a_wrong_password_pushes_no_tag(works: Works, cosigned: signing.Key) -> None:
    result = works.project.mp("apply", "--yes", environ={"KEY_PASSWORD": "wrong"})
    assert result.code == PARTIAL  # the artifact is in the cache
    assert "cosign: signing" in result.text
    assert [tag for tag in works.repository().tags() if tag.startswith("mp-")] == []


@pytest.mark.cosign
def test_a_key_that_is_not_set_pushes_nothing(works: Works, cosigned: signing.Key) -> None:
    cosigned.private.rename(works.folder / "elsewhere")
    assert 'secret "key" is not set' in works.plan().text
    result = works.project.mp("apply", "--yes")
    assert result.code == PARTIAL
    assert works.repository().tags() == ()


@pytest.mark.cosign
def test_an_image_is_a_source_if_it_is_signed_by_the_right_key(works: Works, cosigned: signing.Key) -> None:
    made = works.applied()
    signing.cosign_key(works.folder, "other")
    source = f"oci://{works.place}/tiny.weights"
    repository = works.repository()
    manifest = repository.manifest(made)
    assert manifest is not None
    repository.put_manifest("v1", manifest)

    def planned(key: str) -> Result:
        rule = {"match": "oci://*", "cosign": {"key": key}}
        works.write(source, verify={"sources": [rule]}, registries={"main": {"layout": "images"}})
        return works.plan()

    assert planned("cosign.pub").code == OK, planned("cosign.pub").text
    refused = planned("other.pub")
    assert refused.code == REFUSED
    assert "not signed as it must be" in " ".join(refused.text.split())
    assert works.project.mp("apply", "--yes").code == REFUSED
    assert not (works.folder / "images").exists()


@pytest.mark.cosign
def test_an_image_that_nobody_signed_is_no_source(works: Works, cosigned: signing.Key) -> None:
    works.write()
    manifest = works.repository().manifest(works.applied())
    assert manifest is not None
    works.repository().put_manifest("v1", manifest)
    rule = {"match": "oci://*", "cosign": {"key": "cosign.pub"}}
    works.write(
        f"oci://{works.place}/tiny.weights",
        verify={"sources": [rule]},
        registries={"main": {"layout": "images"}},
    )
    result = works.plan()
    assert result.code == REFUSED
    assert "no signatures found" in result.text


@pytest.mark.cosign
def test_a_registry_that_is_silent_is_an_error_and_no_refusal(
    works: Works, cosigned: signing.Key, tmp_path: Path
) -> None:
    with running_registry(tmp_path / "own") as own:
        works = replace(works, registry=own)
        works.write(**signing_with("cosign.key"))
        manifest = works.repository().manifest(works.applied())
        assert manifest is not None
        works.repository().put_manifest("v1", manifest)
        rule = {"match": "oci://*", "cosign": {"key": "cosign.pub"}}
        layouts = {"main": {"layout": "images"}}
        works.write(f"oci://{works.place}/tiny.weights", verify={"sources": [rule]}, registries=layouts)
        assert works.project.mp("lock").code == OK
    result = works.plan()
    assert result.code == ERROR, result.text
    assert "connection refused" in result.text
