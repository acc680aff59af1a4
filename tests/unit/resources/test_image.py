"""Names, fingerprints and manifests of images, and the image driver over OCI layouts on disk."""

import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, Repository, held
from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import Corrupt
from pipeline.core.image import Build, Registry
from pipeline.core.model import Model, Overlay
from pipeline.core.report import Event, Progress
from pipeline.core.resource import Absent, Address, Entry, Mark, Observed, Resource, Transfer, fields_of
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.assembly import EngineParts, Placed, assemble
from pipeline.resources.image.layers import Held, layers
from pipeline.resources.image.recipe import engine_name, image_name, version_tag, weights_name
from pipeline.resources.image.resource import ImageDriver, ImageState
from tests.fakes import engine

OWNER = Mark("test", "default", Address(""))
DAY_S = 24 * 3600
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "container": "0f0f",
    "config": {"User": "10001:10001", "Labels": {"dev.mp.engine": "tiny"}},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "e" * 64]},
    "history": [{"created_by": "COPY app /opt/app"}],
}


@dataclass
class Desk:
    """A cache with one model, and layouts to publish into."""

    folder: Path
    cache: Cache
    model: Model
    build: Build
    events: list[Event] = field(default_factory=list)

    @property
    def driver(self) -> ImageDriver:
        return ImageDriver(self.cache, {}, Repositories({}), OWNER)

    def registry(self, name: str = "here") -> Registry:
        return Registry(name, layout=str(self.folder / name))

    def repository(self, name: str, registry: str = "here") -> Repository:
        return Repositories({})(self.registry(registry), name)

    def weights(self, model: Model | None = None) -> Resource[ImageState]:
        return image.weights_image(model or self.model, self.registry(), "acme")

    def whole(self, model: Model | None = None) -> Resource[ImageState]:
        return image.model_image(model or self.model, self.build, self.registry(), "acme")

    def look(self, wanted: Resource[ImageState], *known: Entry) -> Observed[ImageState] | Absent:
        answer = self.driver.observe([wanted], known)[wanted.address]
        assert isinstance(answer, Observed | Absent)
        return answer

    def bring(self, wanted: Resource[ImageState], entry: Entry | None = None) -> Observed[ImageState]:
        inputs = {
            Address("@engine/transformers-0.0.1-cpu:here"): Observed(
                self.engine_state(), digest=self.engine()
            )
        }
        change = Change(wanted.address, wanted.kind, Action.CREATE, wanted, None, entry)
        made = self.driver.apply(change, inputs, self.events.append)
        assert made is not None
        return made

    def engine_state(self) -> ImageState:
        return ImageState("", "")

    def engine(self) -> Digest:
        """An engine image in the layout, as the engine driver leaves it."""
        repository = self.repository("transformers.engine")
        config, layer = json.dumps(CONFIG).encode(), b"environment" * 100
        blobs = [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "digest": digest(body),
                "size": len(body),
            }
            for body in (config, layer)
        ]
        for body in (config, layer):
            repository.push(digest(body), len(body), held(body))
        body = json.dumps({"schemaVersion": 2, "config": blobs[0], "layers": blobs[1:]}).encode()
        manifest = ImageManifest(body, "application/vnd.docker.distribution.manifest.v2+json")
        return repository.put_manifest(engine_name(self.build, self.registry()).tag, manifest)

    def forget_layers(self) -> None:
        """From here on it is another machine with the same weights, which has published nothing yet."""
        (self.cache.root / "layers").unlink()
        self.cache = Cache(self.cache.root)
        self.events.clear()

    def pushed_bytes(self) -> int:
        progress = [event for event in self.events if isinstance(event, Progress)]
        return progress[-1].done_bytes if progress else 0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    cache = Cache(tmp_path / "cache")
    model = engine.model(tmp_path, cache)
    model = replace(model, artifact=replace(model.artifact, version="v1.2/beta"))
    return Desk(tmp_path, cache, model, engine.build(tmp_path / "runtime"))


def entry_of(wanted: Resource[ImageState], made: Observed[ImageState]) -> Entry:
    state = fields_of(wanted.desired)
    return Entry(wanted.address, wanted.kind, wanted.locator, None, made.digest, state, state)


def with_template(desk: Desk, text: str) -> Model:
    file = desk.folder / "chat_template.jinja"
    file.write_text(text)
    return replace(
        desk.model,
        overlays=(Overlay("chat_template.jinja", digest(text.encode())[7:], len(text.encode()), str(file)),),
    )


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("main", "main"),
        ("v1.2/beta+3", "v1.2-beta-3"),
        ("", ""),
        ("..x", "x"),
        ("mp-0123456789ab", ""),
        ("é", ""),
    ],
)
def test_a_version_becomes_a_tag_that_registries_take(version: str, tag: str) -> None:
    assert version_tag(version) == tag


