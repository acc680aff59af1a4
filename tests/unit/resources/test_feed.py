"""Images of models that are not kept here: read from the cache where it has a file, else straight from the source."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import Repository, contents
from pipeline.core.change import Action, Change
from pipeline.core.digest import image_tag
from pipeline.core.errors import BackendError, Corrupt, Missing, Unreachable
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry, Model, Part
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Absent, Address, Mark, Observed, Resource, Transfer
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import resource as image
from pipeline.resources.image.feed import Feeds
from pipeline.resources.image.layers import Layer, Stream, layers
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.sources.local import LocalSource
from tests.fakes import engine

OWNER = Mark("test", "default", Address(""))
PIN = "c" * 40
WEIGHTS = bytes(range(256)) * 12_000  # three chunks
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}


@dataclass
class Shelf:
    """A source of files by reference and path; `damage` changes what an opened file gives."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    opened: list[tuple[str, int]] = field(default_factory=list)
    open_now: int = 0
    damage: Callable[[str, bytes], BinaryIO] | None = None

    def artifact(self, source: str, files: dict[str, bytes]) -> Artifact:
        self.files[source] = files
        entries = tuple(FileEntry(p, len(b), sha256(b).hexdigest()) for p, b in sorted(files.items()))
        return Artifact(source, "main", PIN, entries)

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        raise AssertionError("nothing is resolved here")

    @contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        self.opened.append((entry.path, start))
        body = self.files[artifact.source][entry.path][start:]
        self.open_now += 1
        try:
            yield self.damage(entry.path, body) if self.damage else io.BytesIO(body)
        finally:
            self.open_now -= 1


