"""The connection to one registry's host: pooled HTTP, retries, redirects, Basic and Bearer. Used by clients/registry."""

import contextlib
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from pipeline.clients.credentials import basic_credentials
from pipeline.clients.loopback import is_loopback
from pipeline.core.errors import Denied, Unreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TRIES = 3
_REDIRECTS = 5
_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 300  # a registry hashes and moves a whole layer before it answers the last request
_PASSING = (429, 500, 502, 503, 504)  # statuses that another try may not see again
_HUB_API = "registry-1.docker.io"
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')

Body: TypeAlias = bytes | Iterator[bytes] | None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


class Connection:
    """One host. Safe for threads: the worst of a race is a token asked for twice."""

    def __init__(
        self,
        host: str,
        environ: Mapping[str, str],
        *,
        insecure: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = host
        self._environ = environ
        self._sleep = sleep
        self.lists = threading.Lock()  # held while a list that several threads add to is read and written
        scheme = "http" if insecure or is_loopback(host) else "https"
        self._base = f"{scheme}://{_HUB_API if host == 'docker.io' else host}"
        self._authorizations: dict[str, str] = {}  # scope → value of the header
        self._pool = urllib3.PoolManager(
            maxsize=32,
            blocksize=2**20,  # the default sends at half the speed
            retries=False,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=_READ_TIMEOUT_S),
            headers={"User-Agent": "mp"},
        )

    def pause(self, attempt: int) -> None:
        self._sleep(0.5 * 2 ** (attempt - 1))

    def request(
        self, method: str, url: str, *, scope: str, headers: Mapping[str, str] | None = None, body: Body = b""
    ) -> Answer:
        """One answer, whatever its status. A body of bytes is sent again on failures that pass, a stream is not.

        Raises Unreachable, Denied (401 and 403).
        """
        tries = _TRIES if isinstance(body, bytes) else 1
        for attempt in range(1, tries + 1):
            try:
                response = self._follow(method, url, scope, dict(headers or {}), body)
                with self._mapped():
                    answer = Answer(response.status, _lower(response), response.data)
                if answer.status not in _PASSING:
                    return answer
                raise Unreachable(
                    self.host, f"answers {answer.status}: {reason(answer.body)}", "try again later"
                )
            except Unreachable:
                if attempt == tries:
                    raise
                self.pause(attempt)
        raise AssertionError("the last try returns or raises")

    @contextlib.contextmanager
    def opened(self, url: str, scope: str, start: int = 0) -> Iterator[tuple[int, io.BufferedReader]]:
        """A body as a stream; with status 206 it begins at `start`, with 200 at its first byte."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        response = self._follow("GET", url, scope, headers, b"")
        try:
            if response.status == 206 and not _begins_at(response, start):
                raise Unreachable(self.host, "sends other bytes than were asked for", "try again later")
            yield response.status, io.BufferedReader(_Stream(response, self._mapped), 2**20)
        finally:
            response.close()  # what was not read must not be taken for the next answer
            response.release_conn()

    def _follow(
        self, method: str, url: str, scope: str, headers: dict[str, str], body: Body
    ) -> urllib3.BaseHTTPResponse:
        """Authorize where asked, and go where a redirect of a read leads."""
        target = urljoin(self._base, url)
        for _ in range(_REDIRECTS):
            response = self._authorized(method, target, scope, headers, body)
            if response.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return response
            response.drain_conn()
            target = urljoin(target, response.headers["location"])
        raise Unreachable(self.host, "redirects in circles")

    def _authorized(
        self, method: str, target: str, scope: str, headers: dict[str, str], body: Body
    ) -> urllib3.BaseHTTPResponse:
        if (
            urlsplit(target).netloc != urlsplit(self._base).netloc
        ):  # a storage service: our rights are not its
            return self._send(method, target, headers, body)
        known = self._authorizations.get(scope)
        response = self._send(method, target, {**headers, **_authorization(known)}, body)
        if response.status == 401:
            response.drain_conn()
            self._authorizations.pop(scope, None)
            if body is not None and not isinstance(body, bytes):
                raise Unreachable(self.host, "the session ended before an upload began")
            fresh = self._authorize(response.headers.get("www-authenticate", ""), scope)
            if fresh == known:
                raise self._denied(scope)
            self._authorizations[scope] = fresh
            response = self._send(method, target, {**headers, **_authorization(fresh)}, body)
        if response.status in (401, 403):
            raise self._denied(scope)
        return response

    def _authorize(self, challenge: str, scope: str) -> str:
        """The Authorization header that the registry asks for."""
        credentials = basic_credentials(self.host, self._environ)
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            token = self._token(dict(_PARAMETER.findall(rest)), scope, credentials)
            return f"Bearer {token}"
        if kind.lower() == "basic" and credentials:
            return f"Basic {credentials}"
        raise self._denied(scope)

    def _token(self, challenge: Mapping[str, str], scope: str, credentials: str | None) -> str:
        realm = urljoin(self._base, challenge.get("realm", ""))
        query = [("service", challenge["service"])] if "service" in challenge else []
        query += [("scope", one) for one in (scope or challenge.get("scope", "")).split()]
        parts = urlsplit(realm)
        if credentials and parts.scheme != "https" and self._base.startswith("https"):
            raise Denied(self.host, "asks for the password over an unencrypted connection")
        headers = {"Authorization": f"Basic {credentials}"} if credentials else {}
        response = self._send("GET", f"{realm}{'&' if parts.query else '?'}{urlencode(query)}", headers, b"")
        with self._mapped():
            answer = Answer(response.status, {}, response.data)
        if answer.status in (401, 403):
            raise self._denied(scope)
        try:
            found = json.loads(answer.body)
            return _header_word(str(found.get("token") or found["access_token"]))
        except (ValueError, KeyError, AttributeError) as problem:
            raise Unreachable(self.host, f"gave no token ({answer.status})", "try again later") from problem

    def _denied(self, scope: str) -> Denied:
        what = scope.split()[0] if scope else "this registry"
        return Denied(self.host, f"access to {what} denied", f"docker login {self.host}")

    def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> urllib3.BaseHTTPResponse:
        with self._mapped():
            return self._pool.request(
                method,
                target,
                headers=dict(headers),
                body=body or None,
                preload_content=False,
                redirect=False,
            )

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except HTTPError as problem:
            hint = "is it running and reachable from here?"
            raise Unreachable(self.host, _words(problem), hint) from problem


class _Stream(io.RawIOBase):
    """A response's body as a file whose errors are ours."""

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        mapped: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._response = response
        self._mapped = mapped

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        with self._mapped():
            block = self._response.read(len(view))
        view[: len(block)] = block
        return len(block)


def _begins_at(response: urllib3.BaseHTTPResponse, start: int) -> bool:
    return response.headers.get("content-range", "").startswith(f"bytes {start}-")


def _authorization(value: str | None) -> dict[str, str]:
    return {"Authorization": value} if value else {}


def _header_word(token: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise ValueError("a header cannot hold it")  # http.client would, repeating it
    return token


def _lower(response: urllib3.BaseHTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def reason(body: bytes) -> str:
    """The registry's own words, where it has any."""
    try:
        return str(json.loads(body)["errors"][0].get("message") or "no reason given")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "no reason given"


def _words(problem: HTTPError) -> str:
    """What went wrong, without addresses of objects."""
    match problem:
        case NameResolutionError():
            return "its name cannot be resolved"
        case NewConnectionError():  # before its parent
            return "connection refused" if "refused" in str(problem) else "cannot be connected to"
        case ConnectTimeoutError():
            return f"no connection within {_CONNECT_TIMEOUT_S} s"
        case ReadTimeoutError():
            return f"no answer within {_READ_TIMEOUT_S} s"
        case SSLError():
            return f"its certificate is not accepted: {problem}"
        case ProtocolError():
            return "the connection broke"
        case _:
            return str(problem)
