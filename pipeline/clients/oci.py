"""The door to image repositories: one protocol over OCI registries and folders of OCI layouts. Used by images and engines."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias

from pipeline.core.digest import Digest, Json
from pipeline.core.digest import digest as digest_of
from pipeline.core.errors import Corrupt, Missing
from pipeline.core.image import Registry

if TYPE_CHECKING:
    from pipeline.clients.connection import Connection

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_HUB = "docker.io"
BLOCK_BYTES = 2**20
_TAR_UNIT = 512

Chunks: TypeAlias = Callable[
    [], Iterator[bytes]
]  # the bytes of a blob from the start; called again for a retry


@dataclass(frozen=True)
class Tagged:
    """What a tag or digest names, without its bytes."""

    digest: Digest
    size_bytes: int  # of the image manifest itself
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class ImageManifest:
    """An image manifest as it is stored."""

    body: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        return digest_of(self.body)

    def document(self) -> dict[str, Json]:
        parsed: Json = json.loads(self.body)
        if not isinstance(parsed, dict):
            raise Corrupt("registry", "an image manifest is not a JSON object")
        return parsed

    def annotations(self) -> dict[str, str]:
        found = self.document().get("annotations")
        return {key: str(value) for key, value in found.items()} if isinstance(found, dict) else {}


class Repository(Protocol):
    """One repository. A reference is a tag or a digest. Every method raises Denied, Unreachable; 404 is None or False."""

    @property
    def location(self) -> str:
        """For messages: "127.0.0.1:5000/qwen3-8b"."""
        ...

    def head(self, reference: str) -> tuple[Digest, int] | None:
        """Digest and size of an image manifest: the cheapest question there is."""
        ...

    def describe(self, reference: str) -> Tagged | None:
        """Digest and annotations of an image manifest."""
        ...

    def manifest(self, reference: str) -> ImageManifest | None: ...

    def tags(self) -> tuple[str, ...]:
        """Sorted; empty where there is no repository."""
        ...

    def has(self, digest: Digest) -> bool: ...

    def blob(self, digest: Digest) -> bytes | None:
        """A small blob whole, verified: configs."""
        ...

    def open_blob(self, digest: Digest) -> AbstractContextManager[BinaryIO]:
        """A blob as a stream, not verified. Raises Missing."""
        ...

    def mount(self, digest: Digest, from_repository: str) -> bool:
        """Take a blob over from another repository of the same registry; False where it cannot be had that way."""
        ...

    def push(self, digest: Digest | None, size_bytes: int, chunks: Chunks) -> Digest:
        """Store a blob of exactly `size_bytes`. May be repeated; a blob that did not arrive whole is not there.

        Raises Corrupt when the bytes do not have the digest, and whatever `chunks` raises.
        """
        ...

    def put_manifest(self, reference: str, manifest: ImageManifest) -> Digest:
        """Store an image manifest under a tag or its digest. What it names must be there already."""
        ...


class Repositories:
    """Opens repositories; connections and tokens of one registry are shared."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._connections: dict[tuple[str, bool], Connection] = {}

    def __call__(self, registry: Registry, name: str) -> Repository:
        """A repository of a registry: "qwen3-8b" below the registry's host and prefix."""
        if registry.layout is not None:
            from pipeline.clients.layout import LayoutRepository

            return LayoutRepository(registry.layout, name)
        from pipeline.clients.registry import RegistryRepository

        host, path = _split_url(registry.url or "")
        connection = self._connection(host, insecure=registry.insecure)
        return RegistryRepository(connection, f"{path}/" if path else "", name)

    def _connection(self, host: str, *, insecure: bool) -> "Connection":
        from pipeline.clients.connection import Connection

        key = (host, insecure)
        if key not in self._connections:
            # setdefault: two threads that ask at once get one connection
            self._connections.setdefault(key, Connection(host, self._environ, insecure=insecure))
        return self._connections[key]


def repository(registry: Registry, name: str, environ: Mapping[str, str] | None = None) -> Repository:
    """One repository on its own; many of one registry are opened through one Repositories."""
    return Repositories(os.environ if environ is None else environ)(registry, name)


@dataclass(frozen=True)
class Reference:
    """An image as users write it: "[host/]path[:tag][@sha256:…]"."""

    host: str
    path: str  # "library/python"
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"

    def registry(self) -> tuple[Registry, str]:
        """The registry and the repository's name in it: what `repository` takes."""
        prefix, _, name = self.path.rpartition("/")
        return Registry(self.host, url=f"{self.host}/{prefix}" if prefix else self.host), name


def parse_reference(text: str) -> Reference:
    """Docker Hub and `library/` are filled in where they are left out, as everybody's tools do."""
    rest, _, digest = text.partition("@")
    host, path = _split_host(rest)
    path, _, tag = path.partition(":")
    return Reference(host, path, tag or None, Digest(digest) if digest else None)


def _split_host(text: str) -> tuple[str, str]:
    """Host and path: a first part without a dot, a port or "localhost" is a path on Docker Hub."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DOCKER_HUB, text if slash else f"library/{text}"


def _split_url(url: str) -> tuple[str, str]:
    """Host and prefix of a registry as `registries:` names it: always with its host."""
    host, _, prefix = url.partition("/")
    return host, prefix.rstrip("/")


def docker_archive(repository: Repository, reference: str, name: str | None = None) -> Iterator[bytes]:
    """An image as `docker load` takes it, streamed; `name` ("acme/qwen:v1") is what the engine will call it.

    Raises Missing when the image is not there.
    """
    found = repository.manifest(reference)
    if found is None:
        raise Missing(repository.location, f'no image "{reference}"', "run mp apply")
    config, layers = contents(found)
    config_body = repository.blob(config)
    if config_body is None:
        raise Missing(repository.location, f"the config of {reference} is gone", "run mp apply")
    yield from _small(f"{config[7:]}.json", config_body)
    for digest, size_bytes in dict(layers).items():
        yield _header(f"{digest[7:]}.tar", size_bytes)
        with repository.open_blob(digest) as blob:
            while block := blob.read(BLOCK_BYTES):
                yield block
        yield bytes(-size_bytes % _TAR_UNIT)
    listing = [
        {
            "Config": f"{config[7:]}.json",
            "RepoTags": [name] if name else None,
            "Layers": [f"{digest[7:]}.tar" for digest, _ in layers],
        }
    ]
    yield from _small("manifest.json", json.dumps(listing).encode())
    yield bytes(2 * _TAR_UNIT)


def _small(name: str, body: bytes) -> Iterator[bytes]:
    yield _header(name, len(body))
    yield body + bytes(-len(body) % _TAR_UNIT)


def _header(name: str, size_bytes: int) -> bytes:
    import tarfile

    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def contents(manifest: ImageManifest) -> tuple[Digest, list[tuple[Digest, int]]]:
    """The config's digest and the layers' digests and sizes of a single-platform image manifest."""
    document = manifest.document()
    config, layers = document.get("config"), document.get("layers")
    if not isinstance(config, dict) or not isinstance(layers, list):
        raise Corrupt("registry", "this is not the image manifest of one platform")
    found = [layer for layer in layers if isinstance(layer, dict)]
    return Digest(str(config["digest"])), [
        (Digest(str(layer["digest"])), int(str(layer["size"]))) for layer in found
    ]
