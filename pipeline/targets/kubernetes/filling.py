"""What fills a volume with weights: mp's own image, and the document that tells it which. Used by claims and volumes.

Pure but for a registry's certificates. Fields and defaults are those of Kubernetes 1.36.
"""

from pathlib import Path
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.digest import Json, canonical, fingerprint
from pipeline.core.model import Model
from pipeline.core.protocols import Place
from pipeline.resources.cluster.filling import CONTAINER
from pipeline.resources.cluster.pod import SECRET_MODE
from pipeline.resources.image.recipe import weights_name

VOLUME = "weights"  # its name in a pod
DOCUMENT, CERTIFICATES = "fill.json", "ca.pem"
MOUNT, CONFIG, LOGIN = "/mnt", "/etc/mp", "/run/secrets/registry"
# Four files at a time, a block of each; the page cache is the kernel's to give back. A quota may ask for every limit.
REQUESTS = {"cpu": "250m", "memory": "512Mi"}
LIMITS = {"cpu": "2", "memory": "512Mi"}


def files_of(model: Model) -> list[tuple[str, int, str]]:
    """As the weights image has them: path, size, sha256; the user's own files lie over the model's."""
    found = {entry.path: (entry.size_bytes, entry.sha256) for entry in model.files}
    found |= {one.path: (one.size_bytes, one.sha256) for one in model.overlays}
    return [(path, *found[path]) for path in sorted(found)]


def content_of(model: Model) -> str:
    """12 hex of all paths and hashes."""
    return fingerprint([[path, sha256] for path, _, sha256 in files_of(model)])[:12]


def document(place: Place[Any], model: Model, folder: str, *, alone: bool = False) -> dict[str, Json]:
    """The data of a ConfigMap. `alone`: folders of other versions in the volume give way."""
    registry, weights = place.registry, weights_name(model, place.registry)
    data: dict[str, Json] = {}
    if registry.ca:
        data[CERTIFICATES] = Path(registry.ca).read_text(encoding="utf-8")
    told: dict[str, Json] = {
        "registry": registry.url,
        "insecure": registry.insecure,
        "ca": f"{CONFIG}/{CERTIFICATES}" if registry.ca else None,
        "repository": weights.repository,
        "tag": weights.tag,
        "folder": folder,
        "files": [list(one) for one in files_of(model)],
    }
    data[DOCUMENT] = canonical(told | ({"alone": True} if alone else {})).decode()
    return data


def container(place: Place[Any], image: str, resources: Object) -> Object:
    """The one that fills; its volumes are those of `volumes`, and one that is called "weights"."""
    mounts: list[Object] = [
        {"name": VOLUME, "mountPath": MOUNT},
        {"name": "document", "mountPath": CONFIG, "readOnly": True},
    ]
    made: Object = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"{CONFIG}/{DOCUMENT}", MOUNT],
        "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if place.spec.pull_secret:
        mounts.append({"name": "login", "mountPath": LOGIN, "readOnly": True})
        made["env"] = [{"name": "DOCKER_CONFIG", "value": LOGIN}]
    return made


def volumes(place: Place[Any], config: str) -> list[Object]:
    """What it reads: the ConfigMap of its document, and the registry's login."""
    found: list[Object] = [{"name": "document", "configMap": {"name": config, "defaultMode": 0o444}}]
    return [*found, *([_login(place.spec.pull_secret)] if place.spec.pull_secret else ())]


def _login(secret: str) -> Object:
    """The registry's user and password, which the nodes use as well; as the file that docker login writes."""
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    return {"name": "login", "secret": {"secretName": secret, "items": items, "defaultMode": SECRET_MODE}}