class Cut(io.BytesIO):
    """Breaks after its first chunk."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise Unreachable("hub", "the connection broke", "check the network")
        return super().read(1_000_000)


@dataclass
class Desk:
    folder: Path
    shelf: Shelf
    model: Model
    events: list[Event] = field(default_factory=list)

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "cache")

    @property
    def driver(self) -> ImageDriver:
        return ImageDriver(self.cache, {"hf": self.shelf}, Repositories({}), OWNER)

    @property
    def repository(self) -> Repository:
        return Repositories({})(self.registry, f"{self.model.name}.weights")

    @property
    def registry(self) -> Registry:
        return Registry("here", layout=str(self.folder / "registry"))

    @property
    def wanted(self) -> Resource[ImageState]:
        return image.weights_image(self.model, self.registry, "acme")

    def transfer(self) -> Transfer:
        answer = self.driver.observe([self.wanted], [])[self.wanted.address]
        assert isinstance(answer, Absent | Observed)
        return answer.transfer

    def bring(self) -> None:
        change = Change(self.wanted.address, self.wanted.kind, Action.CREATE, self.wanted, None, None)
        self.driver.apply(change, {}, self.events.append)

    def keep(self, path: str) -> Path:
        """Have one file in the cache already, as another model's."""
        aside = self.folder / "aside"
        aside.mkdir()
        (aside / path).write_bytes(FILES[path])
        (aside / "tiny.gguf").write_bytes(b"GGUF")
        source = LocalSource(self.folder / "hashes")
        artifact = source.resolve(SourceSpec(f"file://{aside}", ""), None)
        self.cache.add(artifact, source, self.events.append, Address("other/artifact"))
        return self.cache.blob(sha256(FILES[path]).hexdigest())

    def published(self) -> dict[str, str]:
        """What the image manifest says is inside: path → sha256."""
        manifest = self.repository.manifest(image_tag(self.wanted.desired.fingerprint))
        assert manifest is not None
        found: dict[str, str] = {}
        for layer, _ in contents(manifest)[1]:
            blob = self.repository.blob(layer)
            assert blob is not None
            with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
                files = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
            found |= {name: sha256(file.read()).hexdigest() for name, file in files.items() if file}
        return found


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {f"models/{path}": sha256(body).hexdigest() for path, body in files.items()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    shelf = Shelf()
    artifact = shelf.artifact("hf://acme/big", FILES)
    model = Model("big", artifact, engine.CPU, engine.ENGINE.template, engine.ENGINE, cached=False)
    return Desk(tmp_path, shelf, model)


def test_an_image_is_made_from_the_source_and_nothing_is_kept(desk: Desk) -> None:
    desk.bring()

    assert desk.published() == hashes(FILES)
    assert not (desk.folder / "cache" / "blobs").exists()


def test_the_plan_counts_what_is_read_and_what_is_pushed(desk: Desk) -> None:
    planned = desk.transfer()

    assert planned.download_bytes == sum(map(len, FILES.values()))
    assert planned.push_bytes == sum(layer.size_bytes for layer in layers(desk.model.files))
    assert not planned.exact


def test_what_the_cache_has_is_not_read_again(desk: Desk) -> None:
    desk.keep("model.safetensors")
    planned = desk.transfer()

    desk.bring()

    assert planned.download_bytes == len(FILES["config.json"])
    assert [path for path, _ in desk.shelf.opened] == ["config.json"]
    assert desk.published() == hashes(FILES)


def test_a_damaged_copy_in_the_cache_is_dropped_and_the_source_is_read(desk: Desk) -> None:
    blob = desk.keep("model.safetensors")
    blob.chmod(0o644)
    blob.write_bytes(WEIGHTS[:-1] + b"!")

    desk.bring()

    assert desk.published() == hashes(FILES)
    assert not blob.exists()


def test_a_layer_that_is_in_the_registry_is_not_read_from_the_source(desk: Desk) -> None:
    desk.bring()
    desk.shelf.opened.clear()
    desk.model = replace(desk.model, artifact=replace(desk.model.artifact, version="v2"))

    planned = desk.transfer()
    desk.bring()

    assert (planned.download_bytes, planned.push_bytes) == (0, 0)
    assert desk.shelf.opened == []


def test_a_cut_connection_goes_on_where_it_broke_inside_the_same_upload(desk: Desk) -> None:
    desk.shelf.damage = lambda path, body: Cut(body) if len(body) == len(WEIGHTS) else io.BytesIO(body)

    desk.bring()

    assert desk.shelf.opened == [
        ("config.json", 0),
        ("model.safetensors", 0),
        ("model.safetensors", 1_000_000),
    ]
    assert desk.published() == hashes(FILES)


def test_an_upload_that_begins_again_reads_the_source_again_and_leaves_nothing_open(desk: Desk) -> None:
    layer = Layer(desk.model.files)
    read = Feeds(desk.cache, {"hf": desk.shelf}).of(desk.model, layer)
    given_up = Stream(layer, read)()
    while desk.shelf.opened[-1:] != [("model.safetensors", 0)]:
        next(given_up)
    del given_up
    assert desk.shelf.open_now == 0

    whole = b"".join(Stream(layer, read)())

    assert len(whole) == layer.size_bytes
    assert desk.shelf.opened == [("config.json", 0), ("model.safetensors", 0)] * 2


def test_an_upload_that_goes_on_opens_the_source_where_it_was(desk: Desk) -> None:
    layer = Layer(desk.model.files)
    stream = Stream(layer, Feeds(desk.cache, {"hf": desk.shelf}).of(desk.model, layer))
    cut, sent_bytes = stream(), 0
    while sent_bytes < 1_500_000:
        sent_bytes += len(next(cut))
    del cut
    desk.shelf.opened.clear()
    whole = b"".join(Stream(layer, Feeds(desk.cache, {"hf": desk.shelf}).of(desk.model, layer))())
    desk.shelf.opened.clear()

    assert b"".join(stream(1_200_000)) == whole[1_200_000:]

    begins = whole.index(WEIGHTS[:512])
    assert desk.shelf.opened == [("model.safetensors", 1_200_000 - begins)]


def test_a_kept_file_is_opened_where_the_upload_was(desk: Desk) -> None:
    desk.keep("model.safetensors")
    layer = Layer(tuple(entry for entry in desk.model.files if entry.size_bytes > 2))
    stream = Stream(layer, Feeds(desk.cache, {"hf": desk.shelf}).of(desk.model, layer))
    whole = b"".join(stream())

    assert b"".join(stream(2_000_001)) == whole[2_000_001:]
    assert desk.shelf.opened == []


def _flipped(path: str, body: bytes) -> BinaryIO:
    return io.BytesIO(body[:-1] + bytes([body[-1] ^ 1]) if path.endswith(".safetensors") else body)


def _shorter(path: str, body: bytes) -> BinaryIO:
    return io.BytesIO(body[:-1] if path.endswith(".safetensors") else body)


@pytest.mark.parametrize("damage", [_flipped, _shorter])
def test_a_wrong_file_is_never_tagged_and_the_next_apply_works(
    desk: Desk, damage: Callable[[str, bytes], BinaryIO]
) -> None:
    desk.shelf.damage = damage
    with pytest.raises(Corrupt, match=r'hf://acme/big: "model\.safetensors" of big ') as problem:
        desk.bring()
    assert (
        problem.value.hint
        == "run mp apply again; if it stays so, the source has changed: run mp lock --upgrade"
    )
    assert desk.repository.tags() == ()

    desk.shelf.damage = None
    desk.bring()
    assert desk.published() == hashes(FILES)


def test_a_source_that_is_gone_is_no_registry_to_try_again(desk: Desk) -> None:
    def gone(path: str, body: bytes) -> BinaryIO:
        raise Unreachable("hub", "connection refused", "check the network")

    desk.shelf.damage = gone
    pauses: list[float] = []
    feeds = Feeds(desk.cache, {"hf": desk.shelf}, pauses.append)
    layer = Layer(desk.model.files)

    with pytest.raises(BackendError, match=r'"config\.json" of big did not arrive whole: hub: ') as problem:
        list(Stream(layer, feeds.of(desk.model, layer))())

    assert not isinstance(problem.value, Unreachable)
    assert len(desk.shelf.opened) == len(pauses) + 1 == 5


def test_a_file_of_a_part_is_read_from_its_own_source_under_its_own_name(desk: Desk) -> None:
    adapter = {"adapter_model.safetensors": b"lora"}
    tokenizer = {"config.json": b'{"other": 1}'}
    desk.model = replace(
        desk.model,
        parts=(
            Part("adapters.fr", desk.shelf.artifact("hf://acme/fr", adapter), "adapters/fr"),
            Part("config", desk.shelf.artifact("hf://acme/config", tokenizer)),
        ),
    )

    desk.bring()

    expected = {**FILES, **tokenizer, "adapters/fr/adapter_model.safetensors": b"lora"}
    assert desk.published() == hashes(expected)
    assert desk.transfer() == Transfer()


def test_a_model_that_is_kept_is_read_from_the_cache_alone(desk: Desk) -> None:
    desk.model = replace(desk.model, cached=True)

    assert desk.transfer().download_bytes == 0
    with pytest.raises(Missing, match=r'"config\.json" is not in'):
        desk.bring()
    assert desk.shelf.opened == []


def test_a_scheme_that_nothing_reads_is_told(desk: Desk) -> None:
    artifact = replace(desk.model.artifact, source="ftp://acme/big")
    desk.model = replace(desk.model, artifact=artifact)

    with pytest.raises(BackendError, match='nothing here reads "ftp://"'):
        desk.bring()
