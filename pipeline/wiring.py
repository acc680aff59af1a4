"""The composition root: settings and a read manifest in, a World with every source and driver out. Called by cli."""

import platform
from collections.abc import Iterable, Mapping
from functools import cache, cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.clients.oci import repositories as oci
from pipeline.core.diagnostic import Where
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Variant
from pipeline.core.lazily import Lazily
from pipeline.core.protocols import Driver, Source, Target
from pipeline.core.resource import Address, Mark
from pipeline.core.settings import Settings, default_docker_host
from pipeline.engine.world import World
from pipeline.manifest.lock import read_lock
from pipeline.manifest.places import BuilderTlsSpec, SecretReference
from pipeline.manifest.read import Document
from pipeline.manifest.spec import Manifest
from pipeline.manifest.stated import declared_registries, secret_of
from pipeline.resources.cache.store import Cache
from pipeline.sources import open_sources
from pipeline.store.file import FileStore, stores
from pipeline.targets import KINDS
from pipeline.templates import TEMPLATES

if TYPE_CHECKING:
    from pipeline.clients.buildkit import Builds
    from pipeline.clients.cosign import Signer
    from pipeline.clients.kube import Cluster
    from pipeline.resources.image.trust.attach import Attestor
    from pipeline.resources.image.trust.signing import Signing

MACHINES = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def open_world(
    settings: Settings, document: Document, *, locked: bool = False, take_from: Iterable[str] = ()
) -> World:
    """Put everything together; `take_from` are field managers whose fields in clusters may be taken. Raises UserError with all diagnostics when the manifest or the lock cannot be used."""
    manifest = document.manifest
    if manifest is None:
        raise UserError(document.diagnostics)
    store = FileStore(
        settings.state / "inventory" / settings.environment, manifest.project, settings.environment
    )
    lock = read_lock(settings.root / "models.lock")
    weights = Cache(settings.cache)
    registries = declared_registries(manifest, settings.root).values()
    repositories = oci.Repositories(settings.environ, registries)
    sources = open_sources(settings, weights.absorb, repositories)
    return World(
        settings,
        document,
        manifest,
        lock,
        locked,
        host_platform(),
        sources,
        TEMPLATES,
        Lazily({kind: partial(_target, kind, settings.environ) for kind in KINDS}),
        drivers(settings, document, manifest, weights, sources, repositories, frozenset(take_from)),
        store,
        partial(_pin, settings.offline, repositories),
        repositories,
        partial(stores, settings.state / "inventory", manifest.project),
    )


def drivers(
    settings: Settings,
    document: Document,
    manifest: Manifest,
    weights: Cache,
    sources: Mapping[str, Source],
    repositories: oci.Repositories,
    take_from: frozenset[str] = frozenset(),
) -> Mapping[str, Driver[Any]]:
    """One driver a kind of resource, made when it is asked for. None of them reaches out before it is used."""
    made = _Drivers(settings, document, manifest, weights, sources, repositories, take_from)
    return Lazily(
        {
            "artifact": made.artifact,
            "environment": made.environment,
            "engine": made.engine,
            "filler": made.filler,
            "image": made.image,
            "local": made.local,
            "docker": made.docker,
            **dict.fromkeys(("kubernetes", "kaito"), lambda: made.clusters),
        }
    )


@frozen
class _Drivers:
    """What drivers are made of. A method imports its driver: few manifests need them all."""

    settings: Settings
    document: Document
    manifest: Manifest
    weights: Cache
    sources: Mapping[str, Source]
    repositories: oci.Repositories
    take_from: frozenset[str]

    @property
    def owner(self) -> Mark:
        return Mark(self.manifest.project, self.settings.environment, Address(""))

    @cached_property
    def attestor(self) -> "Attestor":
        from pipeline.resources.image.trust.attach import Attestor

        settings = self.settings
        return Attestor(
            _own_version, settings.commit, settings.root / "models.lock", _signing(settings, self.manifest)
        )

    def artifact(self) -> Driver[Any]:
        from pipeline.resources.cache.artifact import ArtifactDriver

        return ArtifactDriver(self.weights, self.sources)

    def environment(self) -> Driver[Any]:
        from pipeline.resources.engine.environment import EnvironmentDriver

        return EnvironmentDriver(self.settings.cache)

    def engine(self) -> Driver[Any]:
        from pipeline.resources.engine.driver import EngineDriver

        return EngineDriver(
            _builder(self.settings.environ),
            self.settings.cache,
            self.repositories,
            self.owner,
            attestor=self.attestor,
            places=self.repositories.places,
            platform=host_platform(),
            own_builders={
                template: _own_builder(spec.builder, spec.builder_tls, template, self.settings, self.document)
                for template, spec in self.manifest.engines.items()
                if spec.builder
            },
        )

    def filler(self) -> Driver[Any]:
        from pipeline.resources.filler.resource import FillerDriver

        return FillerDriver(self.repositories, self.owner, self.attestor)

    def image(self) -> Driver[Any]:
        from pipeline.resources.image.resource import ImageDriver

        return ImageDriver(self.weights, self.sources, self.repositories, self.owner, self.attestor)

    def local(self) -> Driver[Any]:
        from pipeline.targets.local.driver import LocalDriver

        settings = self.settings
        return LocalDriver(
            settings.state / "local", self.weights, self.owner, settings.secret, settings.environ
        )

    def docker(self) -> Driver[Any]:
        from pipeline.clients.docker import DockerHost
        from pipeline.targets.docker.driver import DockerDriver

        settings = self.settings
        connect = cache(partial(DockerHost, environ=settings.environ))
        return DockerDriver(
            connect, self.repositories, self.weights, self.owner, settings.secret, settings.state / "docker"
        )

    @cached_property
    def clusters(self) -> Driver[Any]:
        """One driver for objects in clusters, whatever target they are made by: two of them may name one cluster."""
        from pipeline.clients.kube import Cluster
        from pipeline.resources.cluster.driver import ClusterDriver

        connect = cache(partial(Cluster, environ=self.settings.environ))
        return ClusterDriver(connect, self.owner, self.settings.secret, self.take_from)