def test_an_images_name_does_not_depend_on_where_or_when_it_is_made(desk: Desk) -> None:
    here, there = desk.registry("here"), Registry("there", url="ghcr.io/acme")
    newer = replace(desk.model, artifact=replace(desk.model.artifact, version="v2", pin="another"))

    assert image_name(desk.model, desk.build, here).tag == image_name(newer, desk.build, there).tag
    assert weights_name(desk.model, here).tag == weights_name(newer, there).tag
    assert str(weights_name(desk.model, there)).startswith("ghcr.io/acme/tiny.weights:mp-")


@pytest.mark.parametrize("change", ["engine", "files", "overlay"])
def test_an_images_name_changes_with_everything_that_is_inside(desk: Desk, change: str) -> None:
    model, build = desk.model, desk.build
    match change:
        case "engine":
            build = replace(build, files=(("transformers/serve.py", "1" * 64),))
        case "files":
            model = replace(model, artifact=replace(model.artifact, files=model.artifact.files[:1]))
        case _:
            model = with_template(desk, "{{ messages }}")

    before = image_name(desk.model, desk.build, desk.registry())
    assert image_name(model, build, desk.registry()).tag != before.tag


def test_hardware_and_arguments_build_nothing_anew(desk: Desk) -> None:
    other = replace(
        desk.model, args={"max-num-seqs": 4}, hardware=replace(desk.model.hardware, memory_bytes=1)
    )

    assert desk.whole(other).desired == desk.whole().desired


def test_a_model_image_is_the_engine_with_the_weights_on_top(desk: Desk) -> None:
    manifest = {
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": "d", "size": 1}
        ]
    }
    parts = EngineParts(ImageManifest(json.dumps(manifest).encode(), ""), json.dumps(CONFIG).encode())
    placed = [
        Placed(layer, Held(digest(b"x"), layer.size_bytes, digest(b"x")))
        for layer in layers(desk.model.artifact.files)
    ]

    made = assemble(placed, parts, "linux/amd64", {"dev.mp.fingerprint": "f" * 64})

    config, body = json.loads(made.config), made.manifest.document()
    assert config["rootfs"]["diff_ids"] == ["sha256:" + "e" * 64, digest(b"x")]
    assert [step["created_by"] for step in config["history"]] == [
        "COPY app /opt/app",
        "mp: answer.txt and 1 more",
    ]
    assert config["config"] == {
        "User": "10001:10001",
        "Labels": {"dev.mp.engine": "tiny", "dev.mp.fingerprint": "f" * 64},
    }
    assert "container" not in config
    assert isinstance(body["layers"], list)
    engine_layer, weights = body["layers"]
    assert engine_layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"  # type: ignore[index, call-overload]
    listing = json.loads(str(weights["annotations"]["dev.mp.files"]))  # type: ignore[index, call-overload]
    assert listing == {file.path: file.sha256 for file in desk.model.artifact.files}


def test_an_image_that_was_published_is_found_as_wanted(desk: Desk) -> None:
    wanted = desk.whole()
    assert isinstance(desk.look(wanted), Absent)

    made = desk.bring(wanted)

    seen = desk.look(wanted)
    assert isinstance(seen, Observed)
    assert seen.state == wanted.desired
    assert (seen.digest, seen.transfer) == (made.digest, Transfer())
    assert seen.mark == Mark("test", "default", wanted.address)
    assert desk.repository("tiny").tags() == ("mp-" + wanted.desired.fingerprint[:12], "v1.2-beta")


def test_publishing_twice_and_elsewhere_gives_the_same_image(desk: Desk) -> None:
    first, again = desk.bring(desk.weights()), desk.bring(desk.weights())
    desk.forget_layers()
    elsewhere = image.weights_image(desk.model, replace(desk.registry("there"), name="here"), "acme")

    assert first.digest == again.digest == desk.bring(elsewhere).digest


def test_the_annotations_say_where_it_came_from_but_no_path_of_this_machine(desk: Desk) -> None:
    hub = replace(desk.model, name="hub", artifact=replace(desk.model.artifact, source="hf://acme/tiny"))
    local, public = desk.bring(desk.weights()), desk.bring(desk.weights(hub))

    one = desk.repository("tiny.weights").describe(str(local.digest))
    other = desk.repository("hub.weights").describe(str(public.digest))

    assert one is not None
    assert other is not None
    prefix = "org.opencontainers.image."
    assert f"{prefix}source" not in one.annotations
    assert other.annotations[f"{prefix}source"] == "hf://acme/tiny"
    assert other.annotations[f"{prefix}version"] == "v1.2/beta"
    assert other.annotations[f"{prefix}revision"] == desk.model.artifact.pin
    assert other.annotations["dev.mp.project"] == "acme"
    assert str(desk.folder) not in json.dumps(dict(one.annotations))


