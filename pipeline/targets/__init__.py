"""The targets, one room each, by kind. A room is imported when somebody asks for its kind: few manifests name them all."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from pydantic import BaseModel

from pipeline.core.frozen import frozen
from pipeline.core.lazily import Lazily
from pipeline.core.protocols import Target

if TYPE_CHECKING:
    from pipeline.targets.docker import DockerSpec
    from pipeline.targets.kaito import KaitoSpec
    from pipeline.targets.kubernetes import KubernetesSpec
    from pipeline.targets.local import LocalSpec
    from pipeline.targets.registry import RegistrySpec

    TargetSpec: TypeAlias = LocalSpec | DockerSpec | KubernetesSpec | KaitoSpec | RegistrySpec
else:
    TargetSpec = BaseModel  # `kind:` tells which: pipeline/manifest/options.py


@frozen
class Kind:
    """What a manifest may say of a target of this kind, and the pure expansion of a model on it."""

    spec: type[BaseModel]  # under `targets:`
    options: type[BaseModel]  # under a model's `targets:`
    target: Target


def _local() -> Kind:
    from pipeline.targets.local import LocalOptions, LocalSpec, LocalTarget

    return Kind(LocalSpec, LocalOptions, LocalTarget())


def _docker() -> Kind:
    from pipeline.targets.docker import DockerOptions, DockerSpec, DockerTarget

    return Kind(DockerSpec, DockerOptions, DockerTarget())


def _kubernetes() -> Kind:
    from pipeline.targets.kubernetes import KubernetesOptions, KubernetesSpec, KubernetesTarget

    return Kind(KubernetesSpec, KubernetesOptions, KubernetesTarget())


def _kaito() -> Kind:
    from pipeline.targets.kaito import KaitoOptions, KaitoSpec, KaitoTarget

    return Kind(KaitoSpec, KaitoOptions, KaitoTarget())


def _registry() -> Kind:
    from pipeline.targets.registry import RegistryOptions, RegistrySpec, RegistryTarget

    return Kind(RegistrySpec, RegistryOptions, RegistryTarget())


KINDS: Mapping[str, Kind] = Lazily(
    {
        "local": _local,
        "docker": _docker,
        "kubernetes": _kubernetes,
        "kaito": _kaito,
        "registry": _registry,
    }
)
