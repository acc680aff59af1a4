"""The targets, one file each: their specs as one union, the options of a model's entry, and the pure expansions."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from pipeline.core.protocols import Target
from pipeline.targets.docker import DockerOptions, DockerSpec, DockerTarget
from pipeline.targets.kaito import KaitoOptions, KaitoSpec, KaitoTarget
from pipeline.targets.kubernetes import KubernetesOptions, KubernetesSpec, KubernetesTarget
from pipeline.targets.local import LocalOptions, LocalSpec, LocalTarget
from pipeline.targets.registry import RegistryOptions, RegistrySpec, RegistryTarget

TargetSpec: TypeAlias = Annotated[
    LocalSpec | DockerSpec | KubernetesSpec | KaitoSpec | RegistrySpec, Field(discriminator="kind")
]

ENTRIES: Mapping[str, type[BaseModel]] = {
    "local": LocalOptions,
    "docker": DockerOptions,
    "kubernetes": KubernetesOptions,
    "kaito": KaitoOptions,
    "registry": RegistryOptions,
}

TARGETS: Mapping[str, Target] = {
    "local": LocalTarget(),
    "docker": DockerTarget(),
    "kubernetes": KubernetesTarget(),
    "kaito": KaitoTarget(),
    "registry": RegistryTarget(),
}
