"""The pod that serves a model: one container, its files, what it may use of a node. Pure; used by objects."""

from typing import Any, NamedTuple

from pipeline.clients.kube import Object
from pipeline.core.frozen import frozen
from pipeline.core.image import Launch
from pipeline.core.model import Hardware, Model, Secret
from pipeline.core.protocols import Place
from pipeline.core.size import size_bytes
from pipeline.resources.cluster.products import GPU, PRODUCT, products_of

COMMAND = ("python3", "/opt/mp/serve.py")
CONTAINER, HTTP = "server", "http"
UID = 10001  # what the engine images are made for (runtime/*/Dockerfile)
PERIOD_S = 10  # of the startup and the liveness probe
GRACE_S = 60  # requests that run may end
LEAVE_S = 15  # until nobody sends requests to a pod that goes (KServe's and vLLM production-stack's templates wait as long)
# Files of Secrets belong to root, and fsGroup lets the server's group read them: 0400 and the group's bit.
SECRET_MODE = 0o440


class _Launch(NamedTuple):
    """Where the launch document and the secrets are inside the container."""

    folder: str
    file: str
    secrets: str


LAUNCH = _Launch("/etc/mp", "launch.json", "/run/secrets/mp")


@frozen
class Claim:
    """A PersistentVolumeClaim that has the weights."""

    name: str  # of the claim, or of the workload's template for claims
    path: str = ""  # folder of the weights in it; "" is its root
    shared: bool = False  # pods on several nodes may mount it at once
    own: bool = False  # each pod has one, made from the template


@frozen
class Images:
    """What a pod is made from; references without digests."""

    server: str  # "ghcr.io/acme/models/qwen:mp-1a2b3c4d5e6f"
    weights: str = ""  # mounted as an image volume
    claim: Claim | None = None  # mounted; without both the weights are in the server's image

    @property
    def folder(self) -> str:
        """Of the weights. A weights image has its files under /models, so they are below the mount."""
        return "/mnt/models" if self.weights or self.claim else "/models"

    @property
    def one_node(self) -> bool:
        """Whether only one node can mount the weights at a time."""
        return self.claim is not None and not (self.claim.shared or self.claim.own)


def startup_s(launch: Launch) -> int:
    """What the startup probe allows, in whole periods."""
    return -(-launch.start_timeout_s // PERIOD_S) * PERIOD_S


def pod(place: Place[Any], model: Model, launch: Launch, images: Images, *, name: str, config: str) -> Object:
    """The spec of the pod template. `name` is the ServiceAccount's, `config` the ConfigMap's."""
    volumes = _volumes(model, launch, images, config)
    spec: Object = {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # of a Service "vllm" comes VLLM_PORT=tcp://…, which vLLM refuses
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(place, model, launch, images, [mount for _, mount in volumes])],
        "volumes": [volume for volume, _ in volumes if volume],
    }
    if place.spec.pull_secret:
        spec["imagePullSecrets"] = [{"name": place.spec.pull_secret}]
    return spec | gpu_node(model.hardware)


def _container(
    place: Place[Any], model: Model, launch: Launch, images: Images, mounts: list[Object]
) -> Object:
    health = {"path": "/health", "port": HTTP, "scheme": "HTTP"}
    container: Object = {
        "name": CONTAINER,
        "image": images.server,
        "imagePullPolicy": "IfNotPresent",
        "command": [*COMMAND, f"{LAUNCH.folder}/{LAUNCH.file}"],
        "ports": [{"name": HTTP, "containerPort": launch.port, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": health,
            "periodSeconds": PERIOD_S,
            "failureThreshold": startup_s(launch) // PERIOD_S,
            "timeoutSeconds": 5,
        },
        "readinessProbe": {
            "httpGet": health,
            "periodSeconds": 5,
            "failureThreshold": 3,
            "timeoutSeconds": 5,
        },
        # slack for a server that is busy: a restart costs loading everything again
        "livenessProbe": {
            "httpGet": health,
            "periodSeconds": PERIOD_S,
            "failureThreshold": 10,
            "timeoutSeconds": 5,
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    if resources := _resources(model.hardware, place.options.memory):
        container["resources"] = resources
    return container


def _resources(hardware: Hardware, memory: str | None) -> Object:
    """Requests equal limits, so that the node evicts others first. What is not declared is not limited."""
    memory_bytes = hardware.memory_bytes if memory is None else size_bytes(memory)
    amounts: Object = {}
    if hardware.cpus is not None:
        amounts["cpu"] = cores(hardware.cpus)
    if memory_bytes is not None:
        amounts["memory"] = quantity(memory_bytes)
    if hardware.gpus:
        amounts[GPU] = str(hardware.gpus)
    return {"requests": amounts, "limits": dict(amounts)} if amounts else {}


def gpu_node(hardware: Hardware) -> Object:
    """Only nodes with that product; labels of shared GPUs and of slices have other values, and are none of them."""
    if not hardware.gpus:
        return {}
    products = {"key": PRODUCT, "operator": "In", "values": list(products_of(hardware.gpu or ""))}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [products]}]}
    return {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
    }


