"""What runs in a cluster and mp did not make, in words of models.yaml. Pure; made by the describing module of each kind of target."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.core.frozen import frozen
from pipeline.resources.cluster.health import Object

# Who says on an object that it applies it, and how that is undone: Flux 2 (kustomize-controller, helm-controller), Argo CD 3
# (its tracking annotation), Helm 3 (its release).
_FLUX = (("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io"))
_ARGO, _HELM = "argocd.argoproj.io/tracking-id", "meta.helm.sh/release-name"


@frozen
class Gpus:
    """What one replica asks for."""

    count: int  # on each node
    product: str | None  # value of the nodes' label, or a name of the product table; None: not known
    nodes: int = 1
    instance_type: str | None = None  # "": on nodes that are there; None: it does not matter


@frozen
class Described:
    """One object in words of models.yaml."""

    name: str
    source: str | None  # "hf://Qwen/Qwen3-8B", as far as it tells
    version: str | None
    gpus: Gpus
    env: Mapping[str, str | tuple[str, str]]  # text, or name and key of a Secret
    options: Mapping[str, Any]  # Any: of its target, as models.yaml has them
    ignored: tuple[str, ...]  # JSON pointers to what a controller sets
    remarks: tuple[str, ...]


def left_out(one: Object) -> str | None:
    """Why no entry can stand for an object: who made it makes it again; None where one can."""
    owners = one["metadata"].get("ownerReferences") or ()
    maker = next((f"{each['kind']}/{each['name']}" for each in owners if each.get("controller")), None)
    if maker is not None:
        return f"{maker} made it"
    return "it tunes a model and serves none" if "tuning" in one and "inference" not in one else None


def appliers(one: Object) -> Iterator[str]:
    """A remark for each tool that applies it from elsewhere: two of them must not declare one object for long."""
    metadata = one["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    for kind, group in _FLUX:
        if name := labels.get(f"{group}/name"):
            where = f"{labels.get(f'{group}/namespace')}/{name}"
            yield f"Flux applies it from {kind} {where}: take it out there, without pruning, once it is taken over"
    if tracked := annotations.get(_ARGO):
        yield f"Argo CD applies it from {str(tracked).partition(':')[0]}: take it out there, without pruning, once it is taken over"
    if release := annotations.get(_HELM):
        yield f"Helm has it in release {release}: take it out there (helm.sh/resource-policy: keep), once it is taken over"


def is_scaled(one: Object) -> bool:
    """An autoscaler has set how many there are: it does so by the subresource "scale"."""
    return any(each.get("subresource") == "scale" for each in one["metadata"].get("managedFields") or ())
