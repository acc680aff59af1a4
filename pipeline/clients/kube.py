"""A Kubernetes API server: objects as plain JSON, listed, applied by server-side apply and deleted. Used by resources/cluster.

Where the server is and who asks come from the kubeconfig by the official client (exec plugins and certificates included),
or from the pod that mp runs in. Paths and verbs are those of the API concepts page of Kubernetes 1.36.
"""

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, urlencode

from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Refused, Unreachable

if TYPE_CHECKING:
    import urllib3
    from kubernetes.client import ApiClient

MANAGER = "mp"  # the field manager of everything that we apply
PAGE = 500  # objects of one list request, as kubectl asks for them
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
BUSY = (429, 502, 503, 504)  # 500 is also what a field that no schema has comes to

Object: TypeAlias = dict[str, Any]  # Any: an object of the API, as its schema has it


@dataclass(frozen=True)
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
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, CONFIG_MAP, DISRUPTION_BUDGET)
}


class Conflict(Refused):
    """Other field managers own what would be changed; nothing was. `held` says who has which field."""

    def __init__(self, message: str, hint: str | None, held: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint)
        self.held = tuple(held)  # (manager, field): ("kubectl-edit", ".spec.replicas")


class Cluster:
    """One API server. Threads may share it; nothing is asked before the first call."""

    def __init__(self, context: str | None, environ: Mapping[str, str]) -> None:
        self._context = context
        self._environ = environ
        self._guard = threading.Lock()
        self._client: ApiClient | None = None

    @property
    def system(self) -> str:
        """For messages: "kubernetes prod"."""
        return f"kubernetes {self._context or 'of the current context'}"

    def version(self) -> tuple[int, int]:
        """Of the server: (1, 36)."""
        found = self._document("GET", "/version")
        return int(found["major"]), int(str(found["minor"]).rstrip("+"))

    def list(self, kind: Kind, namespace: str, selector: str = "", fields: str = "") -> tuple[Object, ...]:
        """Every object of a kind in a namespace, a page a request. Raises Denied, Unreachable."""
        found: list[Object] = []
        query = {"limit": str(PAGE), "labelSelector": selector, "fieldSelector": fields}
        while True:
            page = self._document("GET", _path(kind, namespace), {k: v for k, v in query.items() if v})
            found += ({"apiVersion": kind.api, "kind": kind.name, **item} for item in page.get("items") or ())
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return tuple(found)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            return self._document("GET", _path(kind, namespace, name))
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
        body = json.dumps(wanted).encode()
        return self._document(
            "PATCH", _path(kind, namespace, name), query, body, "application/apply-patch+yaml"
        )

    def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete exactly the object with this uid; one that is gone is gone. Its dependants follow."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Foreground"}
        with contextlib.suppress(Missing):
            self._document("DELETE", _path(kind, namespace, name), body=json.dumps(options).encode())

    def may(self, verb: str, kind: Kind, namespace: str) -> bool:
        """Whether we may do that: the server's own answer (SelfSubjectAccessReview)."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "verb": verb,
                    "group": kind.group,
                    "resource": kind.plural,
                    "namespace": namespace,
                }
            },
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        found = self._document("POST", path, body=json.dumps(review).encode())
        return bool(found.get("status", {}).get("allowed"))

    def log(self, namespace: str, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """The last lines that a container wrote; "" where there are none."""
        query = {
            "container": container,
            "tailLines": str(lines),
            **({"previous": "true"} if previous else {}),
        }
        try:
            return self._call("GET", f"{_path(POD, namespace, pod)}/log", query).decode(errors="replace")
        except BackendError:
            return ""

    def client(self) -> "ApiClient":
        """The official client, for what needs more than requests: port-forwards."""
        with self._guard:
            if self._client is None:
                self._client = self._opened()
            return self._client

    def _opened(self) -> "ApiClient":
        from kubernetes import config
        from kubernetes.client import ApiClient, Configuration

        settings = Configuration()
        settings.retries = False
        try:
            if self._context is None and "KUBERNETES_SERVICE_HOST" in self._environ and not self._has_file():
                config.load_incluster_config(client_configuration=settings)
            else:
                config.load_kube_config(
                    self._environ.get("KUBECONFIG"), context=self._context, client_configuration=settings
                )
        except (config.ConfigException, OSError, ValueError, TypeError) as problem:
            text = f"its kubeconfig cannot be used: {problem}"
            hint = "kubectl config get-contexts shows what there is; KUBECONFIG names another file"
            raise BackendError(self.system, text, hint) from problem
        return ApiClient(settings)

    def _has_file(self) -> bool:
        from pathlib import Path

        home = Path(self._environ.get("HOME", "~")).expanduser()
        return "KUBECONFIG" in self._environ or (home / ".kube" / "config").exists()

    def _document(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = self._call(method, path, query, body, content_type)
        try:
            document = json.loads(answer)
        except ValueError as problem:
            raise Corrupt(
                self.system, f"{method} {path} gave no JSON", "is it a Kubernetes API?"
            ) from problem
        if not isinstance(document, dict):
            raise Corrupt(self.system, f"{method} {path} gave no object", "is it a Kubernetes API?")
        return document

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        response = self._send(method, path, query or {}, body, content_type)
        if response.status in (200, 201, 202):
            return bytes(response.data)
        raise self._problem(response.status, method, path, bytes(response.data))

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str
    ) -> "urllib3.BaseHTTPResponse":
        import urllib3

        client = self.client()
        headers = {"Accept": "application/json", "User-Agent": "mp"}
        if body is not None:
            headers["Content-Type"] = content_type
        for one in client.configuration.auth_settings().values():
            if one.get("in") == "header" and one.get("value"):
                headers[one["key"]] = one["value"]
        url = f"{client.configuration.host}{path}{'?' + urlencode(query) if query else ''}"
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        try:
            answer: urllib3.BaseHTTPResponse = client.rest_client.pool_manager.request(
                method, url, body=body, headers=headers, timeout=timeout, retries=False
            )
        except urllib3.exceptions.HTTPError as problem:
            hint = "is the API server reachable from here? kubectl cluster-info asks it too"
            raise Unreachable(self.system, _words(problem), hint) from problem
        return answer

    def _problem(self, status: int, method: str, path: str, body: bytes) -> Exception:
        """What a status means."""
        said = _message(body) or f"status {status} for {method} {path}"
        match status:
            case 401:
                return Denied(
                    self.system, f"does not know who asks: {said}", "the login has ended: log in again"
                )
            case 403:
                return Denied(self.system, said, "ask for the role that allows it")
            case 404:
                hint = "kubectl create namespace makes it" if said.startswith("namespaces ") else None
                return Missing(self.system, said, hint)
            case 409 if method == "PATCH":
                hint = "agree with whoever manages that field, or leave it out here"
                return Conflict(f"{self.system}: {said}", hint, _held(body))
            case _ if status in BUSY:
                return Unreachable(self.system, said, "run it again later")
            case _:
                return BackendError(self.system, said)


def address_of(wanted: Mapping[str, Json]) -> tuple[Kind, str, str]:
    """Kind, namespace and name of an object as it is written."""
    metadata = wanted["metadata"]
    assert isinstance(metadata, dict), "an object has metadata"
    return KINDS[str(wanted["kind"])], str(metadata["namespace"]), str(metadata["name"])


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    root = f"/apis/{kind.api}" if "/" in kind.api else f"/api/{kind.api}"
    tail = f"/{quote(name)}" if name else ""
    return f"{root}/namespaces/{quote(namespace)}/{kind.plural}{tail}"


def _message(body: bytes) -> str:
    """The server's own words (a Status object)."""
    try:
        return str(json.loads(body).get("message") or "")
    except (ValueError, AttributeError):
        return ""


