"""Weights in a claim: the claim itself, and the Job that fills it from the weights image. Pure but for a registry's certificates.

Fields and defaults are those of Kubernetes 1.36.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.clients.kube import Object
from pipeline.clients.loopback import is_loopback
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json, canonical, fingerprint
from pipeline.core.image import Build, ImageName
from pipeline.core.model import Model
from pipeline.core.names import DNS_SUBDOMAIN
from pipeline.core.protocols import Place
from pipeline.core.size import PATTERN as SIZE
from pipeline.core.size import size_bytes
from pipeline.resources.cluster.filling import CONTAINER, FILLED
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.pod import SECRET_MODE, UID, Claim, gpu_node, quantity
from pipeline.resources.filler.resource import filler_name
from pipeline.resources.image.recipe import weights_name
from pipeline.targets.kubernetes.autoscaling import most_replicas
from pipeline.targets.objects import name_of, named

FOLDER = "models"  # below the claim's root, where some storage has folders of its own (lost+found)
DOCUMENT, CERTIFICATES = "fill.json", "ca.pem"
MOUNT, CONFIG, LOGIN = "/mnt", "/etc/mp", "/run/secrets/registry"
ONE_NODE, MANY_NODES = "ReadWriteOnce", "ReadWriteMany"
LONGEST = 63  # of a Job's name: its pods have it as a label
RETRIES = 6  # pods that are killed, a registry that does not answer
NEVER = 3  # exit code of pipeline/cli/filling.py: another try fails the same way
SPARE = 1.1  # of the files' bytes: what a file system needs for itself
# Four files at a time, a block of each; the page cache is the kernel's to give back. A quota may ask for every limit.
REQUESTS = {"cpu": "250m", "memory": "512Mi"}
LIMITS = {"cpu": "2", "memory": "512Mi"}


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
    storage_class: str | None = Field(
        default=None, min_length=1, description="The cluster's default one when it is left out"
    )
    size: str | None = Field(
        default=None,
        pattern=SIZE,
        description='Such as "200Gi"; what the files take and a tenth, when it is left out',
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] | None = Field(
        default=None,
        description="`ReadWriteOnce`: one node mounts it, so an old pod goes before a new one comes; "
        "`ReadWriteMany`: pods on several nodes. `ReadWriteOnce` when it is left out",
    )


@dataclass(frozen=True)
class Claimed:
    """What a deployment mounts, and what makes it; nothing for a claim of somebody else's."""

    claim: Claim | None = None  # None: the weights are elsewhere
    objects: tuple[Object, ...] = ()
    tasks: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)  # as ClusterRecipe has them
    filler: str = ""  # the image that the Job runs, without its digest; "": there is no Job


def claimed(place: Place[Any], model: Model, build: Build) -> Claimed:
    """The claim of a model at a target, where its weights are in one."""
    options = place.options.claim
    if place.options.weights != "pvc":
        return Claimed()
    if options.name is not None:
        return Claimed(Claim(options.name, options.path, shared=options.access_mode == MANY_NODES))
    claim = _claim(place, model)
    name = str(claim["metadata"]["name"])
    mounted = Claim(name, FOLDER, shared=options.access_mode == MANY_NODES)
    filler = filler_name(build, place.registry)
    task = _task(place, model, name, weights_name(model, place.registry), filler)
    return Claimed(mounted, (claim,), {key_of(claim): task}, str(filler))


def claim_problems(place: Place[Any], model: Model) -> Iterable[Diagnostic]:
    """What the words allow and claims do not."""
    options, where = place.options.claim, place.where
    if place.options.weights != "pvc":
        return
    if most_replicas(place) > 1 and options.access_mode is None:
        text = f"{model.name}: {most_replicas(place)} pods mount one claim, and only one node may mount it"
        hint = f"claim: {{access_mode: {MANY_NODES}}}, or {ONE_NODE} where all pods are on one node"
        yield error(text, where, hint, model.name)
    if options.name is None:
        yield from _unreachable(place, model)
    elif options.storage_class or options.size:
        text = f'{model.name}: claim "{options.name}" is somebody else\'s: its size and class are not ours to say'
        yield error(text, where, "leave storage_class and size out, or the name", model.name)
    if options.name is None and options.path:
        text = f"{model.name}: path: is for a claim that somebody else fills"
        yield error(text, where, "leave it out, or name the claim", model.name)


