"""Weights in a claim: the claim itself, and the Job that fills it from the weights image. Pure but for a registry's certificates.

Where each replica owns a volume, there is no Job: see volumes.py.

Fields and defaults are those of Kubernetes 1.36.
"""

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.clients.kube import Object
from pipeline.clients.loopback import is_loopback
from pipeline.core.diagnostic import Diagnostic, Mistake, error
from pipeline.core.digest import Json, fingerprint
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, ImageName
from pipeline.core.model import Model, Stated
from pipeline.core.names import DNS_SUBDOMAIN
from pipeline.core.protocols import Place
from pipeline.core.size import PATTERN as SIZE
from pipeline.core.size import size_bytes
from pipeline.resources.cluster.filling import CONTAINER
from pipeline.resources.cluster.marks import FILLED, key_of
from pipeline.resources.cluster.pod import UID, Claim, gpu_node, quantity
from pipeline.resources.cluster.pods import NEVER, RETRIES
from pipeline.resources.filler.resource import filler_name
from pipeline.targets.deployment import option
from pipeline.targets.kubernetes.autoscaling import most_replicas
from pipeline.targets.kubernetes.filling import (
    LIMITS,
    REQUESTS,
    VOLUME,
    container,
    content_of,
    document,
    files_of,
    volumes,
)
from pipeline.targets.objects import config_map, name_of, named

FOLDER = "models"  # below the claim's root, where some storage has folders of its own (lost+found)
ONE_NODE, ONE_POD, MANY_NODES = "ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"
LONGEST = 63  # of a Job's name: its pods have it as a label
SPARE = 1.1  # of the files' bytes: what a file system needs for itself


class ClaimOptions(BaseModel):
    """The claim that holds the weights, with `weights: pvc`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, max_length=253)] | None = Field(
        default=None,
        description="A claim that is there and that somebody else fills: mounted read-only, never changed",
    )
    path: str = Field(
        default="",
        pattern=r"^([^/.][^/]*(/[^/.][^/]*)*)?$",
        description="Folder of the weights in a claim that is named; its root when it is left out",
    )
    storage_class: Annotated[str, StringConstraints(pattern=DNS_SUBDOMAIN, max_length=253)] | None = Field(
        default=None, description="The cluster's default one when it is left out"
    )
    size: str | None = Field(
        default=None,
        pattern=SIZE,
        description='Such as "200Gi"; what the files take and a tenth, when it is left out',
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] | None = Field(
        default=None,
        description="`ReadWriteOnce`: one node mounts it, so an old pod goes before a new one comes; `ReadWriteOncePod`: one pod; "
        "`ReadWriteMany`: pods on several nodes. `ReadWriteOnce` when it is left out",
    )
    per: Literal["model", "replica"] | None = Field(
        default=None,
        description="`model`: one claim that all pods mount; `replica`: each pod has a volume of its own and fills it before it starts "
        "(a StatefulSet). When it is left out: `replica` where several pods cannot share one, else `model`",
    )


@frozen
class Claimed:
    """What a deployment mounts, and what makes it; nothing for a claim of somebody else's."""

    claim: Claim | None = None  # None: the weights are elsewhere
    objects: tuple[Object, ...] = ()
    tasks: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)  # as ClusterRecipe has them
    filler: str = ""  # the image that fills it, without its digest; "": somebody else does
    volume: Object = field(default_factory=dict)  # spec of the claim of each replica, where each has its own


def claimed(place: Place[Any], model: Model, build: Build) -> Claimed:
    """The claim of a model at a target, where its weights are in one."""
    options = place.options.claim
    if place.options.weights != "pvc":
        return Claimed()
    if options.name is not None:
        return Claimed(Claim(options.name, options.path, shared=options.access_mode == MANY_NODES))
    filler = filler_name(build, place.registry)
    if is_per_replica(place):
        folder = f"{FOLDER}-{content_of(model)}"
        config = config_map(place, model, document(place, model, folder, alone=True))
        mounted = Claim(VOLUME, folder, own=True)
        return Claimed(mounted, (config,), filler=str(filler), volume=_spec(place, model))
    claim = _claim(place, model)
    name = str(claim["metadata"]["name"])
    mounted = Claim(name, FOLDER, shared=options.access_mode == MANY_NODES)
    return Claimed(mounted, (claim,), {key_of(claim): _task(place, model, name, filler)}, str(filler))


def is_per_replica(place: Place[Any]) -> bool:
    """Whether each replica owns a volume: it is said, or several replicas cannot share one."""
    options: ClaimOptions = place.options.claim
    if place.options.weights != "pvc" or options.name is not None or options.per is not None:
        return place.options.weights == "pvc" and options.per == "replica"
    return most_replicas(place) > 1 and options.access_mode != MANY_NODES


def claim_key(place: Place[Any], stated: Stated, key: str) -> tuple[str, ...]:
    """Where the entry says something of its claim; that it has one, where it says no more."""
    said = "claim" in place.options.model_fields_set
    return option(place, stated, *(("claim", key) if said else ("weights",)))


def claim_mistakes(place: Place[Any], stated: Stated) -> Iterable[Mistake]:
    """What the words allow and claims do not."""
    options = place.options.claim
    if place.options.weights != "pvc":
        if "claim" in place.options.model_fields_set:
            text = f"claim: says where weights are, and weights: is {place.options.weights}"
            hint = "weights: pvc takes them from a claim; else leave claim out"
            yield Mistake(option(place, stated, "claim"), text, hint)
        return
    if most_replicas(place) > 1 and not is_per_replica(place) and not _is_shared(options):
        text = f"{most_replicas(place)} pods mount one claim, and only one {_one(options)} may mount it"
        hint = f"claim: {{access_mode: {MANY_NODES}}}, or {ONE_NODE} where all pods are on one node"
        yield Mistake(claim_key(place, stated, "access_mode"), text, hint)
    if options.name is None:
        yield from _unreachable(place)
        if options.path:
            text, hint = "path: is for a claim that somebody else fills", "leave it out, or name the claim"
            yield Mistake(claim_key(place, stated, "path"), text, hint)
    else:
        yield from _not_ours_to_say(place, stated)


