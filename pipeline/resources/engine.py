"""Engine images: environment and runtime files of one engine, without weights, built once and shared by all models."""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.clients import uv
from pipeline.clients.archive import Stored, unpack
from pipeline.clients.buildkit import Builder, Instructions, OnBytes, context_tar
from pipeline.clients.oci import Reference, parse_reference
from pipeline.clients.repository import LAYER, Chunks, ImageManifest, Repository, blobs, contents, held
from pipeline.core.change import Change
from pipeline.core.digest import Digest, digest, image_tag
from pipeline.core.errors import BackendError, Corrupt, Exhausted
from pipeline.core.image import Build, Engine, ImageName, Registry
from pipeline.core.report import Emit, Line, Progress
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Mark,
    Observed,
    Resource,
    State,
    Transfer,
    Unreadable,
    address,
)
from pipeline.resources.assembly import FINGERPRINT, engine_image, labels
from pipeline.resources.bundles import Bundle, bundles
from pipeline.resources.cache import Cache
from pipeline.resources.environment import alone, environment_fingerprint
from pipeline.resources.publish import UPLOADS, OpenRepository
from pipeline.resources.recipe import engine_name, locator, registry_of
from pipeline.resources.trust.annotations import of_engine
from pipeline.resources.trust.attach import Attestor

KIND = "engine"
DOCKERFILE = "Dockerfile"
REPORTED_BYTES = 16 * 2**20  # between two reports of a push

Places: TypeAlias = Callable[[Reference], Sequence[Reference]]  # mirrors of a base first, itself last
Install: TypeAlias = Callable[[Engine, Path, Callable[[str], None]], None]
Answer: TypeAlias = "Observed[EngineState] | Absent | Unreadable"


@dataclass(frozen=True)
class EngineState(State):
    fingerprint: str  # "": a tag of ours names an image that mp did not make
    build: Build | None = field(default=None, compare=False)
    name: ImageName | None = field(default=None, compare=False)


def resource(build: Build, registry: Registry) -> Resource[EngineState]:
    name = engine_name(build, registry)
    return Resource(
        address("@engine", build.engine.key, registry.name),
        KIND,
        locator(name),
        EngineState(build.fingerprint, build, name),
        keep=True,
    )