def _target(kind: str, environ: Mapping[str, str]) -> Target:
    if kind != "docker":
        return KINDS[kind].target
    from pipeline.targets.docker import DockerTarget

    return DockerTarget(default_docker_host(environ))


def _pin(
    offline: bool, repositories: oci.Repositories, variant: Variant, where: str, base: str | None
) -> Engine:
    from pipeline.resources.engine.pin import pin_engine, pin_nothing

    return pin_nothing(variant, where, base) if offline else pin_engine(variant, where, base, repositories)


def cluster(settings: Settings, context: str | None) -> "Cluster":
    """The cluster of a context of the kubeconfig: for what no driver does."""
    from pipeline.clients.kube import Cluster

    return Cluster(context, settings.environ)


def _builder(environ: Mapping[str, str]) -> "Builds":
    """The BuildKit that BUILDKIT_HOST names, as for buildctl; that of BUILDX_BUILDER, as for buildx; else the Docker engine's own.

    BUILDX_BUILDER is of another program: where it names what only buildx can use, the Docker engine builds, with a warning.
    """
    from pipeline.clients import buildx
    from pipeline.clients.buildctl import RemoteBuilder, unusable
    from pipeline.clients.buildkit import Builder

    if address := environ.get("BUILDKIT_HOST"):
        return RemoteBuilder(address, environ)
    name = environ.get("BUILDX_BUILDER", buildx.DOCKER) or buildx.DOCKER
    problem = unusable(name, host_platform(), environ) if name != buildx.DOCKER else None
    if name != buildx.DOCKER and not problem:
        return RemoteBuilder(f"{buildx.SCHEME}{name}", environ)
    return Builder(default_docker_host(environ), environ, (problem,) if problem else ())


def _own_builder(
    address: str, tls: BuilderTlsSpec | None, template: str, settings: Settings, document: Document
) -> "Builds":
    """The BuildKit that models.yaml names for a template; its certificates are relative to that file."""
    from pipeline.clients import buildx
    from pipeline.clients.buildctl import RemoteBuilder
    from pipeline.clients.buildkit import Builder
    from pipeline.clients.handshake import Certificates

    if address == f"{buildx.SCHEME}{buildx.DOCKER}":
        return Builder(default_docker_host(settings.environ), settings.environ)

    def absolute(path: str | None) -> str | None:
        if path is None:
            return None
        named = Path(path).expanduser() if path.startswith("~/") else Path(path)
        return str((settings.root / named).absolute())

    def where(part: str) -> Where:
        return document.where(
            "engines", template, *(("builder",) if part == "builder" else ("builder_tls", part))
        )

    certificates = None
    if tls:
        ca = str(absolute(tls.ca))
        certificates = Certificates(ca, absolute(tls.cert), absolute(tls.key), tls.server_name)
    return RemoteBuilder(address, settings.environ, certificates, where)


def _signing(settings: Settings, manifest: Manifest) -> "Signing | None":
    """How new images are signed. Secrets are read when they are needed."""
    if manifest.sign is None:
        return None
    from pipeline.clients.cosign import Cosign, Signer
    from pipeline.resources.image.trust.signing import Signing

    spec = manifest.sign.cosign

    def text(reference: SecretReference | None) -> str | None:
        return settings.text(secret_of(manifest, reference.secret)) if reference else None

    def signer() -> "Signer":
        password = (text(spec.password) or "").removesuffix("\n").removesuffix("\r")
        return Signer(text(spec.key), password, spec.transparency_log)

    return Signing(Cosign(settings.environ), signer)


def _own_version() -> str:
    return str(import_module("importlib.metadata").version("mp-pipeline"))  # late: most runs make no image


def host_platform() -> str:
    """The platform engines are pinned for: this machine's, "linux/amd64"."""
    machine = platform.machine()
    return f"linux/{MACHINES.get(machine, machine)}"