def _not_ours_to_say(place: Place[Any], stated: Stated) -> Iterable[Mistake]:
    """What is said of a claim that somebody else made."""
    options = place.options.claim
    for key in ("storage_class", "size"):
        if getattr(options, key) is not None:
            text = f'claim "{options.name}" is somebody else\'s: its size and class are not ours to say'
            yield Mistake(claim_key(place, stated, key), text, f"leave {key} out, or the name")
    if options.per == "replica":
        text = f'claim "{options.name}" is one claim, and per: replica asks for one of each'
        yield Mistake(claim_key(place, stated, "per"), text, "leave the name out, or per")


def too_small(place: Place[Any], model: Model) -> Iterable[Diagnostic]:
    """Storage that cannot hold the files: said before anything is published for it."""
    if place.options.weights != "pvc" or place.options.claim.name is not None:
        return
    size, needed_bytes = place.options.claim.size, sum(each.size_bytes for each in model.files)
    if size is not None and size_bytes(size) < max(needed_bytes, 1):
        text = f"{model.name}: claim: size {size} is too small: the files take {needed_bytes:,} bytes"
        yield error(text, place.where, "say more, or leave it out: a tenth more than they take", model.name)


def untrusted(place: Place[Any], model: Model) -> Iterable[Diagnostic]:
    """Certificates that pods need and that this machine does not have."""
    ca = place.registry.ca
    if place.options.weights == "pvc" and place.options.claim.name is None and ca and not _is_text(Path(ca)):
        text = f'{model.name}: the certificates of registry "{place.registry.name}" cannot be read: {ca}'
        yield error(text, place.where, "name a PEM file in registries: ca:", model.name)


def _is_text(file: Path) -> bool:
    try:
        return bool(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, a folder, too long a name, no text
        return False


def _is_shared(options: ClaimOptions) -> bool:
    """Several pods can mount it, or their owner says that they are on one node."""
    return options.access_mode in (ONE_NODE, MANY_NODES)


def _one(options: ClaimOptions) -> str:
    return "pod" if options.access_mode == ONE_POD else "node"


def _unreachable(place: Place[Any]) -> Iterable[Mistake]:
    """What a pod that fills a claim cannot read from."""
    registry = place.registry
    url, path = registry.url or "", ("registries", registry.name, "url")
    if is_loopback(url.partition("/")[0]):
        text = f'pods cannot reach the registry "{registry.name}": {url} is this machine alone'
        yield Mistake(path, text, "weights: pvc needs a registry with an address of its own")


def _claim(place: Place[Any], model: Model) -> Object:
    """Its name is a hash of what it holds and of where: what cannot be changed makes another claim beside it."""
    options, content = place.options.claim, [[path, sha256] for path, _, sha256 in files_of(model)]
    key = fingerprint([content, options.storage_class, options.access_mode or ONE_NODE])[:8]
    name = f"{name_of(place, model)}-weights-{key}"
    claim = named(place, model, "v1", "PersistentVolumeClaim", name, spec=_spec(place, model))
    claim["metadata"]["annotations"][FILLED] = content_of(model)
    return claim


def _spec(place: Place[Any], model: Model) -> Object:
    options = place.options.claim
    storage = {"requests": {"storage": _storage(options, files_of(model))}}
    spec: Object = {"accessModes": [options.access_mode or ONE_NODE], "resources": storage}
    return spec | ({} if options.storage_class is None else {"storageClassName": options.storage_class})


def _storage(options: ClaimOptions, files: list[tuple[str, int, str]]) -> str:
    if options.size is not None:
        return quantity(size_bytes(options.size))
    needed = int(sum(size for _, size, _ in files) * SPARE)
    return f"{max(-(-needed // 2**30), 1)}Gi"


def _task(place: Place[Any], model: Model, claim: str, filler: ImageName) -> tuple[Object, Object]:
    """The ConfigMap and the Job. Their name is a hash of all that they say: neither can be changed."""
    data = document(place, model, FOLDER)
    spec = _job(place, model, claim, str(filler), "")
    name = f"{name_of(place, model)[: LONGEST - 14].rstrip('-')}-fill-{fingerprint([data, spec])[:8]}"
    return (
        named(place, model, "v1", "ConfigMap", name, data=data),
        named(place, model, "batch/v1", "Job", name, spec=_job(place, model, claim, str(filler), name)),
    )


def _job(place: Place[Any], model: Model, claim: str, image: str, config: str) -> Object:
    """One pod that fills the claim. It goes to a node that can serve: some storage stays on the node that used it first."""
    pod: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": name_of(place, model),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(place, image, {"requests": dict(REQUESTS), "limits": dict(LIMITS)})],
        "volumes": [
            {"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}},
            *volumes(place, config),
        ],
        **gpu_node(model.hardware),
    }
    if place.spec.pull_secret:
        pod["imagePullSecrets"] = [{"name": place.spec.pull_secret}]
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    hopeless = {
        "action": "FailJob",
        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [NEVER]},
    }
    return {
        "backoffLimit": RETRIES,
        "podFailurePolicy": {"rules": [hopeless, ignored]},
        # no label of the deployment: its Service and its budget choose by those
        "template": {"metadata": {"labels": {"app.kubernetes.io/component": CONTAINER}}, "spec": pod},
    }