def _volumes(model: Model, launch: Launch, images: Images, config: str) -> list[tuple[Object, Object]]:
    """Each volume and where it is mounted; {} for one that the pod's controller adds."""
    found = [
        (
            {"name": "launch", "configMap": {"name": config, "defaultMode": 0o444}},
            {"name": "launch", "mountPath": LAUNCH.folder, "readOnly": True},
        )
    ]
    if launch.secrets:
        found.append(
            (
                {
                    "name": "secrets",
                    "projected": {"sources": _sources(model, launch), "defaultMode": SECRET_MODE},
                },
                {"name": "secrets", "mountPath": LAUNCH.secrets, "readOnly": True},
            )
        )
    if images.weights:
        found.append(
            (
                {
                    "name": "weights",
                    "image": {"reference": images.weights, "pullPolicy": "IfNotPresent"},
                },
                {"name": "weights", "mountPath": "/mnt", "readOnly": True},
            )
        )
    if images.claim:
        found.append(_claimed(images.claim))
    if launch.shm_bytes:
        found.append(
            (
                {
                    "name": "shm",
                    "emptyDir": {"medium": "Memory", "sizeLimit": quantity(launch.shm_bytes)},
                },
                {"name": "shm", "mountPath": "/dev/shm"},
            )
        )
    return found


def _claimed(claim: Claim) -> tuple[Object, Object]:
    """Only the mount is read-only: some storage cannot be attached for reading while it is attached for writing."""
    name = claim.name if claim.own else "weights"
    mount: Object = {"name": name, "mountPath": "/mnt/models", "readOnly": True}
    volume: Object = {"name": name, "persistentVolumeClaim": {"claimName": claim.name}}
    return {} if claim.own else volume, mount | ({"subPath": claim.path} if claim.path else {})


def _sources(model: Model, launch: Launch) -> list[Object]:
    """Each secret as a file that has its variable's name; the value stays in the cluster."""
    known: dict[str, Secret] = {secret.name: secret for secret in model.secret_env.values()}
    if model.api_key is not None:
        known[model.api_key.name] = model.api_key
    found = []
    for variable, secret_name in sorted(launch.secrets.items()):
        place = known[secret_name].kubernetes
        assert place is not None, "expand refuses secrets that have no place in a cluster"
        found.append({"secret": {"name": place[0], "items": [{"key": place[1], "path": variable}]}})
    return found


def cores(cpus: float) -> str:
    """As the server writes it: "2", "500m"."""
    thousandths = max(round(cpus * 1000), 1)
    return f"{thousandths}m" if thousandths % 1000 else str(thousandths // 1000)


def quantity(size: int) -> str:
    """Bytes as the server writes them: the largest binary unit that leaves a whole number."""
    for power, unit in ((6, "Ei"), (5, "Pi"), (4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return _decimal(size)


def _decimal(size: int) -> str:
    for power, unit in ((6, "E"), (5, "P"), (4, "T"), (3, "G"), (2, "M"), (1, "k")):
        if size and size % 1000**power == 0:
            return f"{size // 1000**power}{unit}"
    return str(size)
