"""A Kubernetes API server: objects as plain JSON, listed, applied by server-side apply and deleted. Used by resources/cluster.

Where the server is and who asks come from the kubeconfig by the official client (exec plugins and certificates included),
or from the pod that mp runs in. Paths and verbs are those of the API concepts page of Kubernetes 1.36.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from pipeline.clients.kuberules import Rules, rules_of
from pipeline.clients.kubewire import Conflict, Expired, Line, Object
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Denied, Missing
from pipeline.core.frozen import frozen
from pipeline.core.resource import Identity

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

__all__ = ["Conflict", "Object"]  # of kubewire, for whoever uses a Cluster

MANAGER = "mp"  # the field manager of everything that we apply
PAGE = 500  # objects of one list request, as kubectl asks for them
LISTINGS = 5  # how often a list is begun when its pages expire: the server keeps them for five minutes


@frozen
class Kind:
    """One kind of object, as paths and bodies name it."""

    api: str  # "apps/v1", "v1"
    name: str  # "Deployment"
    plural: str  # "deployments"

    @property
    def group(self) -> str:
        """As access reviews name it: "apps", "" of the core."""
        return self.api.rpartition("/")[0]


DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
POD = Kind("v1", "Pod", "pods")
NODE = Kind("v1", "Node", "nodes")
NAMESPACE = Kind("v1", "Namespace", "namespaces")
RESOURCE_QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMIT_RANGE = Kind("v1", "LimitRange", "limitranges")
EVENT = Kind("v1", "Event", "events")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
JOB = Kind("batch/v1", "Job", "jobs")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
LEADER_WORKER_SET = Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
WORKSPACE = Kind("kaito.sh/v1beta1", "Workspace", "workspaces")
INFERENCE_SET = Kind("kaito.sh/v1beta1", "InferenceSet", "inferencesets")
# Kinds that any deployment may have: always listed. The others are where one of ours has them.
USUAL = (DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, CONFIG_MAP, DISRUPTION_BUDGET)
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *USUAL,
        CLAIM,
        JOB,
        STATEFUL_SET,
        LEADER_WORKER_SET,
        AUTOSCALER,
        SCALED_OBJECT,
        WORKSPACE,
        INFERENCE_SET,
    )
}


class Cluster:
    """One API server. Threads may share it; nothing is asked before the first call."""

    def __init__(self, context: str | None, environ: Mapping[str, str]) -> None:
        self._line = Line(context, environ)
        self._guard = threading.Lock()
        self._identity: Identity | None = None

    @property
    def system(self) -> str:
        """For messages: "kubernetes prod"."""
        return self._line.system

    def identity(self) -> Identity:
        """Which cluster this is, asked once: the uid of its namespace kube-system, which lives as long as the cluster.

        An account that may not read it has what its connection trusts alone. Raises Unreachable.
        """
        with self._guard:
            if self._identity is None:
                self._identity = Identity(self.system, self._uid(), self._line.authority())
            return self._identity

    def _uid(self) -> str:
        try:
            found = self.get(NAMESPACE, "", "kube-system")
        except Denied:
            return ""
        return str(found["metadata"]["uid"]) if found else ""

    def version(self) -> tuple[int, int]:
        """Of the server: (1, 36)."""
        found = self._line.document("GET", "/version")
        return int(found["major"]), int(str(found["minor"]).rstrip("+"))

    def list(self, kind: Kind, namespace: str, selector: str = "", fields: str = "") -> tuple[Object, ...]:
        """Every object of a kind in a namespace ("" for all), a page a request. Raises Denied, Unreachable.

        When pages expire before they are read, it begins anew: half of a list would be objects that are missing.
        """
        for _ in range(LISTINGS - 1):
            with contextlib.suppress(Expired):
                return self._listed(kind, namespace, selector, fields)
        return self._listed(kind, namespace, selector, fields)

    def _listed(self, kind: Kind, namespace: str, selector: str, fields: str) -> tuple[Object, ...]:
        found: list[Object] = []
        query = {"limit": str(PAGE), "labelSelector": selector, "fieldSelector": fields}
        while True:
            page = self._line.document("GET", _path(kind, namespace), {k: v for k, v in query.items() if v})
            found += ({"apiVersion": kind.api, "kind": kind.name, **item} for item in page.get("items") or ())
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return tuple(found)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return self._line.document("GET", _path(kind, namespace, name))
        except Missing:
            return None

    def apply(self, wanted: Mapping[str, Json], *, dry_run: bool = False, force: bool = False) -> Object:
        """Server-side apply of the fields that are written, and of no others; what the object is afterwards.

        Raises Conflict when another manager owns one of them; `force` takes them all.
        """
        kind, namespace, name = address_of(wanted)
        query = {
            "fieldManager": MANAGER,
            "fieldValidation": "Strict",
            **({"dryRun": "All"} if dry_run else {}),
            **({"force": "true"} if force else {}),
        }
        return self._line.document("PATCH", _path(kind, namespace, name), query, wanted)

    def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly the object with this uid; one that is gone is gone. Its dependants follow."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Foreground"}
        with contextlib.suppress(Missing):
            self._line.document("DELETE", _path(kind, namespace, name), body=options)

    def may(self, verb: str, kind: Kind, namespace: str, subresource: str = "") -> bool:
        """Whether we may do that: the server's own answer (SelfSubjectAccessReview)."""
        what = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": namespace}
        found = self._reviewed(
            "SelfSubjectAccessReview", {"resourceAttributes": {**what, "subresource": subresource}}
        )
        return bool(found.get("allowed"))

    def rules(self, namespace: str) -> Rules:
        """Everything that we may do in a namespace, in one answer (SelfSubjectRulesReview)."""
        return rules_of(self._reviewed("SelfSubjectRulesReview", {"namespace": namespace}))

    def served(self, api: str) -> frozenset[str]:
        """Kinds of an API that the server has, of "leaderworkerset.x-k8s.io/v1"; none where it does not know the API."""
        try:
            found = self._line.document("GET", f"/apis/{api}" if "/" in api else f"/api/{api}")
        except Missing:
            return frozenset()
        return frozenset(str(one["kind"]) for one in found.get("resources") or ())

    def groups(self) -> frozenset[str]:
        """Names of the API groups that the server has: "karpenter.sh"."""
        return frozenset(str(one["name"]) for one in self._line.document("GET", "/apis").get("groups") or ())

    def rehearse(self, kind: Kind, namespace: str, wanted: Mapping[str, Json]) -> None:
        """Create an object without keeping it: admission says what it says. Raises Denied with its words."""
        query = {"dryRun": "All", "fieldManager": MANAGER}
        self._line.document("POST", _path(kind, namespace), query, wanted)

    def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """The last lines that a container wrote; "" where there are none."""
        query = {
            "container": container,
            "tailLines": str(lines),
            **({"previous": "true"} if previous else {}),
        }
        try:
            return self._line.call("GET", f"{_path(POD, namespace, pod)}/log", query).decode(errors="replace")
        except BackendError:
            return ""

    def _reviewed(self, review: str, spec: Mapping[str, Json]) -> Object:
        api = "authorization.k8s.io/v1"
        body = {"apiVersion": api, "kind": review, "spec": spec}
        found = self._line.document("POST", f"/apis/{api}/{review.lower()}s", body=body)
        return dict(found.get("status") or {})

    def client(self) -> "ApiClient":
        """The official client, for what needs more than requests: port-forwards."""
        return self._line.client()


def address_of(wanted: Mapping[str, Json]) -> tuple[Kind, str, str]:
    """Kind, namespace and name of an object as it is written."""
    metadata = wanted["metadata"]
    assert isinstance(metadata, dict), "an object has metadata"
    return KINDS[str(wanted["kind"])], str(metadata["namespace"]), str(metadata["name"])


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    root = f"/apis/{kind.api}" if "/" in kind.api else f"/api/{kind.api}"
    tail = f"/{quote(name)}" if name else ""
    inside = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"{root}{inside}/{kind.plural}{tail}"


@contextlib.contextmanager
def forwarded(cluster: Cluster, namespace: str, pod: str, port: int) -> Iterator[str]:
    """A pod's port as an address of this machine for as long as the block runs: "http://127.0.0.1:40123"."""
    from pipeline.clients.forward import Forward

    with Forward(cluster.client(), namespace, pod, port) as address:
        yield address


def names(objects: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """ "Deployment/qwen" of each object: how a state and messages call it."""
    return tuple(f"{one['kind']}/{address_of(one)[2]}" for one in objects)