class EngineDriver:
    """Builds with BuildKit what no registry has. The environment is made outside: a build needs no network."""

    def __init__(
        self,
        builder: Builder,
        cache_root: Path,
        repositories: OpenRepository,
        owner: Mark,
        install: Install = uv.install_into,
        attestor: Attestor | None = None,
        places: Places = lambda base: (base,),
    ) -> None:
        self._builder = builder
        self._folder = cache_root / "engine-environments"
        self._cache = Cache(cache_root)  # remembers layers
        self._homes: dict[tuple[str, Digest], str] = {}  # registry, layer → repository that has it
        self._open = repositories
        self._owner = owner  # its address is filled in for each
        self._install = install
        self._places = places
        self._attestor = attestor  # None: nothing is said of new images beside them

    def observe(
        self, wanted: Sequence[Resource[EngineState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """Engine images are few: one after the other."""
        entries = {entry.address: entry for entry in known}
        answers = {r.address: self._answer(r, entries.pop(r.address, None)) for r in wanted}
        return answers | {where: self._answer(None, entry) for where, entry in entries.items()}

    def apply(
        self, change: Change[EngineState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[EngineState] | None:
        """Build and push, unless the image is there by now: whoever makes it first, makes it for all."""
        if change.resource is None:  # images are pruned, never deleted by apply
            return None
        desired, where = change.resource.desired, change.resource.address
        build, name = desired.build, desired.name
        assert build is not None and name is not None, "a desired engine knows how it is built"
        repository = self._open(name.registry, name.repository)
        image = self._standing(repository, build, name, change.entry)
        if image is not None:
            repository.put_manifest(name.tag, image)
            made = image.digest
        else:
            if self._attestor:
                self._attestor.require(name.registry)
            made = self._make(where, repository, build, name, emit)
        return Observed(desired, self._mark(where), digest=made)

    def _answer(self, wanted: Resource[EngineState] | None, entry: Entry | None) -> Answer:
        """The wanted image; where it is not there yet, the one that was applied last is what is there."""
        found = wanted or entry
        assert found is not None, "somebody asked"
        fingerprints = [wanted.desired.fingerprint] if wanted else []
        if entry and entry.applied.get("fingerprint"):
            fingerprints.append(str(entry.applied["fingerprint"]))
        build, name = (wanted.desired.build, wanted.desired.name) if wanted else (None, None)
        registry = name.registry if name else registry_of(found.locator)
        try:
            repository = self._open(registry, found.locator["repository"])
            for fingerprint in fingerprints:
                if image := repository.manifest(image_tag(fingerprint)):
                    state = EngineState(_fingerprint(repository, image), build, name)
                    return Observed(state, self._mark(found.address), digest=image.digest)
        except BackendError as problem:
            return Unreadable(problem.message, problem.hint)
        return Absent(Transfer(exact=False))  # what a build weighs is known when it is there

    def _standing(
        self, repository: Repository, build: Build, name: ImageName, entry: Entry | None
    ) -> ImageManifest | None:
        """The image of the inventory's digest; without one, what our tag names. A moved tag is not believed."""
        known = entry and entry.digest and entry.applied.get("fingerprint") == build.fingerprint
        image = repository.manifest(str(entry.digest) if entry and known else name.tag)
        if image is None or _fingerprint(repository, image) != build.fingerprint:
            return None
        whole = all(repository.has(blob, size_bytes) for blob, size_bytes in blobs(image))
        return image if whole else None

    def _make(
        self, where: Address, repository: Repository, build: Build, name: ImageName, emit: Emit
    ) -> Digest:
        """What the Dockerfile makes comes from BuildKit; the gigabytes of the environment go past the Docker engine."""

        def say(text: str) -> None:
            emit(Line(where, text))

        base = _base(build.engine)
        emit(Progress(where, "install"))
        app = self._app(build.engine, say)
        emit(Progress(where, "pull"))
        named = self._pull(base, str(build.engine.base_digest), partial(_progress, emit, where, "pull"))
        emit(Progress(where, "build"))
        instructions = Instructions(
            f"mp-build/{name.repository}:{name.tag}",
            build.engine.platform,
            {"BASE": f"{named}@{build.engine.base_digest}"},
            {FINGERPRINT: build.fingerprint, "dev.mp.engine": build.engine.key},
        )
        self._builder.build(instructions, lambda: context_tar(_context(build)), say)
        try:
            if image := self._standing(repository, build, name, None):  # another machine was faster
                return image.digest
            unpacked = unpack(self._builder.export(instructions.name), repository)
        finally:
            self._builder.remove(instructions.name)
        on_bytes = partial(_progress, emit, where, "push")
        environment = self._push(name, repository, bundles(app), on_bytes)
        made = engine_image(unpacked, environment, {**instructions.labels, **of_engine(build.engine)})
        repository.push(digest(made.config), len(made.config), held(made.config))
        if self._attestor:
            self._attestor.attest_engine(repository, name, build, made.manifest)
        return repository.put_manifest(name.tag, made.manifest)

    def _pull(self, base: Reference, base_digest: str, on_bytes: OnBytes) -> str:
        """Have the base in the Docker engine, from a mirror that has it; its name there. The digest is one everywhere."""
        *mirrors, itself = self._places(base)
        for mirror in mirrors:
            try:
                self._builder.pull(mirror.name, base_digest, on_bytes)
            except Exhausted:
                raise
            except BackendError:
                continue
            return mirror.name
        self._builder.pull(itself.name, base_digest, on_bytes)
        return itself.name

    def _push(
        self, name: ImageName, repository: Repository, environment: Sequence[Bundle], on_bytes: OnBytes
    ) -> list[tuple[str, Stored]]:
        """The environment's layers, two at a time; what the registry has from another engine is not sent again."""
        meter = _Meter(on_bytes, sum(bundle.size_bytes for bundle in environment))

        def place(bundle: Bundle) -> tuple[str, Stored]:
            remembered = self._cache.recall_layer(bundle.key)
            if remembered and self._is_there(name, repository, remembered[0], bundle.size_bytes):
                layer = remembered[0]
                meter.count(bundle.size_bytes)
            else:
                layer = repository.push(None, bundle.size_bytes, meter.counted(bundle))
                self._cache.remember_layer(bundle.key, layer, bundle.size_bytes)
            self._homes[name.registry.location, layer] = name.repository
            return bundle.title, Stored(layer, bundle.size_bytes, LAYER)

        with ThreadPoolExecutor(UPLOADS, "push") as pool:
            return list(pool.map(place, environment))

    def _is_there(self, name: ImageName, repository: Repository, layer: Digest, size_bytes: int) -> bool:
        if repository.keeps(layer, size_bytes):
            return True
        home = self._homes.get((name.registry.location, layer))
        return home is not None and repository.mount(layer, home, size_bytes)

    def _app(self, engine: Engine, say: Callable[[str], None]) -> Path:
        """The environment as a folder that is copied into the image; made once, shared by equal requirements."""
        folder = self._folder / environment_fingerprint(engine)
        marker = folder.with_suffix(".complete")  # beside it: the folder's content is the image's
        with alone(folder):
            if not (marker.exists() and folder.is_dir()):
                marker.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                if engine.requirements:
                    self._install(engine, folder, say)
                marker.touch()
        return folder

    def _mark(self, where: Address) -> Mark:
        return replace(self._owner, address=where)


def _base(engine: Engine) -> Reference:
    """The base, once its digest is known: a digest is never invented."""
    if engine.base_digest is None:
        raise BackendError(
            "engine",
            f'{engine.key}: the digest of base "{engine.base}" is not known',
            f"mp lock where its registry answers, or name another base under engines: {engine.template}: base:",
        )
    return parse_reference(engine.base)


def _context(build: Build) -> Iterator[tuple[str, Path]]:
    """The build context: Dockerfile, mp/ (runtime files, flat), app/ (empty: mp lays the environment over it)."""
    own = f"{build.engine.template}/"
    for path, sha256 in build.files:
        file = Path(build.root) / path
        if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise Corrupt(str(file), "changed after it was read", "run it again")
        name = path.removeprefix(own)
        yield (name if name == DOCKERFILE else f"mp/{name}"), file
    yield "app/", Path(build.root)


def _fingerprint(repository: Repository, image: ImageManifest) -> str:
    """From the annotation, or from the label where a Docker engine pushed; "" for somebody else's image."""
    if found := image.annotations().get(FINGERPRINT):
        return found
    try:
        config = repository.blob(contents(image)[0])
    except Corrupt:  # an index, an artifact
        return ""
    return labels(config).get(FINGERPRINT, "") if config else ""


def _progress(emit: Emit, where: Address, doing: str, done_bytes: int, total_bytes: int) -> None:
    emit(Progress(where, doing, done_bytes, total_bytes))


class _Meter:
    """Adds up what all uploads of one engine have sent."""

    def __init__(self, on_bytes: OnBytes, total_bytes: int) -> None:
        self._on_bytes = on_bytes
        self._total_bytes = total_bytes
        self._guard = threading.Lock()
        self._done_bytes = 0

    def counted(self, bundle: Bundle) -> Chunks:
        reached = 0  # what is sent again is not counted again

        def blocks(start: int) -> Iterator[bytes]:
            nonlocal reached
            at = start
            for block in bundle.blocks(start):
                yield block
                at += len(block)
                self.count(max(at - reached, 0))
                reached = max(at, reached)

        return blocks

    def count(self, sent_bytes: int) -> None:
        with self._guard:
            before, self._done_bytes = self._done_bytes, self._done_bytes + sent_bytes
        if before // REPORTED_BYTES != self._done_bytes // REPORTED_BYTES:
            self._on_bytes(min(self._done_bytes, self._total_bytes), self._total_bytes)
