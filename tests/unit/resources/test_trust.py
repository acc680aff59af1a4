"""What is said of an image beside it: annotations, an SBOM that its schema accepts, a statement of where it comes from."""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import MANIFEST, ImageManifest, contents, held
from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, digest
from pipeline.core.image import Build, Engine, ImageName, Registry
from pipeline.core.model import Artifact, Facts, FileEntry, Filter, Hardware, Model, Overlay, Part
from pipeline.core.resource import Address, Mark
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.recipe import Recipe, image_fingerprint, weights_fingerprint
from pipeline.resources.image.resource import ImageDriver
from pipeline.resources.image.trust import naming, provenance, sbom
from pipeline.resources.image.trust.annotations import of_engine
from pipeline.resources.image.trust.attach import Attachment, Attestor, referrer
from pipeline.resources.image.trust.provenance import Run
from tests.fakes import engine as tiny

OWNER = Mark("test", "default", Address(""))
COMMIT = "4e1a6b0" * 5 + "abcde"
BASE = Digest("sha256:" + "b" * 64)
ENGINE_IMAGE = Digest("sha256:" + "e" * 64)
ENGINE = Engine(
    "vllm", "0.32.0", "cpu", "linux/amd64", "3.11", "docker.io/library/python:3.11-slim", BASE, "https://pypi.org/simple",
    (
        f"Jinja2==3.1.6 --hash=sha256:{'1' * 64}",
        f"torch==2.13.0+cpu --hash=sha256:{'2' * 64} --hash=sha256:{'3' * 64}",
        f"uvicorn[standard]==0.30 ; python_version > '3' --hash=sha256:{'4' * 64}",
    ),
)  # fmt: skip
BUILD = Build(ENGINE, (("vllm/serve.py", "5" * 64),), "/runtime")
RUN = Run("0.1.0", "c" * 40, "d" * 64)


def source(name: str, *paths: str, license: str | None = "apache-2.0", scheme: str = "hf") -> Artifact:
    files = tuple(FileEntry(path, 3, digest(f"{name}/{path}".encode())[7:]) for path in sorted(paths))
    pin = COMMIT if scheme == "hf" else "sha256-" + "7" * 64
    return Artifact(f"{scheme}://{name}", "main", pin, files, Facts("LlamaForCausalLM", license=license))


def model(weights: Artifact | None = None, **more: Any) -> Model:  # Any: further fields of a model
    weights = weights or source("acme/Tiny", "config.json", "model.safetensors", "tokenizer.json")
    return Model("tiny", weights, Hardware("cpu", 0), "vllm", ENGINE, **more)


def recipe(of: Model, build: Build | None = BUILD, registry: Registry | None = None) -> Recipe:
    registry = registry or Registry("main", url="registry.local/acme")
    full = image_fingerprint(of, build, registry) if build else weights_fingerprint(of, registry)
    name = ImageName(registry, of.name if build else f"{of.name}.weights", f"mp-{full[:12]}")
    return Recipe(Address("tiny/image:main"), name, of, build, "acme", full)


@cache
def validator() -> JsonStrictValidator:
    return JsonStrictValidator(SchemaVersion.V1_6)


def bill(made: bytes) -> dict[str, Any]:
    """The SBOM, after CycloneDX's own schema has accepted it."""
    problem = validator().validate_str(made.decode())
    assert problem is None, problem
    found: dict[str, Any] = json.loads(made)
    return found


