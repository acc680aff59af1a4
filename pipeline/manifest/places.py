"""Specs of what models share: hardware classes, registries, engines, secrets, defaults. Part of Manifest."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from pipeline.core.names import DNS_SUBDOMAIN
from pipeline.manifest.scalars import (
    BASE_IMAGE,
    BUILDER,
    REGISTRY_URL,
    SECRET_KEY,
    EnvName,
    Name,
    Size,
    Spec,
    Template,
    Text,
    mistake,
)


class DefaultsSpec(Spec):
    """What a model has when it does not say otherwise."""

    template: Template | None = Field(default=None, description="How models are served")
    hardware: Name | None = Field(default=None, description="A key of `hardware:`")
    registry: Name | None = Field(
        default=None, description="A key of `registries:`; not needed when there is only one"
    )


class InventorySpec(Spec):
    """Where the list of what this project owns is kept."""

    backend: Literal["file"] = Field(
        default="file", description="`file`: in the folder `.mp/` beside models.yaml"
    )


class ClusterSecretSpec(Spec):
    """A key of a Secret in the namespace of a kubernetes target."""

    name: Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, max_length=253)] = Field(
        description="Name of the Secret"
    )
    key: Annotated[str, StringConstraints(pattern=SECRET_KEY, max_length=253)] = Field(
        description="The key of the Secret that holds it"
    )


class SecretSpec(Spec):
    """Where a secret is found; its value is never written down."""

    env: EnvName | None = Field(default=None, description="Environment variable that holds it where mp runs")
    file: Text | None = Field(
        default=None, description="File that holds it where mp runs, relative to models.yaml; kept out of git"
    )

    kubernetes: ClusterSecretSpec | None = Field(
        default=None, description="Where pods of kubernetes targets find it; mp only names it"
    )
    on_rotate: Literal["restart"] | None = Field(
        default=None,
        description="`restart`: when its value in the cluster has changed, the next apply restarts the pods that use it; "
        "left out, nothing happens and nothing drifts",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.env is not None and self.file is not None:
            raise mistake('needs either "env" or "file"', "env: HF_TOKEN, for example")
        if self.env is None and self.file is None and self.kubernetes is None:
            raise mistake('needs "env", "file" or "kubernetes"', "env: HF_TOKEN, for example")
        if self.on_rotate is not None and self.kubernetes is None:
            raise mistake('"on_rotate" is for pods', "add kubernetes: {name: …, key: …}, or remove it")
        return self


class SecretReference(Spec):
    """Stands for the value of a secret."""

    secret: Name = Field(description="A key of `secrets:`")


class HardwareSpec(Spec):
    """A hardware class: what one replica gets."""

    gpu: Text | None = Field(default=None, description="GPU product, such as `L40S`; left out on CPU")
    gpus: int = Field(ge=0, le=16, description="GPUs of one replica, of each of its nodes; 0 is CPU")
    nodes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Nodes that one replica spans, each with that many GPUs: tensor parallel inside a node, pipeline parallel across",
    )
    gpu_memory_bytes: Size | None = Field(
        default=None, alias="gpu_memory", description="Memory of one GPU, with its unit: `44GiB`"
    )
    cpu: float | None = Field(
        default=None, gt=0, le=4096, allow_inf_nan=False, description="CPU cores of one replica"
    )
    memory_bytes: Size | None = Field(
        default=None, alias="memory", description="Main memory of one replica, with its unit: `4Gi`"
    )

    instance_type: Text | None = Field(
        default=None,
        description="Machine type of a cloud, such as `Standard_NC24ads_A100_v4`: what kaito targets make nodes of",
    )

    @property
    def gpu_memory_gib(self) -> float | None:
        return None if self.gpu_memory_bytes is None else self.gpu_memory_bytes / 2**30

    @model_validator(mode="after")
    def _gpu_fits_count(self) -> Self:
        if self.gpus == 0 and (self.gpu or self.gpu_memory_bytes):
            raise mistake("gpus is 0, but a GPU is described", "remove gpu and gpu_memory, or set gpus")
        if self.gpus and not self.gpu:
            raise mistake('"gpu" is missing', "name the product, such as gpu: L40S")
        if self.nodes > 1 and self.gpus == 0:
            raise mistake(f"nodes is {self.nodes}, but gpus is 0", "only GPU replicas span several nodes")
        return self


class ImageRegistrySpec(Spec):
    """A place for images: a registry, or a folder of OCI image layouts."""

    url: Annotated[str, StringConstraints(pattern=REGISTRY_URL)] | None = Field(
        default=None, description="Host and prefix of a registry, such as `ghcr.io/acme/models`"
    )
    layout: Text | None = Field(
        default=None, description="Folder of OCI image layouts, relative to models.yaml: `.mp/registry`"
    )
    insecure: bool = Field(
        default=False,
        description="Plain HTTP instead of HTTPS; loopback addresses without `ca` are always plain",
    )
    compression: Literal["none", "gzip"] = Field(
        default="none",
        description="Of the layers that mp makes; `gzip` saves a fifth of weights and is slower than most networks",
    )
    ca: Text | None = Field(
        default=None,
        description="PEM file of a private authority, relative to models.yaml; trusted besides the system's",
    )
    mirrors: tuple[Annotated[str, StringConstraints(pattern=REGISTRY_URL)], ...] = Field(
        default=(),
        description="Where base images of this host are read first, in this order: `[mirror.local/hub]`",
    )
    max_layer_bytes: Size | None = Field(
        default=None,
        alias="max_layer",
        description="The largest layer this registry takes, with its unit: `10GB`; what is known of the host",
    )
    max_request_bytes: Size | None = Field(
        default=None,
        alias="max_request",
        description="The largest upload request, with its unit: `64MiB`; larger layers then go in parts",
    )

    @model_validator(mode="after")
    def _one_location(self) -> Self:
        if (self.url is None) == (self.layout is None):
            raise mistake(
                'needs either "url" or "layout"', "url: ghcr.io/acme/models, or layout: .mp/registry"
            )
        for name in ("insecure", "ca", "mirrors", "max_layer", "max_request"):
            if self.layout and name in self._given():
                raise mistake(f'"{name}" is for "url" only', "remove it")
        return self

    def _given(self) -> set[str]:
        """The keys that were written, as they are written."""
        fields = type(self).model_fields
        return {fields[name].alias or name for name in self.model_fields_set}


class BuilderTlsSpec(Spec):
    """Certificates for a builder at `tcp://`: PEM files, relative to models.yaml; `~` is the home of whoever runs mp."""

    ca: Text = Field(description="The authority that signed the builder's certificate; no other is trusted")
    cert: Text | None = Field(
        default=None, description="This machine's certificate, where the builder wants one of its clients"
    )
    key: Text | None = Field(
        default=None, description="Its private key, without a passphrase; kept out of git"
    )
    server_name: Text | None = Field(
        default=None, description="A name in the builder's certificate; the host of its address when left out"
    )

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            given, lacking = ("cert", "key") if self.cert else ("key", "cert")
            raise mistake(f'"{given}" needs "{lacking}"', f"name both files, or remove {given}")
        return self


class EngineSpec(Spec):
    """A template's engine for all of its models; holds for every variant."""

    version: Text | None = Field(
        default=None, description='Engine version, quoted: `"0.32.0"`; the newest known one'
    )
    base: Annotated[str, StringConstraints(pattern=BASE_IMAGE)] | None = Field(
        default=None,
        description="Base image of engine images, best by digest: `registry.local/base@sha256:…`",
    )
    builder: Annotated[str, StringConstraints(pattern=BUILDER)] | None = Field(
        default=None,
        description="The BuildKit that builds its images: `tcp://builder:1234`, `docker-container://buildkitd`, "
        "`buildx://NAME`; that of `BUILDKIT_HOST`, else of `BUILDX_BUILDER`, else the Docker engine's, when left out",
    )
    builder_tls: BuilderTlsSpec | None = Field(
        default=None, description="How this machine and a builder at `tcp://` know each other"
    )
    platforms: tuple[Literal["linux/amd64", "linux/arm64"], ...] = Field(
        default=(),
        description="What its images are made for; the platform of the machine that runs mp when left out",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.platforms)) < len(self.platforms):
            raise mistake("a platform is there twice", "name each once")
        return self

    @model_validator(mode="after")
    def _tls_over_tcp(self) -> Self:
        if self.builder_tls is None or (self.builder or "").startswith("tcp://"):
            return self
        if self.builder is None:
            raise mistake('"builder_tls" is for a "builder"', 'add builder: "tcp://HOST:PORT"')
        if self.builder.startswith("buildx://"):
            raise mistake(
                '"builder_tls" is not for builders of buildx', "remove it: buildx knows its certificates"
            )
        scheme = self.builder.partition("://")[0]
        raise mistake(f'"builder_tls" is for tcp://, and {scheme}:// has no TLS', "remove it")
