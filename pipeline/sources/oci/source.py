"""Models in OCI registries, `oci://quay.io/acme/tiny`, pinned by the digest of their image manifest or index."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import BinaryIO, TypeAlias

from pipeline.clients.oci.repository import ImageManifest, Repository
from pipeline.core.digest import Digest, Json
from pipeline.core.errors import BackendError, Corrupt, Missing, Refused
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import Absorb, SourceSpec
from pipeline.sources.choice import Choice, choose, matches
from pipeline.sources.facts import TELLING_BYTES, facts, telling
from pipeline.sources.kinds import WEIGHTS, Kind, kind_of
from pipeline.sources.oci.layer import Layer, Learned
from pipeline.sources.oci.packing import DIGEST, NoModel, created_of, license_of, packed
from pipeline.sources.oci.tree import Found, merged, require_files
from pipeline.sources.safety import configs, require_safe

LATEST = "latest"  # what registries' clients ask for where no tag is said
PLATFORM = ("linux", "amd64")  # weights are the same for every platform; this one is always there
SHOWN = 12

OpenRepository: TypeAlias = Callable[[Registry, str], Repository]


@frozen
class _Image:
    """One image or artifact, opened."""

    reference: str
    digest: Digest  # the pin: of the index, where there is one
    manifest: Mapping[str, Json]
    config: Callable[[], Mapping[str, Json]]
    layers: tuple[Layer, ...]  # lowest first

    def files(self, allow: Collection[str]) -> dict[str, Found]:
        """All files by path, reading what tells them. Code is there only where it is allowed."""
        found = merged(layer.tree() for layer in self.layers if allow or not layer.packed.is_code)
        return {path: file for path, file in found.items() if not file.layer.is_code or path in allow}

    def find(self, path: str) -> tuple[Layer, Found]:
        """A file and its layer, from the top down: a lower layer is looked at when the upper ones do not have it."""
        for layer in sorted(reversed(self.layers), key=lambda layer: layer.packed.is_code):
            found = layer.find(path)
            if found is not None:
                return layer, found
            if layer.packed.root and layer.loses(path):
                break
        raise Missing(self.reference, f'{self.digest} has no "{path}"', "run mp lock")


class OciSource:
    """Registries of artifacts and images. One that nobody asks for its files' hashes is read once, into the cache."""

    def __init__(
        self, repositories: OpenRepository, absorb: Absorb, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._repositories = repositories
        self._absorb = absorb
        self._pause = pause
        self._guard = threading.Lock()
        self._images: dict[tuple[str, str], _Image] = {}  # reference, digest

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """Pin a tag or digest. A `known` artifact of the same digest and choice costs no request, of the same tag one."""
        repository = self._repository(spec.reference)
        if (
            known is not None
            and (known.source, known.filter) == (spec.reference, spec.filter)
            and self._stands(repository, spec.version, known)
        ):
            return replace(known, version=spec.version)
        image = self._image(spec.reference, repository, spec.version or LATEST)
        learned = self._learn_compressed(spec, image)
        files = image.files(dict(spec.filter.allow))
        choice = choose(spec, {path: found.size_bytes for path, found in files.items()})
        chosen = {path: files[path] for path in choice.paths}
        require_files(spec.reference, chosen.values())
        content = self._content(image, files, choice, learned)
        told = _told(files.values(), learned)
        _require_as_hashed(spec.reference, content, told)
        require_safe(spec, choice, content)  # before whole layers are read for their hashes
        hashes = {path: told.get(path, "") for path in choice.paths}
        hashes |= self._read(spec, image, [chosen[path] for path in choice.paths if path not in told])
        _require_as_hashed(spec.reference, content, hashes)
        require_safe(spec, choice, content, hashes, image.digest)
        entries = tuple(FileEntry(path, chosen[path].size_bytes, hashes[path]) for path in choice.paths)
        license, created = license_of(image.manifest, image.config), created_of(image.manifest)
        said = facts(content, license, created=created)
        pin, left_out_bytes = _pin(image.digest), choice.left_out_bytes
        return Artifact(spec.reference, spec.version, pin, entries, said, spec.filter, left_out_bytes)

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        digest = artifact.pin.replace("-", ":", 1)
        image = self._image(artifact.source, self._repository(artifact.source), digest)
        layer, found = image.find(entry.path)
        if found.size_bytes != entry.size_bytes:
            text = f'"{entry.path}" has {found.size_bytes:,} bytes and not {entry.size_bytes:,}'
            raise Corrupt(artifact.source, text, "run mp lock")
        return layer.open(found, start)

    def _stands(self, repository: Repository, version: str, known: Artifact) -> bool:
        """Whether the version still is what was pinned: a digest always is, a tag has to be asked for."""
        if version.startswith("sha256:"):
            return known.pin == _pin(version)
        found = repository.head(version or LATEST)
        return found is not None and known.pin == _pin(found[0])

    def _repository(self, reference: str) -> Repository:
        host, _, path = reference.removeprefix("oci://").partition("/")
        prefix, _, name = path.rpartition("/")
        return self._repositories(Registry(host, url=f"{host}/{prefix}" if prefix else host), name)

    def _image(self, reference: str, repository: Repository, version: str) -> _Image:
        """Open an image; what was opened stays open, with all that was learned of its layers."""
        if (reference, version) in self._images:
            return self._images[reference, version]
        found = repository.manifest(version)
        if found is None:
            raise Missing(reference, f"has no {version}", _versions(repository))
        opened = self._opened(reference, repository, found)
        with self._guard:  # of two threads that open it at once, both use the same
            return self._images.setdefault((reference, found.digest), opened)

    def _opened(self, reference: str, repository: Repository, found: ImageManifest) -> _Image:
        digest = found.digest
        manifest = _document(reference, found.body)
        if "manifests" in manifest:
            manifest = self._platform(reference, repository, manifest)

        @cache
        def config() -> Mapping[str, Json]:
            return _config(reference, repository, manifest)

        try:
            layers = packed(manifest, config)
        except NoModel as problem:
            raise Refused(f"{reference}: {digest} {problem.message}", problem.hint) from problem
        opened = tuple(Layer(reference, repository, layer, self._pause) for layer in layers)
        for layer in opened:
            _require_magic(reference, layer)
        return _Image(reference, digest, manifest, config, opened)

    def _platform(
        self, reference: str, repository: Repository, index: Mapping[str, Json]
    ) -> Mapping[str, Json]:
        """The image manifest to take from an index."""
        digest = _choose_platform(reference, index)
        found = repository.manifest(digest)
        if found is None:
            raise Missing(reference, f"lost {digest}, which its index names", "publish it again")
        manifest = _document(reference, found.body)
        if "manifests" in manifest:
            raise Refused(f"{reference}: an index in an index", "name one image by its digest")
        return manifest

    def _learn_compressed(self, spec: SourceSpec, image: _Image) -> Learned:
        """Read the layers that tell nothing before they are read whole; what they hold is hashed at the same time."""
        learned = Learned()
        allowed, absorb = dict(spec.filter.allow), self._absorb if spec.kept else None

        def wanted(path: str, known: Mapping[str, str]) -> bool:
            plausible = kind_of(path) in WEIGHTS | {Kind.TEXT} or path in allowed
            return plausible and path not in known and matches(spec, path)

        for layer in image.layers:
            if layer.packed.compression and not (layer.packed.is_code and not allowed):
                told = layer.packed.sha256
                found = layer.learn(lambda path, told=told: wanted(path, told), absorb, _is_telling)  # type: ignore[misc]
                learned.sha256 |= {f"{layer.packed.digest} {p}": each for p, each in found.sha256.items()}
                learned.content |= {f"{layer.packed.digest} {p}": each for p, each in found.content.items()}
        return learned

    def _content(
        self, image: _Image, files: Mapping[str, Found], choice: Choice, learned: Learned
    ) -> dict[str, bytes]:
        """The files that tell of the model, and those that may name code."""
        wanted = {*telling(files), *configs(choice.paths)}
        return {
            path: self._small(image, files[path], learned)
            for path in sorted(wanted)
            if files[path].size_bytes <= TELLING_BYTES
        }

    def _small(self, image: _Image, found: Found, learned: Learned) -> bytes:
        kept = learned.content.get(f"{found.layer.digest} {found.path}")
        if kept is not None:
            return kept
        with _layer_of(image, found).open(found, 0) as stream:
            return stream.read(TELLING_BYTES)

    def _read(self, spec: SourceSpec, image: _Image, unknown: Collection[Found]) -> dict[str, str]:
        """sha256 by path of files that nobody tells the hash of: their layers are read."""
        hashes: dict[str, str] = {}
        for layer in image.layers:
            mine = {found.path for found in unknown if found.layer is layer.packed}
            if mine:
                absorb = self._absorb if spec.kept else None
                hashes |= layer.learn(mine.__contains__, absorb, lambda path, size_bytes: False).sha256
        return hashes


def _told(files: Iterable[Found], learned: Learned) -> dict[str, str]:
    """sha256 by path: the digest of a layer that is the file, what somebody wrote down, what was read already."""
    found = {}
    for file in files:
        told = file.layer.digest[7:] if file.layer.is_plain else file.layer.sha256.get(file.path)
        if told := told or learned.sha256.get(f"{file.layer.digest} {file.path}"):
            found[file.path] = told
    return found


def _pin(digest: str) -> str:
    return digest.replace(":", "-", 1)


def _layer_of(image: _Image, found: Found) -> Layer:
    return next(layer for layer in image.layers if layer.packed is found.layer)


def _is_telling(path: str, size_bytes: int) -> bool:
    return size_bytes <= TELLING_BYTES and bool(telling([path]) or configs([path]))


def _document(reference: str, body: bytes) -> Mapping[str, Json]:
    try:
        parsed: Json = json.loads(body)
    except ValueError as problem:
        raise Corrupt(reference, "its image manifest is no JSON", "publish it again") from problem
    if not isinstance(parsed, dict):
        raise Corrupt(reference, "its image manifest is no JSON object", "publish it again")
    return parsed


def _config(reference: str, repository: Repository, manifest: Mapping[str, Json]) -> Mapping[str, Json]:
    """The config of an image or artifact; empty where it is not there or no JSON object."""
    described = manifest.get("config")
    digest = str(described.get("digest")) if isinstance(described, dict) else ""
    size = described.get("size") if isinstance(described, dict) else None
    if not isinstance(size, int) or size > TELLING_BYTES or not DIGEST.fullmatch(digest):
        return {}
    body = repository.blob(Digest(digest))
    if body is None:
        raise Missing(reference, f"lost its config {digest}", "publish it again")
    return _document(reference, body)


def _choose_platform(reference: str, index: Mapping[str, Json]) -> Digest:
    """linux/amd64, or the only one; attestations and signatures of BuildKit have no platform."""
    listed = index["manifests"]
    found: dict[str, tuple[Json, Json]] = {}
    for one in listed if isinstance(listed, list) else ():
        platform = one.get("platform") if isinstance(one, dict) else None
        system, machine = (
            (platform.get("os"), platform.get("architecture")) if isinstance(platform, dict) else (None, None)
        )
        digest = str(one.get("digest")) if isinstance(one, dict) else ""
        if DIGEST.fullmatch(digest) and system != "unknown":
            found[digest] = (system, machine)
    for digest, platform_of in found.items():
        if platform_of == PLATFORM or len(found) == 1:
            return Digest(digest)
    hint = f"name one by its digest: {', '.join(list(found)[:SHOWN])}" if found else "publish it again"
    raise Refused(f"{reference}: its index has {len(found)} images and none for linux/amd64", hint)


def _require_magic(reference: str, layer: Layer) -> None:
    """What says that it is GGUF begins so."""
    magic = layer.packed.magic
    found = layer.find(layer.packed.path) if magic else None
    if found is None:
        return
    with layer.open(found, 0) as stream:
        if stream.read(len(magic)) != magic:
            raise Refused(
                f'{reference}: "{found.path}" is not GGUF ({layer.packed.digest})', "take another version"
            )


def _require_as_hashed(reference: str, content: Mapping[str, bytes], hashes: Mapping[str, str]) -> None:
    for path, body in content.items():
        if path in hashes and sha256(body).hexdigest() != hashes[path]:
            raise Corrupt(reference, f'"{path}" is not what its sha256 says', "publish it again")


def _versions(repository: Repository) -> str:
    tags: tuple[str, ...] = ()
    with contextlib.suppress(BackendError):  # not every registry lets everybody list them
        tags = repository.tags()
    if not tags:
        return "check the reference: there is no such repository, or it has no tags"
    return f"it has {', '.join(tags[:SHOWN])}{' and others' if len(tags) > SHOWN else ''}"
