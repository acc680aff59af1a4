"""KAITO's controllers and its webhook, played: what the tests of a kaito target have instead of them.

Objects, labels and conditions are those of KAITO 0.12 (pkg/workspace/controllers, pkg/inferenceset, pkg/workspace/manifests). Nodes are
those that are there: nobody makes one. A preset's image is the tiny engine, told by the Workspace's ConfigMap as KAITO's is.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from kubernetes import client, config

from tests.parts.cluster import RealCluster
from tests.parts.schemas import definition

GROUP, VERSION = "kaito.sh", "v1beta1"
FINALIZER = "workspace.finalizer.kaito.sh"
WORKSPACE, SET = "kaito.sh/workspace", "inferenceset.kaito.sh/created-by"
PORT = 5000
LOOK_S = 0.3
Object = dict[str, Any]  # Any: an object of the API

# What api/v1beta1/workspace_validation.go refuses: changes of these fields.
WEBHOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: kaito-immutable}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [kaito.sh], apiVersions: ["*"], operations: [UPDATE], resources: [workspaces]}]
  validations:
  - {expression: "object.resource == oldObject.resource", message: "resource: field is immutable"}
  - expression: "has(object.inference.preset) == has(oldObject.inference.preset)
      && (!has(object.inference.preset) || object.inference.preset == oldObject.inference.preset)"
    message: "preset: field is immutable"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: kaito-immutable}
spec: {policyName: kaito-immutable, validationActions: [Deny]}
"""


def install(cluster: RealCluster) -> None:
    """The definitions of Workspace and InferenceSet, and the rules of the webhook."""
    for kind in ("Workspace", "InferenceSet"):
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(definition(kind)))
    names = ("crd/workspaces.kaito.sh", "crd/inferencesets.kaito.sh")
    cluster.kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
    cluster.kubectl("apply", "-f", "-", stdin=WEBHOOK)