def _held(body: bytes) -> list[tuple[str, str]]:
    """Who has which field: the causes of the server's answer, 'conflict with "kubectl-edit" using apps/v1'."""
    causes = (json.loads(body).get("details") or {}).get("causes") or ()
    conflicts = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    return [(_quoted(str(cause.get("message"))), str(cause.get("field"))) for cause in conflicts]


def _quoted(text: str) -> str:
    return text.split('"')[1] if text.count('"') > 1 else text


def _words(problem: Exception) -> str:
    import urllib3

    match problem:
        case urllib3.exceptions.NameResolutionError():
            return "its name does not resolve"
        case urllib3.exceptions.NewConnectionError():
            return "connection refused"  # it is a kind of ConnectTimeoutError
        case urllib3.exceptions.ConnectTimeoutError():
            return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
        case urllib3.exceptions.ReadTimeoutError():
            return f"no answer within {READ_TIMEOUT_S:.0f} s"
        case urllib3.exceptions.SSLError():
            return f"TLS failed: {problem}"
        case _:
            return "the connection broke"


@contextlib.contextmanager
def forwarded(cluster: Cluster, namespace: str, pod: str, port: int) -> Iterator[str]:
    """A pod's port as an address of this machine for as long as the block runs: "http://127.0.0.1:40123"."""
    from pipeline.clients.forward import Forward

    with Forward(cluster.client(), namespace, pod, port) as address:
        yield address


def names(objects: Sequence[Mapping[str, Json]]) -> tuple[str, ...]:
    """ "Deployment/qwen" of each object: how a state and messages call it."""
    return tuple(f"{one['kind']}/{address_of(one)[2]}" for one in objects)
