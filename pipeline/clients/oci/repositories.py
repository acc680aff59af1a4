"""The door to image repositories: OCI registries and folders of OCI layouts behind one protocol. Used by images and engines."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.clients.oci.limits import limits_of
from pipeline.clients.oci.repository import Repository
from pipeline.core.digest import Digest
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry

if TYPE_CHECKING:
    from pipeline.clients.oci.connection import Connection

DOCKER_HUB = "docker.io"


class Repositories:
    """Opens repositories; connections and tokens of one registry are shared. `declared`: what the manifest says of some."""

    def __init__(self, environ: Mapping[str, str], declared: Iterable[Registry] = ()) -> None:
        self._environ = environ
        known = tuple(declared)
        self._declared = {one.location: one for one in known}
        self._hosts = {
            one.url.partition("/")[0]: one for one in reversed(known) if one.url
        }  # the first counts
        self._connections: dict[tuple[str, bool], Connection] = {}

    def __call__(self, registry: Registry, name: str) -> Repository:
        """A repository of a registry: "qwen3-8b" below the registry's host and prefix."""
        if registry.layout is not None:
            from pipeline.clients.oci.layout import LayoutRepository

            return LayoutRepository(registry.layout, name)
        from pipeline.clients.oci.registry import RegistryRepository

        known = self._declared.get(registry.location, registry)  # an inventory knows but the address
        host, path = split_url(registry.url or "")
        connection = self._connection(host, registry)
        return RegistryRepository(connection, f"{path}/" if path else "", name, limits_of(known))

    def places(self, reference: "ImageReference") -> "tuple[ImageReference, ...]":
        """Where an image may be read, in order: the mirrors of its host, then itself."""
        declared = self._hosts.get(reference.host)
        mirrors = (split_url(one) for one in declared.mirrors) if declared else ()
        found = (
            replace(reference, host=host, path=f"{prefix}/{reference.path}" if prefix else reference.path)
            for host, prefix in mirrors
        )
        return (*found, reference)

    def _connection(self, host: str, registry: Registry) -> "Connection":
        from pipeline.clients.oci.connection import Connection

        declared = self._hosts.get(host)
        insecure = registry.insecure or bool(declared and declared.insecure)
        key = (host, insecure)
        if key not in self._connections:
            ca = registry.ca or (declared.ca if declared else None)
            # setdefault: two threads that ask at once get one connection
            self._connections.setdefault(key, Connection(host, self._environ, insecure=insecure, ca=ca))
        return self._connections[key]


@frozen
class ImageReference:
    """An image as users write it: "[host/]path[:tag][@sha256:…]"."""

    host: str
    path: str  # "library/python"
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str:
        return f"{self.host}/{self.path}"

    def registry(self) -> tuple[Registry, str]:
        """The registry and the repository's name in it: what `Repositories` takes."""
        prefix, _, name = self.path.rpartition("/")
        return Registry(self.host, url=f"{self.host}/{prefix}" if prefix else self.host), name


def parse_image(text: str) -> ImageReference:
    """Docker Hub and `library/` are filled in where they are left out, as everybody's tools do."""
    rest, _, digest = text.partition("@")
    host, path = _split_host(rest)
    path, _, tag = path.partition(":")
    return ImageReference(host, path, tag or None, Digest(digest) if digest else None)


def _split_host(text: str) -> tuple[str, str]:
    """Host and path: a first part without a dot, a port or "localhost" is a path on Docker Hub."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    return DOCKER_HUB, text if slash else f"library/{text}"


def split_url(url: str) -> tuple[str, str]:
    """Host and prefix of a registry as `registries:` names it: always with its host."""
    host, _, prefix = url.partition("/")
    return host, prefix.rstrip("/")
