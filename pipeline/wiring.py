"""The composition root: settings and a read manifest in, a World with every source and driver out. Called by cli."""

import platform
from collections.abc import Iterable, Mapping
from functools import cache, partial
from importlib import import_module
from typing import Any

from pipeline.clients.buildctl import RemoteBuilder
from pipeline.clients.buildkit import Builder, Builds
from pipeline.clients.cosign import Cosign, Signer
from pipeline.clients.docker import DockerHost
from pipeline.clients.kube import Cluster
from pipeline.clients.oci import repositories as oci
from pipeline.core.errors import UserError
from pipeline.core.protocols import Driver, Source
from pipeline.core.resource import Address, Mark
from pipeline.core.settings import Settings, default_docker_host
from pipeline.engine.place import declared_registries, secret_of
from pipeline.engine.world import World
from pipeline.manifest.lock import read_lock
from pipeline.manifest.places import SecretReference
from pipeline.manifest.read import Document
from pipeline.manifest.spec import Manifest
from pipeline.resources.cache.artifact import ArtifactDriver
from pipeline.resources.cache.store import Cache
from pipeline.resources.cluster.driver import ClusterDriver
from pipeline.resources.engine.environment import EnvironmentDriver
from pipeline.resources.engine.pin import pin_engine, pin_nothing
from pipeline.resources.engine.resource import EngineDriver
from pipeline.resources.filler.resource import FillerDriver
from pipeline.resources.image.resource import ImageDriver
from pipeline.resources.image.trust.attach import Attestor
from pipeline.resources.image.trust.signing import Signing
from pipeline.sources import open_sources
from pipeline.store.file import FileStore, stores
from pipeline.targets import TARGETS
from pipeline.targets.docker import DockerTarget
from pipeline.targets.docker.driver import DockerDriver
from pipeline.targets.local.driver import LocalDriver
from pipeline.templates import TEMPLATES

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
        {**TARGETS, "docker": DockerTarget(default_docker_host(settings.environ))},
        drivers(settings, manifest, weights, sources, repositories, frozenset(take_from)),
        store,
        pin_nothing if settings.offline else partial(pin_engine, repositories=repositories),
        repositories,
        partial(stores, settings.state / "inventory", manifest.project),
    )


def drivers(
    settings: Settings,
    manifest: Manifest,
    weights: Cache,
    sources: Mapping[str, Source],
    repositories: oci.Repositories,
    take_from: frozenset[str] = frozenset(),
) -> Mapping[str, Driver[Any]]:
    """One driver a kind of resource. None of them reaches out before it is asked to."""
    owner = Mark(manifest.project, settings.environment, Address(""))
    connect = cache(partial(DockerHost, environ=settings.environ))
    signing = _signing(settings, manifest)
    attestor = Attestor(_own_version, settings.commit, settings.root / "models.lock", signing)
    return {
        "artifact": ArtifactDriver(weights, sources),
        "environment": EnvironmentDriver(settings.cache),
        "engine": EngineDriver(
            _builder(settings.environ),
            settings.cache,
            repositories,
            owner,
            attestor=attestor,
            places=repositories.places,
            platform=host_platform(),
            own_builders={
                template: RemoteBuilder(spec.builder, settings.environ)
                for template, spec in manifest.engines.items()
                if spec.builder
            },
        ),
        "filler": FillerDriver(repositories, owner, attestor),
        "image": ImageDriver(weights, sources, repositories, owner, attestor),
        "local": LocalDriver(settings.state / "local", weights, owner, settings.secret, settings.environ),
        "docker": DockerDriver(
            connect, repositories, weights, owner, settings.secret, settings.state / "docker"
        ),
        **dict.fromkeys(("kubernetes", "kaito"), _clusters(settings, owner, take_from)),
    }


def _clusters(settings: Settings, owner: Mark, take_from: frozenset[str]) -> ClusterDriver:
    """One driver for objects in clusters, whatever target they are made by: two of them may name one cluster."""
    return ClusterDriver(cache(partial(Cluster, environ=settings.environ)), owner, settings.secret, take_from)


def cluster(settings: Settings, context: str | None) -> Cluster:
    """The cluster of a context of the kubeconfig: for what no driver does."""
    return Cluster(context, settings.environ)


def _builder(environ: Mapping[str, str]) -> Builds:
    """The BuildKit that BUILDKIT_HOST names, as for buildctl; else the Docker engine's own."""
    if address := environ.get("BUILDKIT_HOST"):
        return RemoteBuilder(address, environ)
    return Builder(default_docker_host(environ), environ)


def _signing(settings: Settings, manifest: Manifest) -> Signing | None:
    """How new images are signed. Secrets are read when they are needed."""
    if manifest.sign is None:
        return None
    spec = manifest.sign.cosign

    def text(reference: SecretReference | None) -> str | None:
        return settings.text(secret_of(manifest, reference.secret)) if reference else None

    def signer() -> Signer:
        password = (text(spec.password) or "").removesuffix("\n").removesuffix("\r")
        return Signer(text(spec.key), password, spec.transparency_log)

    return Signing(Cosign(settings.environ), signer)


def _own_version() -> str:
    return str(import_module("importlib.metadata").version("mp-pipeline"))  # late: most runs make no image


def host_platform() -> str:
    """The platform engines are pinned for: this machine's, "linux/amd64"."""
    machine = platform.machine()
    return f"linux/{MACHINES.get(machine, machine)}"
