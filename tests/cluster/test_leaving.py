"""What leaves a cluster leaves it whole: a claim goes also where Kubernetes alone would keep it."""

import json
import time
from typing import Any

import pytest

from pipeline.clients.kube import CLAIM, Cluster
from pipeline.resources.cluster.filling import objects_of
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.rollout import Rollout
from tests.parts.claims import until
from tests.parts.cluster import RealCluster
from tests.parts.deployments import DEPLOYMENTS, deployment

pytestmark = pytest.mark.cluster

SOON_S = 30


def test_claim_goes_also_when_the_garbage_collector_lets_its_job_stay(simulated: RealCluster) -> None:
    """Another owner keeps the Job, so that the garbage collector takes it for one that shall stay: so it ends in a race, too."""
    server = Cluster(simulated.context, {"KUBECONFIG": str(simulated.kubeconfig)})
    with simulated.namespace() as namespace:
        made = deployment(**{**DEPLOYMENTS["claim"], "spec": {"namespace": namespace}})
        assert made.desired.recipe is not None
        ((key, task),) = made.desired.recipe.tasks.items()
        claim: Any = made.desired.objects[key]
        volume = a_volume(namespace)
        simulated.kubectl("apply", "-f", "-", stdin=json.dumps(volume))
        server.apply({**claim, "spec": {**claim["spec"], "storageClassName": namespace}})
        simulated.kubectl("-n", namespace, "create", "serviceaccount", "qwen")
        config, job = (json.loads(json.dumps(one)) for one in objects_of(task))
        live = simulated.get(namespace, "pvc", claim["metadata"]["name"])
        stays = server.apply(config)
        job["metadata"]["ownerReferences"] = [owner_of(live), owner_of(stays)]
        job["spec"]["template"]["spec"]["containers"][0]["image"] = "none"
        server.apply(job)
        until(lambda: uses_a_node(simulated, namespace), SOON_S)

        began = time.monotonic()
        said: list[str] = []
        leaving = {key_of(live): {**live, "kind": CLAIM.name}}
        Rollout(server, "qwen", made.desired.recipe, said.append).remove(leaving)

        assert time.monotonic() - began < SOON_S
        assert simulated.get(namespace, "pvc,jobs")["items"] == []
        simulated.kubectl("delete", "pv", volume["metadata"]["name"])


def a_volume(name: str) -> dict[str, Any]:  # Any: an object of the API
    """Of a storage class of that name."""
    spec = {
        "storageClassName": name,
        "capacity": {"storage": "100Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/nowhere"},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


def owner_of(live: Any) -> dict[str, str]:
    name, uid = live["metadata"]["name"], live["metadata"]["uid"]
    return {"apiVersion": live["apiVersion"], "kind": live["kind"], "name": name, "uid": uid}


def uses_a_node(cluster: RealCluster, namespace: str) -> bool:
    """A pod that has a node holds its claims."""
    return any("nodeName" in pod["spec"] for pod in cluster.get(namespace, "pods")["items"])