def _unreachable(place: Place[Any], model: Model) -> Iterable[Diagnostic]:
    url, ca = place.registry.url or "", place.registry.ca
    if is_loopback(url.partition("/")[0]):
        text = f'{model.name}: pods cannot reach the registry "{place.registry.name}": {url} is this machine alone'
        yield error(text, place.where, "weights: pvc needs a registry with an address of its own", model.name)
    if ca and not Path(ca).is_file():
        text = f'{model.name}: the certificates of registry "{place.registry.name}" are not there: {ca}'
        yield error(text, place.where, "name the file in registries: ca:", model.name)


def _files(model: Model) -> list[tuple[str, int, str]]:
    """As the weights image has them: path, size, sha256; the user's own files lie over the model's."""
    found = {entry.path: (entry.size_bytes, entry.sha256) for entry in model.files}
    found |= {one.path: (one.size_bytes, one.sha256) for one in model.overlays}
    return [(path, *found[path]) for path in sorted(found)]


def _claim(place: Place[Any], model: Model) -> Object:
    """Its name is a hash of what it holds and of where: what cannot be changed makes another claim beside it."""
    options, files = place.options.claim, _files(model)
    content = [[path, sha256] for path, _, sha256 in files]
    mode = options.access_mode or ONE_NODE
    key = fingerprint([content, options.storage_class, mode])[:8]
    spec: Object = {"accessModes": [mode], "resources": {"requests": {"storage": _storage(options, files)}}}
    if options.storage_class is not None:
        spec["storageClassName"] = options.storage_class
    name = f"{name_of(place, model)}-weights-{key}"
    claim = named(place, model, "v1", "PersistentVolumeClaim", name, spec=spec)
    claim["metadata"]["annotations"][FILLED] = fingerprint(content)[:12]
    return claim


def _storage(options: ClaimOptions, files: list[tuple[str, int, str]]) -> str:
    if options.size is not None:
        return quantity(size_bytes(options.size))
    needed = int(sum(size for _, size, _ in files) * SPARE)
    return f"{max(-(-needed // 2**30), 1)}Gi"


def _task(
    place: Place[Any], model: Model, claim: str, weights: ImageName, filler: ImageName
) -> tuple[Object, Object]:
    """The ConfigMap and the Job. Their name is a hash of all that they say: neither can be changed."""
    registry = place.registry
    data: dict[str, Json] = {}
    if registry.ca:
        data[CERTIFICATES] = Path(registry.ca).read_text(encoding="utf-8")
    data[DOCUMENT] = canonical(
        {
            "registry": registry.url,
            "insecure": registry.insecure,
            "ca": f"{CONFIG}/{CERTIFICATES}" if registry.ca else None,
            "repository": weights.repository,
            "tag": weights.tag,
            "folder": FOLDER,
            "files": [list(one) for one in _files(model)],
        }
    ).decode()
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
        "containers": [_container(place, image)],
        "volumes": [
            {"name": "weights", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "document", "configMap": {"name": config, "defaultMode": 0o444}},
            *([_login(place.spec.pull_secret)] if place.spec.pull_secret else ()),
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


def _container(place: Place[Any], image: str) -> Object:
    mounts: list[Object] = [
        {"name": "weights", "mountPath": MOUNT},
        {"name": "document", "mountPath": CONFIG, "readOnly": True},
    ]
    container: Object = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"{CONFIG}/{DOCUMENT}", MOUNT],
        "resources": {"requests": dict(REQUESTS), "limits": dict(LIMITS)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if place.spec.pull_secret:
        mounts.append({"name": "login", "mountPath": LOGIN, "readOnly": True})
        container["env"] = [{"name": "DOCKER_CONFIG", "value": LOGIN}]
    return container


def _login(secret: str) -> Object:
    """The registry's user and password, which the nodes use as well; as the file that docker login writes."""
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    return {"name": "login", "secret": {"secretName": secret, "items": items, "defaultMode": SECRET_MODE}}