def test_bytes_to_push_are_exact_once_layers_are_known_and_at_most_before(desk: Desk) -> None:
    (layer,) = layers(desk.model.artifact.files)
    assert desk.look(desk.weights()).transfer == Transfer(push_bytes=layer.size_bytes, exact=False)

    desk.bring(desk.weights())

    desk.engine()
    engine_bytes = len(b"environment" * 100)
    assert desk.look(desk.whole()).transfer == Transfer(reused_bytes=layer.size_bytes + engine_bytes)
    elsewhere = image.weights_image(desk.model, desk.registry("there"), "acme")
    assert desk.look(elsewhere).transfer == Transfer(push_bytes=layer.size_bytes)


def test_a_changed_chat_template_pushes_one_small_layer_and_the_plan_said_so(desk: Desk) -> None:
    desk.bring(desk.weights(with_template(desk, "old")))
    changed = with_template(desk, "{{ messages }}")
    (*_, overlay) = layers(changed.artifact.files, changed.overlays)
    (base,) = layers(changed.artifact.files)
    planned = desk.look(desk.weights(changed)).transfer
    desk.events.clear()

    desk.bring(desk.weights(changed))

    assert planned == Transfer(push_bytes=overlay.size_bytes, reused_bytes=base.size_bytes, exact=False)
    assert desk.pushed_bytes() == overlay.size_bytes == 3 * 512 + 1024


def test_another_machine_learns_the_layers_from_the_annotations(desk: Desk) -> None:
    old = desk.weights()
    entry = entry_of(old, desk.bring(old))
    desk.forget_layers()
    changed = desk.weights(with_template(desk, "{{ messages }}"))
    (base,) = layers(desk.model.artifact.files)

    assert desk.look(changed, entry).transfer.reused_bytes == base.size_bytes
    desk.bring(changed, entry)

    assert desk.pushed_bytes() == 3 * 512 + 1024


def test_a_human_tag_that_names_an_index_of_somebody_else_stands_in_nobodys_way(desk: Desk) -> None:
    index = ImageManifest(b'{"schemaVersion":2,"manifests":[]}', "application/vnd.oci.image.index.v1+json")
    desk.repository("tiny.weights").put_manifest("v1.2-beta", index)
    desk.repository("transformers.engine").put_manifest(engine_name(desk.build, desk.registry()).tag, index)

    assert isinstance(desk.look(desk.weights()), Absent)
    assert isinstance(desk.look(desk.whole()), Absent)


def test_what_an_annotation_says_of_a_layer_is_not_remembered_as_our_own(desk: Desk) -> None:
    """Whoever may push may write annotations: only what this machine hashed goes into its memory."""
    wanted = desk.weights()
    entry = entry_of(wanted, desk.bring(wanted))
    desk.forget_layers()

    desk.bring(desk.weights(with_template(desk, "{{ messages }}")), entry)

    (layer,) = layers(desk.model.artifact.files)
    assert desk.cache.recall_layer(layer.key) is None


def test_a_model_image_takes_the_weights_over_from_the_weights_image(desk: Desk) -> None:
    desk.bring(desk.weights())
    desk.events.clear()

    desk.bring(desk.whole())

    assert desk.events == []
    (layer,) = layers(desk.model.artifact.files)
    known = desk.cache.recall_layer(layer.key)
    assert known is not None
    blob = known[0].replace(":", "/")
    names = [desk.folder / "here" / name / "blobs" / blob for name in ("tiny", "tiny.weights")]
    assert names[0].stat().st_ino == names[1].stat().st_ino


def test_a_new_version_shows_the_old_image_as_what_is_there(desk: Desk) -> None:
    old = desk.weights()
    made = desk.bring(old)

    seen = desk.look(desk.weights(with_template(desk, "new")), entry_of(old, made))

    assert isinstance(seen, Observed)
    assert (seen.state.fingerprint, seen.digest) == (old.desired.fingerprint, made.digest)


def test_an_image_that_is_only_known_is_read_without_its_recipe(desk: Desk) -> None:
    old = desk.weights()
    entry = entry_of(old, desk.bring(old))

    seen = desk.driver.observe([], [entry])[old.address]

    assert isinstance(seen, Observed)
    assert fields_of(seen.state) == entry.applied


