"""Whether the server has the kinds that are written, and mounts images where that is wanted. Used by preflight."""

from collections.abc import Iterable, Sequence

from pipeline.clients.kube import KINDS, Cluster, Object
from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.resources.cluster.preflight.steps import Step
from pipeline.resources.cluster.sending import mounts_images

# KEP-4639: image volumes are beta in 1.33 (with the feature gate ImageVolume), on by default since 1.35, stable in 1.36.
IMAGE_VOLUMES, IMAGE_VOLUMES_ON = (1, 33), (1, 35)
# containerd mounts images since 2.1, CRI-O since 1.31 (their release notes).
RUNTIMES = {"containerd": (2, 1), "cri-o": (1, 31)}


def kinds(cluster: Cluster, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """A refusal for every API that is written and not served: its custom resource definitions are not installed."""
    by_api: dict[str, dict[str, Step]] = {}
    for step in steps:
        for key in step.wanted:
            kind = KINDS[key.partition("/")[0]]
            if kind.group:  # the core is there
                by_api.setdefault(kind.api, {}).setdefault(kind.name, step)
    for api, wanted in sorted(by_api.items()):
        lacking = wanted.keys() - cluster.served(api)
        if lacking:
            step = wanted[min(lacking)]
            yield error(
                f"{step.model}: {cluster.system} has no {', '.join(sorted(lacking))} of {api}",
                step.where,
                "install what brings it, or use a hardware class or a target that does not need it"
                if "." in api.partition("/")[0]
                else "its version of Kubernetes is not one that mp knows",
                step.model,
            )


def mounting(steps: Iterable[Step]) -> list[Step]:
    return [step for step in steps if any(mounts_images(one) for one in step.wanted.values())]


def image_volumes(cluster: Cluster, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """Whether the server knows image volumes; asked when something has one."""
    if not (found := mounting(steps)):
        return
    version = cluster.version()
    summary = f"{found[0].model}: {cluster.system} is Kubernetes {version[0]}.{version[1]}"
    if version < IMAGE_VOLUMES:
        hint = "use weights: baked, or Kubernetes 1.33 or newer"
        yield error(f"{summary}, which mounts no images", found[0].where, hint, found[0].model)
    elif version < IMAGE_VOLUMES_ON:
        hint = "use weights: baked where it is off"
        text = f"{summary}, which mounts images only with its feature gate ImageVolume"
        yield warning(text, found[0].where, hint, found[0].model)


def runtimes(cluster: Cluster, nodes: Sequence[Object], steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """Whether the nodes mount images."""
    if not (found := mounting(steps)) or not nodes:
        return
    old = [str(node["metadata"]["name"]) for node in nodes if not _mounts(node)]
    if old:
        make = error if len(old) == len(nodes) else warning
        names = ", ".join(old[:3]) + (f" and {len(old) - 3} more" if len(old) > 3 else "")
        yield make(
            f"{found[0].model}: {len(old)} of {len(nodes)} nodes of {cluster.system} mount no images: {names}",
            found[0].where,
            "use weights: baked, or nodes with Kubernetes 1.33 and containerd 2.1 or CRI-O 1.31, or newer",
            found[0].model,
        )


def _mounts(node: Object) -> bool:
    """What is not said is not known: such a node is not held to be too old."""
    said = (node.get("status") or {}).get("nodeInfo") or {}
    kubelet = _version(str(said.get("kubeletVersion", "")).removeprefix("v"))
    name, _, text = str(said.get("containerRuntimeVersion", "")).partition("://")
    runtime, floor = _version(text), RUNTIMES.get(name)
    if kubelet and kubelet < IMAGE_VOLUMES:
        return False
    return not (runtime and floor and runtime < floor)


def _version(text: str) -> tuple[int, int] | None:
    """The first two numbers: "2.4.2" → (2, 4)."""
    parts = text.split(".")
    return (
        (int(parts[0]), int(parts[1]))
        if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit()
        else None
    )
