"""The line to one Kubernetes API server: the login, requests, and what its statuses mean. Used by clients/kube.

A server that is busy is asked again after the time that it says, as client-go does (k8s.io/client-go v0.36, rest/with_retry.go:
429 and 5xx with a Retry-After header, ten times): every request of ours may be sent twice.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode, urlsplit

from pipeline.clients.http import Busy, wait_of
from pipeline.core.digest import fingerprint
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Refused, Unreachable

if TYPE_CHECKING:
    import urllib3
    from kubernetes.client import ApiClient

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
BUSY = (429, 502, 503, 504)  # 500 is also what a field that no schema has comes to
TRIES = 10
LONGEST_WAIT_S = 30.0  # a server that asks for more is as good as away
APPLY = "application/apply-patch+yaml"

Object: TypeAlias = dict[str, Any]  # Any: an object of the API, as its schema has it


class Conflict(Refused):
    """Other field managers own what would be changed; nothing was. `held` says who has which field."""

    def __init__(self, message: str, hint: str | None, held: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint)
        self.held = tuple(held)  # (manager, field): ("kubectl-edit", ".spec.replicas")


class Expired(Unreachable):
    """The pages of a list that were not read yet are gone (410): it has to begin again."""


class Line:
    """Threads may share it; nothing is asked before the first call."""

    def __init__(
        self, context: str | None, environ: Mapping[str, str], pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._context = context
        self._environ = environ
        self._pause = pause
        self._guard = threading.Lock()
        self._client: ApiClient | None = None

    @property
    def system(self) -> str:
        """For messages: "kubernetes prod"."""
        return f"kubernetes {self._context or 'of the current context'}"

    def client(self) -> "ApiClient":
        with self._guard:
            if self._client is None:
                self._client = self._opened()
            return self._client

    def authority(self) -> str:
        """A hash of the certificates that the server is trusted by, and of the path on it; of its URL where there are none.

        The host is left out: one server has several. A gateway has many clusters behind one certificate, each at a path.
        """
        settings = self.client().configuration
        trusted = None
        if settings.ssl_ca_cert:
            with contextlib.suppress(OSError):
                trusted = Path(settings.ssl_ca_cert).read_text("utf-8", "replace").split()
        return fingerprint([trusted, urlsplit(settings.host).path] if trusted else settings.host)

    def document(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
    ) -> Object:
        """The answer as JSON. Raises Denied, Missing, Conflict, Expired, Unreachable, BackendError."""
        answer = self.call(method, path, query, body)
        try:
            document = json.loads(answer)
        except ValueError as problem:
            raise Corrupt(
                self.system, f"{method} {path} gave no JSON", "is it a Kubernetes API?"
            ) from problem
        if not isinstance(document, dict):
            raise Corrupt(self.system, f"{method} {path} gave no object", "is it a Kubernetes API?")
        return document

    def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: object = None
    ) -> bytes:
        """The answer as it is. `body` is sent as JSON, which is YAML too."""
        content = None if body is None else json.dumps(body).encode()
        for left in reversed(range(TRIES)):
            try:
                return self._once(method, path, query or {}, content)
            except Busy as problem:
                if not left or problem.wait_s is None or problem.wait_s > LONGEST_WAIT_S:
                    raise
                self._pause(problem.wait_s)
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, query: Mapping[str, str], content: bytes | None) -> bytes:
        response = self._send(method, path, query, content)
        if response.status in (200, 201, 202):
            return bytes(response.data)
        raise self._problem(response, method, path)

    def _send(
        self, method: str, path: str, query: Mapping[str, str], content: bytes | None
    ) -> "urllib3.BaseHTTPResponse":
        import urllib3

        client = self.client()
        headers = {"Accept": "application/json", "User-Agent": "mp"}
        if content is not None:
            headers["Content-Type"] = APPLY if method == "PATCH" else "application/json"
        for one in client.configuration.auth_settings().values():
            if one.get("in") == "header" and one.get("value"):
                headers[one["key"]] = one["value"]
        url = f"{client.configuration.host}{path}{'?' + urlencode(query) if query else ''}"
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        try:
            answer: urllib3.BaseHTTPResponse = client.rest_client.pool_manager.request(
                method, url, body=content, headers=headers, timeout=timeout, retries=False
            )
        except urllib3.exceptions.HTTPError as problem:
            from pipeline.clients.broken import words

            hint = "is the API server reachable from here? kubectl cluster-info asks it too"
            raise Unreachable(self.system, words(problem), hint) from problem
        return answer

    def _problem(self, response: "urllib3.BaseHTTPResponse", method: str, path: str) -> Exception:
        """What a status means."""
        status, body = response.status, bytes(response.data)
        said = _message(body) or f"status {status} for {method} {path}"
        wait_s = wait_of(response.headers)
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
            case 410:
                return Expired(self.system, said, "run it again")
            case _ if status == 429 or (status >= 500 and wait_s is not None):
                return Busy(self.system, said, wait_s)
            case _ if status in BUSY:
                return Unreachable(self.system, said, "run it again later")
            case _:
                return BackendError(self.system, said)

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
        home = Path(self._environ.get("HOME", "~")).expanduser()
        return "KUBECONFIG" in self._environ or (home / ".kube" / "config").exists()


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