def by_ref(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {part["bom-ref"]: part for part in document["components"]}


def test_annotations_say_what_is_known() -> None:
    found = recipe(model()).annotations(ENGINE_IMAGE)
    words = {
        key.removeprefix("org.opencontainers.image."): value for key, value in found.items() if "open" in key
    }
    assert words == {
        "title": "tiny",
        "source": "hf://acme/Tiny",
        "url": "https://huggingface.co/acme/Tiny",
        "revision": COMMIT,
        "version": "main",
        "licenses": "Apache-2.0",
        "base.name": f"registry.local/acme/vllm.engine:mp-{BUILD.fingerprint[:12]}",
        "base.digest": ENGINE_IMAGE,
    }


def test_an_image_was_created_when_its_source_was() -> None:
    weights = source("acme/Tiny", "model.gguf")
    known = replace(weights, facts=replace(weights.facts, created="2024-02-19T10:57:45Z"))
    found, other = (recipe(model(each), None).annotations(None) for each in (known, weights))
    assert found.pop("org.opencontainers.image.created") == "2024-02-19T10:57:45Z"
    assert found == other, "what a source does not tell is left out"


@pytest.mark.parametrize("said", [None, "llama3.1", "other", "mit, apache-2.0"])
def test_a_licence_that_is_no_single_spdx_identifier_is_no_annotation(said: str | None) -> None:
    found = recipe(model(source("acme/Tiny", "model.gguf", license=said)), None).annotations(None)
    assert "org.opencontainers.image.licenses" not in found


def test_a_path_of_this_machine_is_in_nothing_that_is_published() -> None:
    secret = "home/somebody/checkpoints"
    of = model(source(f"/{secret}", "model.gguf", scheme="file"))
    layout = Registry("here", layout=f"/{secret}/registry")
    made = recipe(of, BUILD, layout)
    texts = [
        json.dumps(made.annotations(ENGINE_IMAGE)),
        sbom.of_model(made, ENGINE_IMAGE).decode(),
        provenance.of_model(made, ENGINE_IMAGE, ENGINE_IMAGE, RUN).decode(),
    ]
    assert not [text for text in texts if secret in text]


def test_an_engine_names_its_base() -> None:
    assert of_engine(ENGINE) == {
        "org.opencontainers.image.title": "vllm-0.32.0-cpu",
        "org.opencontainers.image.version": "0.32.0",
        "org.opencontainers.image.base.name": "docker.io/library/python:3.11-slim",
        "org.opencontainers.image.base.digest": BASE,
    }


def test_the_sbom_of_a_model_image_lists_files_packages_and_both_images() -> None:
    found = bill(sbom.of_model(recipe(model()), ENGINE_IMAGE))
    parts = by_ref(found)
    weights = parts["weights"]
    assert weights["type"] == "machine-learning-model"
    assert (weights["name"], weights["version"]) == ("acme/Tiny", COMMIT)
    assert weights["purl"] == f"pkg:huggingface/acme/Tiny@{COMMIT}"
    assert weights["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    hashes = {part["name"]: part["hashes"] for part in weights["components"]}
    assert hashes.keys() == {"config.json", "model.safetensors", "tokenizer.json"}
    assert hashes["config.json"] == [{"alg": "SHA-256", "content": digest(b"acme/Tiny/config.json")[7:]}]
    assert parts["torch==2.13.0+cpu"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert [each["content"] for each in parts["torch==2.13.0+cpu"]["hashes"]] == ["2" * 64, "3" * 64]
    assert parts["Jinja2==3.1.6"]["purl"] == "pkg:pypi/jinja2@3.1.6"
    assert parts["uvicorn==0.30"]["version"] == "0.30"
    assert parts["base"]["purl"] == (
        f"pkg:oci/python@sha256%3A{'b' * 64}?repository_url=docker.io/library/python"
    )
    assert parts["engine"]["version"] == ENGINE_IMAGE
    assert found["metadata"]["component"]["name"] == "tiny"
    assert found["dependencies"] == [{"ref": "image", "dependsOn": sorted(parts)}]


def test_the_sbom_of_a_weights_image_has_no_engine() -> None:
    assert by_ref(bill(sbom.of_model(recipe(model(), None), None))).keys() == {"weights"}


def test_the_sbom_of_an_engine_image_has_packages_and_base() -> None:
    name = ImageName(Registry("main", url="registry.local/acme"), "vllm.engine", "mp-0123456789ab")
    found = by_ref(bill(sbom.of_engine(name, BUILD.fingerprint, ENGINE)))
    assert found.keys() == {"Jinja2==3.1.6", "torch==2.13.0+cpu", "uvicorn==0.30", "base"}


def test_every_file_is_listed_once_under_the_source_that_it_comes_from() -> None:
    own = Part("tokenizer", source("acme/Words", "tokenizer.json", license="cc-by-4.0"))
    adapter = Part("adapters.fr", source("acme/French", "adapter.safetensors", license=None), "adapters/fr")
    overlay = Overlay("chat_template.jinja", "9" * 64, 5, "/here/chat.jinja")
    parts = by_ref(
        bill(sbom.of_model(recipe(model(parts=(own, adapter), overlays=(overlay,))), ENGINE_IMAGE))
    )
    listed = {
        role: [part["name"] for part in parts[role]["components"]]
        for role in ("weights", "tokenizer", "adapters.fr")
    }
    assert listed == {
        "weights": ["config.json", "model.safetensors"],
        "tokenizer": ["tokenizer.json"],
        "adapters.fr": ["adapters/fr/adapter.safetensors"],
    }
    assert (parts["tokenizer"]["type"], parts["adapters.fr"]["type"]) == ("data", "machine-learning-model")
    assert "licenses" not in parts["adapters.fr"]
    assert parts["overlay/chat_template.jinja"]["hashes"][0]["content"] == "9" * 64


def test_a_licence_outside_spdx_is_named_as_its_source_names_it() -> None:
    of = model(source("acme/Tiny", "model.gguf", license="llama3.1, mit"))
    found = by_ref(bill(sbom.of_model(recipe(of, None), None)))["weights"]["licenses"]
    assert found == [{"license": {"name": "llama3.1"}}, {"license": {"id": "MIT"}}]


def test_every_identifier_of_the_table_is_one_of_spdx() -> None:
    everything = ", ".join(naming._SPDX).lower()
    found = bill(sbom.of_model(recipe(model(source("acme/Tiny", "m.gguf", license=everything)), None), None))
    assert [each["license"]["id"] for each in by_ref(found)["weights"]["licenses"]] == list(naming._SPDX)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (
            "registry.local:5000/acme/Tiny",
            "pkg:oci/tiny@sha256%3A{}?repository_url=registry.local%3A5000/acme/Tiny",
        ),
        ("registry.local/tiny", "pkg:oci/tiny@sha256%3A{}?repository_url=registry.local/tiny"),
    ],
)
def test_a_model_of_a_registry_is_named_by_its_digest(name: str, url: str) -> None:
    assert naming.model_url(source(name, "m.gguf", scheme="oci")) == url.format("7" * 64)


def test_equal_inputs_make_equal_documents_and_others_another_serial_number() -> None:
    one, same = (sbom.of_model(recipe(model()), ENGINE_IMAGE) for _ in range(2))
    other = sbom.of_model(recipe(model(source("acme/Tiny", "model.gguf"))), ENGINE_IMAGE)
    assert one == same
    assert bill(one)["serialNumber"] != bill(other)["serialNumber"]
    statements = {provenance.of_model(recipe(model()), ENGINE_IMAGE, ENGINE_IMAGE, RUN) for _ in range(2)}
    assert len(statements) == 1


def test_the_statement_says_from_what_and_by_whom() -> None:
    weights = replace(
        source("acme/Tiny", "model.gguf"), filter=Filter(include=("*.gguf",), allow=(("a.py", "6" * 64),))
    )
    made = Digest("sha256:" + "a" * 64)
    found = json.loads(provenance.of_model(recipe(model(weights)), made, ENGINE_IMAGE, RUN))
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [{"name": "tiny", "digest": {"sha256": "a" * 64}}]
    definition = found["predicate"]["buildDefinition"]
    outside = definition["externalParameters"]
    assert (outside["commit"], outside["lock_sha256"]) == ("c" * 40, "d" * 64)
    assert outside["sources"]["weights"]["source"] == "hf://acme/Tiny"
    assert outside["sources"]["weights"]["pin"] == COMMIT
    assert outside["sources"]["weights"]["filter"]["include"] == ["*.gguf"]
    assert outside["engine"]["fingerprint"] == BUILD.fingerprint
    used = {each["name"]: each for each in definition["resolvedDependencies"]}
    assert used["weights"]["digest"] == {"gitCommit": COMMIT}
    assert used["weights"]["annotations"]["files"] == {"model.gguf": weights.files[0].sha256}
    assert used["engine"]["digest"] == {"sha256": "e" * 64}
    assert found["predicate"]["runDetails"]["builder"] == {"id": "urn:mp:builder", "version": {"mp": "0.1.0"}}


def test_what_is_not_known_of_a_run_is_not_in_the_statement() -> None:
    found = json.loads(provenance.of_model(recipe(model(), None), ENGINE_IMAGE, None, Run("0.1.0")))
    outside = found["predicate"]["buildDefinition"]["externalParameters"]
    assert {"commit", "lock_sha256", "engine"}.isdisjoint(outside)


def test_a_statement_of_an_engine_names_its_base_and_its_files() -> None:
    name = ImageName(Registry("main", url="registry.local/acme"), "vllm.engine", "mp-0123456789ab")
    found = json.loads(provenance.of_engine(name, BUILD, ENGINE_IMAGE, RUN))["predicate"]["buildDefinition"]
    assert found["internalParameters"]["files"] == {"vllm/serve.py": "5" * 64}
    assert [each["digest"] for each in found["resolvedDependencies"]] == [{"sha256": "b" * 64}]


@dataclass
class Desk:
    """A model in the cache and a layout to publish it into, with everything that is said beside it."""

    folder: Path
    cache: Cache
    model: Model

    def publish(self, version: str = "0.1.0") -> Digest:
        attestor = Attestor(lambda: version, None, self.folder / "models.lock")
        driver = ImageDriver(self.cache, {}, Repositories({}), OWNER, attestor)
        wanted = image.weights_image(self.model, Registry("here", layout=str(self.folder / "here")), "acme")
        made = driver.apply(
            Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None), {}, tiny.ignore
        )
        assert made is not None and made.digest is not None
        return made.digest

    def documents(self, of: Digest, kind: str) -> list[dict[str, Any]]:
        repository = Repositories({})(Registry("here", layout=str(self.folder / "here")), "tiny.weights")
        found = []
        for each in repository.referrers(of, kind):
            manifest = repository.manifest(each.digest)
            assert manifest is not None
            body = repository.blob(contents(manifest)[1][0][0])
            assert body is not None
            found.append(json.loads(body))
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    cache = Cache(tmp_path / "cache")
    return Desk(tmp_path, cache, tiny.model(tmp_path, cache))


