"""Engines, images and how they are started. Templates make these values; resources/image and targets use them."""

from collections.abc import Mapping
from dataclasses import field, replace

from pipeline.core.digest import fingerprint
from pipeline.core.frozen import frozen


@frozen
class Registry:
    """A place for images: an OCI registry, or a folder of OCI image layouts."""

    name: str  # its key in `registries:`
    url: str | None = None  # "ghcr.io/acme/models", host and prefix
    layout: str | None = None  # absolute path of the folder; one layout a repository inside
    insecure: bool = False  # plain HTTP, only when asked for (loopback addresses are always plain)
    ca: str | None = None  # absolute path of PEM certificates to trust besides the system's
    mirrors: tuple[str, ...] = ()  # "mirror.local/hub": where base images of this host are read first
    max_layer_bytes: int | None = None  # of one layer; None: what is known of the host
    max_request_bytes: int | None = None  # of one upload request; None: any

    compression: str = ""  # of the layers that mp makes: "" or "gzip"
    signed: bool = False  # whether every image of mp's in it is to be signed

    @property
    def location(self) -> str:
        return self.url if self.url is not None else f"layout:{self.layout}"


@frozen
class ImageName:
    """A desired image, known before it exists. Repositories of mp's own have a dot: no model's name can hold one."""

    registry: Registry
    repository: str  # "qwen3-8b", "qwen3-8b.weights", "qwen3-8b.modelpack", "vllm.engine"
    tag: str  # "mp-<12 hex>"

    def __str__(self) -> str:
        return f"{self.registry.location}/{self.repository}:{self.tag}"


@frozen
class Variant:
    """One flavour of an engine version, from templates/data/<template>/<version>.yaml."""

    template: str
    version: str  # "0.32.0"
    name: str  # "cuda" or "cpu"
    python: str  # "3.11": what the environment is made for
    base: str  # default base image, without digest
    requirements: tuple[str, ...]  # top-level requirements
    overrides: tuple[str, ...] = ()
    torch_backend: str | None = None  # uv's name of PyTorch's own index: "cpu"; PyPI where it does not answer
    args: tuple[str, ...] = ()  # always given to the engine
    env: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: int = 600
    gpu_driver: str | None = None  # the oldest GPU driver that its CUDA runs with: "580"; None: not known

    @property
    def key(self) -> str:
        return f"{self.template}-{self.version}-{self.name}"


@frozen
class Engine:
    """A variant with everything pinned: one entry of `engines:` in models.lock."""

    template: str
    version: str
    variant: str
    platform: str  # "linux/amd64"
    python: str
    base: str
    base_digest: str | None  # None: not resolvable here; apply refuses to build it
    index: str  # package index the environment comes from
    requirements: tuple[str, ...]  # "torch==2.13.0 --hash=sha256:…", sorted

    @property
    def key(self) -> str:
        return f"{self.template}-{self.version}-{self.variant}"

    @property
    def requirements_sha256(self) -> str:
        return fingerprint([self.index, list(self.requirements)])


@frozen
class Build:
    """An engine image still to be made: everything that determines it."""

    engine: Engine
    files: tuple[tuple[str, str], ...]  # (path below runtime/, sha256), sorted; Dockerfile included
    root: str = field(compare=False)  # absolute path of runtime/
    others: tuple["Build", ...] = ()  # of the same engine for further platforms: the image is an index then

    @property
    def parts(self) -> tuple["Build", ...]:
        """One for each platform, by its name."""
        found = (replace(self, others=()), *self.others)
        return tuple(sorted(found, key=lambda build: build.engine.platform))

    def on(self, platform: str) -> "Build":
        """The same image with one of its platforms in front; its fingerprint stays."""
        first = next(build for build in self.parts if build.engine.platform == platform)
        return replace(first, others=tuple(build for build in self.parts if build is not first))

    @property
    def fingerprint(self) -> str:
        if self.others:
            return fingerprint({"platforms": [[b.engine.platform, b.fingerprint] for b in self.parts]})
        e = self.engine
        return fingerprint(
            {
                "template": e.template,
                "version": e.version,
                "variant": e.variant,
                "platform": e.platform,
                "python": e.python,
                "base": e.base_digest,
                "requirements": e.requirements_sha256,
                "runtime": [list(pair) for pair in self.files],
            }
        )


@frozen
class Launch:
    """What starts a model inside its environment: launch.json (schema/launch.schema.json), never inside an image."""

    template: str
    served_name: str
    argv: tuple[str, ...]  # the engine's own flags
    env: Mapping[str, str]
    secrets: Mapping[str, str]  # environment variable → secret name; a target says which file holds it
    adapters: Mapping[str, str] = field(
        default_factory=dict
    )  # name → folder inside the model's: "adapters/fr"
    port: int = 8000
    shm_bytes: int = 0
    start_timeout_s: int = 600
    gpu_driver: str | None = None  # the oldest GPU driver with which it starts; told to no engine
    nodes: int = 1  # that serve it together; a target tells each which of them it is
