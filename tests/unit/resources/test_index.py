"""Images of several platforms: the index, what it shares, and that one platform stays as it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import INDEX, MANIFEST, ImageManifest, Repository, held
from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, canonical, digest, fingerprint
from pipeline.core.errors import Missing
from pipeline.core.image import Build, Registry
from pipeline.core.model import Model
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Absent, Address, Entry, Mark, Observed, Resource, Transfer, fields_of
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.index import index, is_index, is_whole, parts
from pipeline.resources.image.layers import layers
from pipeline.resources.image.recipe import engine_name, weights_fingerprint
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.sources.oci.source import OciSource
from tests.fakes import engine
from tests.parts.absorbing import Absorbing

OWNER = Mark("test", "default", Address(""))
ARM, AMD = "linux/arm64", "linux/amd64"


class Desk:
    """A model for two platforms, its engine's index in a folder of layouts."""

    def __init__(self, folder: Path) -> None:
        self.cache = Cache(folder / "cache")
        arm = replace(engine.ENGINE, platform=ARM, requirements=("six==1.17.0",))
        self.model = replace(engine.model(folder, self.cache), other_engines=(arm,))
        own = engine.build(folder / "runtime")
        self.build = replace(own, others=(replace(own, engine=arm),))
        self.registry = Registry("main", layout=str(folder / "layouts"))

    def repository(self, name: str) -> Repository:
        return Repositories({})(self.registry, name)

    def put_engine(self, *platforms: str) -> Digest:
        """Engine images as the engine driver leaves them: each by its digest, and the tag on their index."""
        repository = self.repository("transformers.engine")
        made = {platform: engine_image(repository, platform) for platform in platforms}
        return repository.put_manifest(engine_name(self.build, self.registry).tag, index(made, {}))

    def wanted(self, model: Model | None = None) -> Resource[ImageState]:
        return image.model_image(model or self.model, self.build, self.registry, "acme")

    def transfer(self, wanted: Resource[ImageState], *known: Entry) -> Transfer:
        driver = ImageDriver(self.cache, {}, Repositories({}), OWNER)
        answer = driver.observe([wanted], known)[wanted.address]
        assert isinstance(answer, Observed | Absent)
        return answer.transfer

    def bring(
        self, wanted: Resource[ImageState], engine_digest: Digest | None = None
    ) -> Observed[ImageState]:
        where = Address(f"@engine/{engine.ENGINE.key}:main")
        inputs = {where: Observed(ImageState("", ""), digest=engine_digest)} if engine_digest else {}
        driver = ImageDriver(self.cache, {}, Repositories({}), OWNER)
        made = driver.apply(
            Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, None), inputs, engine.ignore
        )
        assert made is not None
        return made


