"""A model on several nodes: a LeaderWorkerSet, each of whose groups is one replica with one pod a node. Pure.

Fields and environment variables are those of LeaderWorkerSet 0.7 (api/leaderworkerset/v1, pkg/utils/pod).
"""

from collections.abc import Iterator
from typing import Any

from pipeline.clients.kube import Object
from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json, fingerprint
from pipeline.core.model import Model, Stated
from pipeline.core.protocols import Place
from pipeline.resources.cluster.marks import TEMPLATE
from pipeline.targets.kubernetes.autoscaling import first_replicas
from pipeline.targets.kubernetes.claims import MANY_NODES, claim_key
from pipeline.targets.objects import key_of_name, labels_of, name_of, named, selector_of
from pipeline.templates.launch import Group

ROLE, LEADER, WORKER = "app.kubernetes.io/component", "leader", "worker"
API = "leaderworkerset.x-k8s.io/v1"
# A group has names such as qwen-0-1, and labels of its revisions 11 letters more; a label's value has 63.
LONGEST_NAME = 48
OWN_ADDRESS = "MP_POD_IP"
# What tells a process its place; the controller sets the first two (LeaderWorkerSet 0.6).
RANK, LEADER_ADDRESS = "LWS_WORKER_INDEX", "LWS_LEADER_ADDRESS"
_OF_A_SERVER = ("startupProbe", "readinessProbe", "livenessProbe", "ports")


def group_of(nodes: int) -> Group | None:
    """How the processes of a replica find one another; None of one on one node."""
    return Group(nodes=nodes, rank=RANK, leader=LEADER_ADDRESS, own=OWN_ADDRESS) if nodes > 1 else None


def group_mistakes(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    """What one node can do and several cannot."""
    name, nodes, options = name_of(place, stated), stated.hardware.nodes, place.options
    if nodes > 1 and len(name) > LONGEST_NAME:
        text = f'"{name}" is too long a name for pods on several nodes: {LONGEST_NAME} characters at most'
        yield Mistake(key_of_name(place, stated), text, f"give it a name: {place.name}: {{name: …}}")
    if nodes > 1 and options.weights == "pvc" and options.claim.access_mode != MANY_NODES:
        text = f"{nodes} nodes mount one claim, and only one node may mount it"
        yield Mistake(claim_key(place, stated, "access_mode"), text, f"claim: {{access_mode: {MANY_NODES}}}")


def leader_selector(name: str) -> dict[str, Json]:
    """Requests go to leaders: the other pods serve none."""
    return {**selector_of(name), ROLE: LEADER}


def group_set(place: Place[Any], model: Model, spec: Object, *, nodes: int, rolling: Object) -> Object:
    """`spec` is that of a pod which serves alone; `rolling` is how groups give way to those of a new version."""
    name = name_of(place, model)
    leader = _told(spec)
    worker = {**leader, "containers": [_worker(one) for one in leader["containers"]]}
    version = fingerprint([leader, worker])[:16]
    body = {
        "replicas": first_replicas(place),
        "startupPolicy": "LeaderCreated",
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"partition": 0, **rolling},
        },
        # each group's own: the shared one would be a Service with the name of ours
        "networkConfig": {"subdomainPolicy": "UniquePerReplica"},
        "leaderWorkerTemplate": {
            "size": nodes,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": _template(place, model, leader, LEADER, version),
            "workerTemplate": _template(place, model, worker, WORKER, version),
        },
    }
    return named(place, model, API, "LeaderWorkerSet", name, spec=body)


def _template(place: Place[Any], model: Model, spec: Object, role: str, version: str) -> Object:
    labels = {**labels_of(place, model), ROLE: role}
    return {"metadata": {"labels": labels, "annotations": {TEMPLATE: version}}, "spec": spec}


def _told(spec: Object) -> Object:
    """The pod's own address for its container, which the controller does not set."""
    address = {"name": OWN_ADDRESS, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    containers = [{**one, "env": [*one.get("env", ()), address]} for one in spec["containers"]]
    return {**spec, "containers": containers}


def _worker(container: Object) -> Object:
    """It answers no requests, so nobody asks whether it does; when it ends, its group is made anew."""
    return {key: value for key, value in container.items() if key not in _OF_A_SERVER}