def test_a_tag_that_was_moved_is_seen_and_put_back_without_a_push(desk: Desk) -> None:
    wanted = desk.weights()
    made = desk.bring(wanted)
    foreign = desk.repository("transformers.engine").manifest(desk.engine())
    assert foreign is not None
    repository = desk.repository("tiny.weights")
    tag = f"mp-{wanted.desired.fingerprint[:12]}"
    repository.put_manifest(tag, foreign)
    desk.events.clear()

    seen = desk.look(wanted)
    assert isinstance(seen, Observed)
    assert (seen.state.fingerprint, seen.digest) == ("", foreign.digest)
    assert desk.bring(wanted, entry_of(wanted, made)).digest == made.digest

    assert desk.events == []
    assert desk.look(wanted) == Observed(
        wanted.desired, replace(OWNER, address=wanted.address), digest=made.digest
    )


def test_a_human_tag_that_names_another_image_is_named(desk: Desk) -> None:
    wanted = desk.weights()
    desk.bring(wanted)
    repository = desk.repository("tiny.weights")
    foreign = desk.repository("transformers.engine").manifest(desk.engine())
    assert foreign is not None
    repository.put_manifest("v1.2-beta", foreign)

    seen = desk.look(wanted)

    assert isinstance(seen, Observed)
    assert seen.state.version_tag == f"v1.2-beta → {foreign.digest[:19]}"


def test_a_damaged_file_never_reaches_a_tag_and_leaves_the_cache(desk: Desk) -> None:
    bad = desk.model.artifact.files[0]
    blob = desk.cache.blob(bad.sha256)
    blob.chmod(0o600)
    blob.write_bytes(b"the sky is blu3")

    with pytest.raises(Corrupt, match=bad.path):
        desk.bring(desk.weights())

    assert desk.repository("tiny.weights").tags() == ()
    assert not blob.exists()
    assert not desk.cache.complete(desk.model.artifact)


def test_a_byte_that_rotted_in_the_cache_since_the_file_came_never_reaches_a_tag(desk: Desk) -> None:
    bad = desk.model.artifact.files[0]
    blob = desk.cache.blob(bad.sha256)
    before = blob.stat()
    blob.chmod(0o600)
    blob.write_bytes(b"the sky is blu3")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    desk.cache = Cache(desk.cache.root, now=lambda: time.time() + 2 * DAY_S)  # a run of another day

    with pytest.raises(Corrupt, match=bad.path):
        desk.bring(desk.weights())

    assert desk.repository("tiny.weights").tags() == ()
    assert not blob.exists()


def test_an_overlay_that_changed_since_the_plan_is_refused(desk: Desk) -> None:
    wanted = desk.weights(with_template(desk, "{{ messages }}"))
    (desk.folder / "chat_template.jinja").write_text("{{ evil    }}")

    with pytest.raises(Corrupt, match=r"chat_template\.jinja"):
        desk.bring(wanted)

    assert desk.repository("tiny.weights").tags() == ()


def test_a_layer_that_vanished_from_the_registry_is_pushed_again(desk: Desk) -> None:
    wanted = desk.weights()
    made = desk.bring(wanted)
    (layer,) = layers(desk.model.artifact.files)
    known = desk.cache.recall_layer(layer.key)
    assert known is not None
    (desk.folder / "here" / "tiny.weights" / "blobs" / known[0].replace(":", "/")).unlink()

    assert desk.bring(wanted, entry_of(wanted, made)).digest == made.digest

    assert desk.repository("tiny.weights").has(known[0])


def test_a_layer_that_was_cut_off_in_a_layout_is_pushed_again(desk: Desk) -> None:
    wanted = desk.weights()
    made = desk.bring(wanted)
    (layer,) = layers(desk.model.artifact.files)
    known = desk.cache.recall_layer(layer.key)
    assert known is not None
    blob = desk.folder / "here" / "tiny.weights" / "blobs" / known[0].replace(":", "/")
    blob.write_bytes(blob.read_bytes()[:-100])

    assert desk.bring(wanted, entry_of(wanted, made)).digest == made.digest

    assert desk.repository("tiny.weights").blob(known[0]) is not None


def test_a_damaged_layer_is_not_taken_over_into_a_new_image(desk: Desk) -> None:
    desk.bring(desk.weights())
    (layer,) = layers(desk.model.artifact.files)
    known = desk.cache.recall_layer(layer.key)
    assert known is not None
    blob = desk.folder / "here" / "tiny.weights" / "blobs" / known[0].replace(":", "/")
    blob.write_bytes(bytes(blob.stat().st_size))
    desk.engine()

    desk.bring(desk.whole())

    assert desk.repository("tiny").blob(known[0]) is not None