def test_a_new_image_has_its_documents_beside_it(desk: Desk) -> None:
    (desk.folder / "models.lock").write_text("{}")
    made = desk.publish()
    (parts,) = desk.documents(made, sbom.MEDIA_TYPE)
    bill(json.dumps(parts).encode())
    (statement,) = desk.documents(made, provenance.MEDIA_TYPE)
    assert statement["subject"][0]["digest"] == {"sha256": made[7:]}
    said = statement["predicate"]["buildDefinition"]["externalParameters"]
    assert said["lock_sha256"] == digest(b"{}")[7:]


def test_an_image_that_stands_gets_nothing_more(desk: Desk) -> None:
    made = desk.publish()
    assert desk.publish("0.2.0") == made
    assert len(desk.documents(made, provenance.MEDIA_TYPE)) == 1


def test_a_document_points_at_its_image() -> None:
    body = b'{"schemaVersion":2}'
    made = referrer(ImageManifest(body, MANIFEST), Attachment("application/x", b"hello")).document()
    assert made["subject"] == {"mediaType": MANIFEST, "digest": digest(body), "size": len(body)}
    assert (made["artifactType"], made["mediaType"]) == ("application/x", MANIFEST)


def test_an_engine_image_has_its_documents_beside_it(desk: Desk) -> None:
    registry = Registry("here", layout=str(desk.folder / "here"))
    name = ImageName(registry, "vllm.engine", "mp-0123456789ab")
    repository = Repositories({})(registry, name.repository)
    config = b"{}"
    repository.push(digest(config), len(config), held(config))
    described = {"mediaType": "application/x", "digest": digest(config), "size": len(config)}
    made = ImageManifest(
        json.dumps({"schemaVersion": 2, "config": described, "layers": []}).encode(), MANIFEST
    )
    Attestor(lambda: "0.1.0", None, desk.folder / "models.lock").attest_engine(repository, name, BUILD, made)
    kinds = {each.artifact_type for each in repository.referrers(made.digest)}
    assert kinds == {sbom.MEDIA_TYPE, provenance.MEDIA_TYPE}
    assert repository.tags() == (), "the tag is the driver's, and last"
