"""Replicas that each own a volume: a StatefulSet whose pods fill and verify theirs before the server starts. Pure.

Fields and defaults are those of Kubernetes 1.36.
"""

from collections.abc import Iterable
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.diagnostic import Mistake
from pipeline.core.model import Hardware, Model, Stated
from pipeline.core.protocols import Place
from pipeline.resources.cluster.pod import HTTP, cores
from pipeline.targets.kubernetes.autoscaling import first_replicas
from pipeline.targets.kubernetes.claims import Claimed, claim_key, is_per_replica
from pipeline.targets.kubernetes.filling import LIMITS, REQUESTS, VOLUME, container, volumes
from pipeline.targets.objects import key_of_name, labels_of, name_of, named, selector_of

# A label of its pods has the name and a hash of 10 letters after a hyphen; a label's value has 63.
LONGEST_NAME = 52
LEAST_CPUS, MOST_CPUS = 0.25, 2.0  # while it fills


def replica_set(place: Place[Any], model: Model, spec: Object, weights: Claimed) -> tuple[Object, Object]:
    """The headless Service of the pods, and the StatefulSet. `spec` is that of a pod which only serves.

    Parallel: no pod waits for another one's weights, and a version that never got ready gives way to the one before.
    """
    name, headless = name_of(place, model), _headless(place, model)
    (config,) = weights.objects
    fills = container(place, weights.filler, _resources(model.hardware))
    own = volumes(place, str(config["metadata"]["name"]))
    pod = {**spec, "initContainers": [fills], "volumes": [*spec["volumes"], *own]}
    body = {
        "replicas": first_replicas(place),
        "serviceName": headless["metadata"]["name"],
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        # an older revision would name a ConfigMap that is gone: what is brought back is applied again
        "revisionHistoryLimit": 0,
        "persistentVolumeClaimRetentionPolicy": {
            "whenDeleted": "Delete",
            # an autoscaler brings replicas back: theirs are filled already
            "whenScaled": "Retain" if place.options.autoscale else "Delete",
        },
        "selector": {"matchLabels": selector_of(name)},
        "template": {"metadata": {"labels": labels_of(place, model)}, "spec": pod},
        "volumeClaimTemplates": [{"metadata": {"name": VOLUME}, "spec": weights.volume}],
    }
    return headless, named(place, model, "apps/v1", "StatefulSet", name, spec=body)


def volume_mistakes(place: Place[Any], stated: Stated) -> Iterable[Mistake]:
    """What replicas with volumes of their own cannot be."""
    if not is_per_replica(place):
        return
    name = name_of(place, stated)
    if stated.hardware.nodes > 1:
        text = "its pods run on several nodes, and have no volumes of their own"
        hint = "claim: {access_mode: ReadWriteMany, per: model}, or hardware with one node"
        yield Mistake(claim_key(place, stated, "per"), text, hint)
    if len(name) > LONGEST_NAME:
        text = f'"{name}" is too long a name for replicas with volumes of their own: {LONGEST_NAME} characters at most'
        yield Mistake(key_of_name(place, stated), text, f"give it a name: {place.name}: {{name: …}}")


def _headless(place: Place[Any], model: Model) -> Object:
    """Each pod has a name in it; requests go through the other one."""
    name = name_of(place, model)
    ports = [{"name": HTTP, "port": 80, "protocol": "TCP", "targetPort": HTTP}]
    spec = {"clusterIP": "None", "selector": selector_of(name), "ports": ports}
    return named(place, model, "v1", "Service", f"{name}-pods", spec=spec)


def _resources(hardware: Hardware) -> Object:
    """Requests equal limits where those of the server do; a pod takes what the larger of the two asks for."""
    if hardware.cpus is None:
        return {"requests": dict(REQUESTS), "limits": dict(LIMITS)}
    amounts = {**LIMITS, "cpu": cores(min(max(hardware.cpus, LEAST_CPUS), MOST_CPUS))}
    return {"requests": amounts, "limits": dict(amounts)}