def engine_image(repository: Repository, platform: str) -> ImageManifest:
    """An image of one layer, which is another one on each platform."""
    layer = platform.encode() * 100
    config = canonical(
        {
            "os": "linux",
            "architecture": platform.removeprefix("linux/"),
            "config": {"Entrypoint": ["serve"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        }
    )
    described = []
    for body in (config, layer):
        repository.push(digest(body), len(body), held(body))
        described.append(
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(body),
                "size": len(body),
            }
        )
    body = canonical(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    )
    made = ImageManifest(body, MANIFEST)
    repository.put_manifest(made.digest, made)
    return made


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def by_platform(repository: Repository, made: Observed[ImageState]) -> dict[str, dict[str, object]]:
    """The image manifests that an image's index names."""
    found = repository.manifest(str(made.digest))
    assert found is not None
    assert is_index(found)
    manifests = {part.platform: repository.manifest(part.digest) for part in parts(found)}
    return {platform: json.loads(one.body) for platform, one in manifests.items() if one}


def test_a_model_image_of_two_platforms_is_an_index_that_shares_the_weights(desk: Desk) -> None:
    made = desk.bring(desk.wanted(), desk.put_engine(AMD, ARM))

    repository = desk.repository("tiny")
    found = by_platform(repository, made)
    assert sorted(found) == [AMD, ARM]
    weights = {platform: one["layers"][-1] for platform, one in found.items()}  # type: ignore[index]
    assert weights[AMD] == weights[ARM]
    below = {platform: one["layers"][0]["digest"] for platform, one in found.items()}  # type: ignore[index]
    assert below == {platform: digest(platform.encode() * 100) for platform in (AMD, ARM)}
    for platform, one in found.items():
        config = json.loads(repository.blob(one["config"]["digest"]) or b"")  # type: ignore[index]
        assert f"linux/{config['architecture']}" == platform
        assert config["config"]["Entrypoint"] == ["serve"]


def test_the_tags_name_the_index_and_a_second_look_finds_it_as_wanted(desk: Desk) -> None:
    wanted = desk.wanted()
    made = desk.bring(wanted, desk.put_engine(AMD, ARM))

    tagged = desk.repository("tiny").describe(f"mp-{wanted.desired.fingerprint[:12]}")
    assert tagged is not None
    assert tagged.digest == made.digest
    assert tagged.annotations["dev.mp.fingerprint"] == wanted.desired.fingerprint
    assert desk.transfer(wanted) == Transfer()
    assert desk.bring(wanted, desk.put_engine(AMD, ARM)).digest == made.digest


def test_the_plan_counts_weights_once_and_the_engine_of_every_platform(desk: Desk) -> None:
    desk.put_engine(AMD, ARM)
    (layer,) = layers(desk.model.files)

    planned = desk.transfer(desk.wanted())

    assert planned.push_bytes == layer.size_bytes
    assert planned.reused_bytes == sum(len(platform) * 100 for platform in (AMD, ARM))


def test_another_machine_learns_the_layers_from_behind_an_index(desk: Desk) -> None:
    old = desk.wanted()
    made = desk.bring(old, desk.put_engine(AMD, ARM))
    state = fields_of(old.desired)
    entry = Entry(old.address, old.kind, old.locator, None, made.digest, state, state)
    (desk.cache.root / "layers").unlink()
    desk.cache = Cache(desk.cache.root)
    (layer,) = layers(desk.model.files)
    own = desk.build
    desk.build = replace(own, files=(("transformers/serve.py", "1" * 64),))  # the code changed
    desk.put_engine(AMD, ARM)

    assert desk.transfer(desk.wanted(), entry).push_bytes == 0
    assert desk.transfer(desk.wanted(), entry).reused_bytes > layer.size_bytes


def test_an_engine_that_lacks_a_platform_is_an_error_and_no_image(desk: Desk) -> None:
    with pytest.raises(Missing, match="engine image"):
        desk.bring(desk.wanted(), desk.put_engine(AMD))
    assert desk.repository("tiny").tags() == ()


def test_a_weights_image_of_two_platforms_is_an_index_too(desk: Desk) -> None:
    made = desk.bring(image.weights_image(desk.model, desk.registry, "acme"))

    found = by_platform(desk.repository("tiny.weights"), made)
    assert sorted(found) == [AMD, ARM]
    assert found[AMD]["layers"] == found[ARM]["layers"]


def test_the_source_reads_a_weights_image_of_two_platforms_back(desk: Desk) -> None:
    made = desk.bring(image.weights_image(desk.model, desk.registry, "acme"))
    repository = desk.repository("tiny.weights")
    source = OciSource(lambda registry, name: repository, Absorbing(), lambda seconds: None)

    found = source.resolve(SourceSpec("oci://registry.test/tiny.weights", str(made.digest)), None)

    assert found.files == desk.model.files
    assert found.pin == str(made.digest).replace(":", "-")


def test_what_lacks_a_platforms_image_is_not_whole_and_is_made_good(desk: Desk, tmp_path: Path) -> None:
    wanted = image.weights_image(desk.model, desk.registry, "acme")
    made = desk.bring(wanted)
    repository = desk.repository("tiny.weights")
    found = repository.manifest(str(made.digest))
    assert found is not None
    assert is_whole(repository, found)
    lost = parts(found)[1].digest
    (tmp_path / "layouts" / "tiny.weights" / "blobs" / lost.replace(":", "/")).unlink()

    assert not is_whole(repository, found)
    assert desk.bring(wanted).digest == made.digest
    assert is_whole(repository, found)


def test_the_order_in_which_platforms_are_named_means_nothing(desk: Desk) -> None:
    there = desk.build.on(ARM)

    assert there.engine.platform == ARM
    assert there.fingerprint == desk.build.fingerprint
    turned = replace(desk.model, engine=desk.model.other_engines[0], other_engines=(desk.model.engine,))
    assert weights_fingerprint(turned, desk.registry) == weights_fingerprint(desk.model, desk.registry)


def test_one_platform_is_named_as_it_always_was(desk: Desk, tmp_path: Path) -> None:
    alone = engine.build(tmp_path / "runtime")
    e = alone.engine
    before = {
        "template": e.template,
        "version": e.version,
        "variant": e.variant,
        "platform": e.platform,
        "python": e.python,
        "base": e.base_digest,
        "requirements": e.requirements_sha256,
        "runtime": [list(pair) for pair in alone.files],
    }
    assert alone.fingerprint == fingerprint(before)
    assert desk.build.fingerprint != alone.fingerprint
    plain = replace(desk.model, other_engines=())
    files = [[entry.path, entry.sha256] for entry in plain.files]
    told = {"platform": AMD, "layout": 1, "files": files, "overlays": []}
    assert weights_fingerprint(plain, desk.registry) == fingerprint(told)


def test_an_index_of_somebody_else_is_read_without_its_attestations() -> None:
    attested = {
        "mediaType": MANIFEST,
        "digest": "sha256:" + "a" * 64,
        "size": 1,
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    real = {**attested, "digest": "sha256:" + "b" * 64, "platform": {"os": "linux", "architecture": "arm64"}}
    body = json.dumps({"schemaVersion": 2, "manifests": [attested, real]}).encode()

    found = parts(ImageManifest(body, INDEX))

    assert [(part.platform, part.digest) for part in found] == [(ARM, "sha256:" + "b" * 64)]


def test_a_build_of_one_platform_has_one_part() -> None:
    alone = Build(engine.ENGINE, (), "/")
    assert alone.parts == (alone,)
