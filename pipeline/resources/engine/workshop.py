"""Makes engine images of one platform: the environment by uv, what the Dockerfile says by BuildKit. Used by resources/engine."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pipeline.clients.archive import Stored, unpack
from pipeline.clients.buildkit import Builds, Instructions, OnBytes, context_tar
from pipeline.clients.oci.repositories import ImageReference, parse_image
from pipeline.clients.oci.repository import LAYER, Chunks, ImageManifest, Repository, contents, held
from pipeline.core.diagnostic import Diagnostic
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import BackendError, Corrupt, Exhausted, Missing, Unreachable
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, ImageName
from pipeline.core.report import Emit, Line, Progress
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.resources.engine.bundles import Bundle, bundles
from pipeline.resources.engine.environment import alone, environment_fingerprint
from pipeline.resources.image.assembly import FINGERPRINT, engine_image
from pipeline.resources.image.index import is_index, parts
from pipeline.resources.image.publish import UPLOADS, OpenRepository
from pipeline.resources.image.trust.annotations import of_engine

DOCKERFILE = "Dockerfile"
ENGINE = "dev.mp.engine"  # label and annotation: Engine.key
REPORTED_BYTES = 16 * 2**20  # between two reports of a push

Places: TypeAlias = Callable[
    [ImageReference], Sequence[ImageReference]
]  # mirrors of a base first, itself last
Install: TypeAlias = Callable[[Engine, Path, Callable[[str], None]], None]
Standing: TypeAlias = Callable[[], ImageManifest | None]


@frozen
class Builders:
    """Who builds the images of which template."""

    usual: Builds
    own: Mapping[str, Builds]  # by template

    def of(self, engine: Engine) -> Builds:
        return self.own.get(engine.template, self.usual)


class Workshop:
    """Builders, the environments of this machine, and what this process has pushed."""

    def __init__(
        self,
        builders: Builders,
        cache_root: Path,
        repositories: OpenRepository,
        install: Install,
        places: Places,
        platform: str,
    ) -> None:
        self._builders = builders
        self._folder = cache_root / "engine-environments"
        self._cache = Cache(cache_root)  # remembers layers
        self._homes: dict[tuple[str, Digest], str] = {}  # registry, layer → repository that has it
        self._open = repositories
        self._install = install
        self._places = places
        self._platform = platform  # of this machine: what a Docker engine builds for without help

    def check(self, builds: Iterable[Build]) -> tuple[Diagnostic, ...]:
        """What stands against making these images, each thing once."""
        asked = dict.fromkeys((self._builders.of(build.engine), build.engine.platform) for build in builds)
        said = (remark for builder, platform in asked for remark in builder.check(platform))
        return tuple(dict.fromkeys(said))

    def make(
        self,
        where: Address,
        repository: Repository,
        build: Build,
        name: ImageName,
        emit: Emit,
        standing: Standing,
        *,
        one_of_several: bool = False,
    ) -> ImageManifest:
        """An image for the platform of `build`, all but its manifest pushed.

        What the Dockerfile makes comes from BuildKit; the gigabytes of the environment go past the Docker engine.
        `standing` is asked after the build: another machine may have been faster.
        """

        def say(text: str) -> None:
            emit(Line(where, text))

        engine = build.engine
        base, base_digest = _base(engine), Digest(str(engine.base_digest))
        if one_of_several or engine.platform != self._platform:
            base_digest = self._of_platform(base, base_digest, engine)
        emit(Progress(where, "install"))
        app = self._app(engine, say)
        emit(Progress(where, "pull"))
        builder = self._builders.of(engine)
        named = self._pull(builder, base, base_digest, partial(_progress, emit, where, "pull"))
        emit(Progress(where, "build"))
        instructions = Instructions(
            f"mp-build/{name.repository}:{name.tag}",
            engine.platform,
            {"BASE": f"{named}@{base_digest}"},
            {FINGERPRINT: build.fingerprint, ENGINE: engine.key},
        )
        self._build(builder, instructions, build, say)
        try:
            if image := standing():
                return image
            unpacked = unpack(builder.export(instructions.name), repository)
        finally:
            builder.remove(instructions.name)
        on_bytes = partial(_progress, emit, where, "push")
        environment = self._push(name, repository, bundles(app), on_bytes)
        made = engine_image(unpacked, environment, {**instructions.labels, **of_engine(engine)})
        repository.push(digest(made.config), len(made.config), held(made.config))
        return made.manifest

    def _build(
        self, builder: Builds, instructions: Instructions, build: Build, say: Callable[[str], None]
    ) -> None:
        try:
            builder.build(instructions, lambda: context_tar(_context(build)), say)
        except BackendError as problem:
            if problem.hint is not None or instructions.platform == self._platform:
                raise
            hint = (
                f"if its Dockerfile runs programs of {instructions.platform}: set DOCKER_HOST to an engine of that "
                "platform, or install its emulation there (binfmt)"
            )
            raise BackendError(problem.system, problem.message.partition(": ")[2], hint) from problem

    def _of_platform(self, base: ImageReference, base_digest: Digest, engine: Engine) -> Digest:
        """The base's image for the engine's platform. A Docker engine asked by the index's digest gives its own."""
        silent: BackendError | None = None
        for place in self._places(base):
            try:
                named = _platforms(self._open(*place.registry()), base_digest)
            except Unreachable as problem:
                silent = problem
                continue
            if engine.platform in named:
                return named[engine.platform]
            if named:
                raise Missing(
                    place.name,
                    f"the base of {engine.key} is for {', '.join(sorted(named))}, not for {engine.platform}",
                    f"name another one under engines: {engine.template}: base:, or leave the platform out",
                )
        raise silent or Missing(base.name, f"has no {base_digest}", "run mp lock --upgrade")

    def _pull(self, builder: Builds, base: ImageReference, base_digest: str, on_bytes: OnBytes) -> str:
        """Have the base where the build happens, from a mirror that has it; its name there. The digest is one everywhere."""
        *mirrors, itself = self._places(base)
        for mirror in mirrors:
            try:
                builder.pull(mirror.name, base_digest, on_bytes)
            except Exhausted:
                raise
            except BackendError:
                continue
            return mirror.name
        builder.pull(itself.name, base_digest, on_bytes)
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


def _base(engine: Engine) -> ImageReference:
    """The base, once its digest is known: a digest is never invented."""
    if engine.base_digest is None:
        raise BackendError(
            "engine",
            f'{engine.key}: the digest of base "{engine.base}" is not known',
            f"mp lock where its registry answers, or name another base under engines: {engine.template}: base:",
        )
    return parse_image(engine.base)


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


def _platforms(repository: Repository, name: Digest) -> dict[str, Digest]:
    """The images behind a digest by platform; nothing where it is not there."""
    found = repository.manifest(name)
    if found is None:
        return {}
    if is_index(found):
        return {part.platform: part.digest for part in parts(found)}
    config = repository.blob(contents(found)[0])
    told = json.loads(config) if config else {}
    return {f"{told.get('os')}/{told.get('architecture')}": name}


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