@dataclass
class Kaito:
    """Looks at one namespace every third of a second, as the controllers would be told of changes."""

    cluster: RealCluster
    namespace: str
    image: str  # of the tiny engine
    no_instances: bool = False  # the cloud has none left
    unavailable: str = ""  # of this preset's instance type the cloud has none left
    events: list[tuple[str, str]] = field(
        default_factory=list
    )  # ("made", "qwen-1a2b"), ("gone", …), in their order
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        api = config.new_client_from_config(str(self.cluster.kubeconfig))
        self.custom: Any = client.CustomObjectsApi(api)  # Any: objects of the API, in the client's own types
        self.apps: Any = client.AppsV1Api(api)
        self.core: Any = client.CoreV1Api(api)

    def run(self) -> None:
        while not self.stopping.wait(LOOK_S):
            with contextlib.suppress(client.ApiException):  # somebody was faster: look again
                for one in self._list("inferencesets"):
                    self._set(one)
                for one in self._list("workspaces"):
                    self._workspace(one)

    def _workspace(self, one: Object) -> None:
        name = one["metadata"]["name"]
        if "deletionTimestamp" in one["metadata"]:
            if ("gone", name) not in self.events[-1:]:
                self.events.append(("gone", name))
            kept = [each for each in one["metadata"].get("finalizers") or () if each != FINALIZER]
            self._patch("workspaces", name, {"metadata": {"finalizers": kept}})
            return
        if FINALIZER not in (one["metadata"].get("finalizers") or ()):
            marks = {"workspace.kaito.io/hash": "0" * 64, "workspace.kaito.io/revision": "1"}
            self._patch("workspaces", name, {"metadata": {"finalizers": [FINALIZER], "annotations": marks}})
        preset = (one["inference"].get("preset") or {}).get("name")
        if self.no_instances or (self.unavailable and self.unavailable == preset):
            why = "nodeClaim ws1 failed: all requested instance types were unavailable during launch"
            self._tell(
                one, "Pending", NodeClaimReady=why, ResourceReady="not ready", WorkspaceSucceeded="pending"
            )
            return
        found = [
            s for s in self.apps.list_namespaced_stateful_set(self.namespace).items if s.metadata.name == name
        ]
        if not found:
            self.apps.create_namespaced_stateful_set(self.namespace, self._stateful_set(one))
            self.events.append(("made", name))
            self._tell(
                one, "Pending", InferenceReady="Inference workload is not ready", WorkspaceSucceeded="pending"
            )
        elif (found[0].status.ready_replicas or 0) >= 1:
            self._tell(one, "Ready")

    def _stateful_set(self, one: Object) -> Object:
        name, inference = one["metadata"]["name"], one["inference"]
        labels = {WORKSPACE: name}
        if (made_by := (one["metadata"].get("labels") or {}).get(SET)) is not None:
            labels[SET] = made_by
        template = inference.get("template") or self._preset(inference["config"])
        template["metadata"]["labels"] |= labels
        nodes = one["resource"]["labelSelector"]["matchLabels"]
        terms = [{"key": key, "operator": "In", "values": [value]} for key, value in nodes.items()]
        required = {"nodeSelectorTerms": [{"matchExpressions": terms}]}
        template["spec"]["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
        }
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template, "serviceName": name}
        return {"metadata": {"name": name, "ownerReferences": [_owner(one)]}, "spec": spec}

    def _preset(self, config_map: str) -> Object:
        """What KAITO's image does with its settings, as far as a request shows it: the name that is served."""
        data = self.core.read_namespaced_config_map(config_map, self.namespace).data
        settings = yaml.safe_load(data["inference_config.yaml"])["vllm"]
        launch = {
            "model": "/tmp",
            "served_name": settings["served-model-name"],
            "host": "0.0.0.0",
            "port": PORT,
            "argv": [],
            "env": {},
            "secrets": {},
        }
        said = f"echo the preset of {settings['revision']} > /tmp/answer.txt && exec python3 /opt/mp/serve.py"
        container = {
            "name": "inference",
            "image": self.image,
            "command": ["sh", "-c", said],
            "env": [{"name": "MP_LAUNCH", "value": json.dumps(launch)}],
            "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1},
        }
        return {
            "metadata": {"labels": {}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
        }

    def _set(self, one: Object) -> None:
        if "deletionTimestamp" in one["metadata"]:  # its Workspaces follow
            return
        name, wanted = one["metadata"]["name"], one["spec"].get("replicas", 1)
        own = [w for w in self._list("workspaces") if (w["metadata"].get("labels") or {}).get(SET) == name]
        staying = [w for w in own if "deletionTimestamp" not in w["metadata"]]
        for extra in staying[wanted:]:
            self.custom.delete_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "workspaces", extra["metadata"]["name"]
            )
        template = one["spec"]["template"]
        for _ in range(wanted - len(staying)):
            metadata = {"generateName": f"{name}-", "labels": {SET: name}, "ownerReferences": [_owner(one)]}
            resource = {**template.get("resource", {}), "labelSelector": one["spec"]["labelSelector"]}
            body = {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": "Workspace",
                "metadata": metadata,
                "resource": resource,
                "inference": template["inference"],
            }
            self.custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, "workspaces", body)
        ready = sum((w.get("status") or {}).get("state") == "Ready" for w in staying[:wanted])
        status = {"replicas": wanted, "readyReplicas": ready}
        if one.get("status") != status:
            self._patch("inferencesets", name, {"status": status}, status=True)

    def _tell(self, one: Object, state: str, **unmet: str) -> None:
        """The conditions; `unmet` are those that are False, with a message."""
        types = ("NodeClaimReady", "NodesReady", "ResourceReady", "InferenceReady", "WorkspaceSucceeded")
        conditions: list[Object] = [
            {
                "type": each,
                "status": "False" if each in unmet else "True",
                "reason": f"{each}Pending" if each in unmet else "Done",
                "message": unmet.get(each, ""),
                "lastTransitionTime": "2026-08-21T00:00:00Z",
                "observedGeneration": one["metadata"]["generation"],
            }
            for each in types
        ]
        if (one.get("status") or {}).get("conditions") != conditions:
            body = {"status": {"state": state, "conditions": conditions}}
            self._patch("workspaces", one["metadata"]["name"], body, status=True)

    def _list(self, plural: str) -> list[Object]:
        found: list[Object] = self.custom.list_namespaced_custom_object(
            GROUP, VERSION, self.namespace, plural
        )["items"]
        return found

    def _patch(self, plural: str, name: str, body: Object, *, status: bool = False) -> None:
        call = (
            self.custom.patch_namespaced_custom_object_status
            if status
            else self.custom.patch_namespaced_custom_object
        )
        call(GROUP, VERSION, self.namespace, plural, name, body)


def _owner(one: Object) -> Object:
    metadata = one["metadata"]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": one["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


@contextlib.contextmanager
def playing(cluster: RealCluster, namespace: str, image: str) -> Iterator[Kaito]:
    kaito = Kaito(cluster, namespace, image)
    thread = threading.Thread(target=kaito.run, daemon=True)
    thread.start()
    try:
        yield kaito
    finally:
        kaito.stopping.set()
        thread.join(timeout=30)
