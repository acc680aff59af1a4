"""The connection to one registry's host: pooled HTTP, retries, redirects, Basic and Bearer. Used by clients/registry."""

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from pipeline.clients.broken import words
from pipeline.clients.http import Busy, wait_after, wait_of
from pipeline.clients.loopback import is_loopback
from pipeline.clients.oci.pools import Pools
from pipeline.clients.oci.tokens import Tokens
from pipeline.core.errors import BackendError, Corrupt, Exhausted, Missing, Unreachable
from pipeline.core.frozen import frozen

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TRIES = 3
_CONNECT_TIMEOUT_S = 10
_WRITE_TIMEOUT_S = 300  # a registry hashes and moves a whole layer before it answers the last request
_REDIRECTS = 5
_PASSING = (429, 500, 502, 503, 504)  # statuses that another try may not see again
_HUB_API = "registry-1.docker.io"

Body: TypeAlias = bytes | Iterator[bytes] | None


@frozen
class Answer:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


class Connection:
    """One host. Safe for threads."""

    def __init__(
        self,
        host: str,
        environ: Mapping[str, str],
        *,
        insecure: bool = False,
        ca: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        stall_timeout_s: float = 60.0,
    ) -> None:
        self.host = host
        self._stall_timeout_s = stall_timeout_s
        self._sleep = sleep
        plain = insecure or (is_loopback(host) and ca is None)  # an authority is for HTTPS alone
        scheme = "http" if plain else "https"
        self._base = f"{scheme}://{_HUB_API if host == 'docker.io' else host}"
        self._pools = Pools(host, environ, ca)
        self._tokens = Tokens(host, self._base, environ, self._plain)
        self.lists = threading.Lock()  # held while a list that several threads add to is read and written
        self.patches = True  # False once the registry, or a proxy before it, took no PATCH

    def pause(self, failures: int, problem: Unreachable) -> None:
        """Wait before another try. Raises the problem when a busy registry asks for too long."""
        self._sleep(wait_after(failures, problem))

    def request(
        self,
        method: str,
        url: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """One answer, whatever its status; asked again on failures that pass. Raises Unreachable, Denied (401 and 403)."""
        for attempt in range(1, _TRIES):
            try:
                return self.once(method, url, scope=scope, headers=headers, body=body)
            except Unreachable as problem:
                self.pause(attempt, problem)
        return self.once(method, url, scope=scope, headers=headers, body=body)

    def once(
        self, method: str, url: str, *, scope: str, headers: Mapping[str, str] | None = None, body: Body = b""
    ) -> Answer:
        """As `request`, one try. A body may be a stream: where it must be sent again, Unreachable is raised instead."""
        response = self._follow(method, url, scope, dict(headers or {}), body)
        with self._mapped():
            answer = Answer(response.status, _lower(response), response.data)
        if answer.status in _PASSING:
            message = f"answers {answer.status}: {reason(answer.body)}"
            raise Busy(self.host, message, wait_of(answer.headers))
        return answer

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
        known = self._tokens.known(scope)
        response = self._send(method, target, {**headers, **_authorization(known)}, body)
        if response.status == 401:
            response.drain_conn()
            fresh = self._tokens.fresh(response.headers.get("www-authenticate", ""), scope)
            if fresh == known:
                raise self._tokens.denied(scope)
            if body is not None and not isinstance(body, bytes):
                raise Busy(self.host, "the session ended before an upload began", 0.0)
            response = self._send(method, target, {**headers, **_authorization(fresh)}, body)
        if response.status in (401, 403):
            raise self._tokens.denied(scope)
        return response

    def _plain(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        response = self._send(method, url, headers, body)
        with self._mapped():
            return response.status, response.data

    def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> urllib3.BaseHTTPResponse:
        silent_s = self._stall_timeout_s if method in ("GET", "HEAD") else _WRITE_TIMEOUT_S
        with self._mapped():
            return self._pools.pool(target).request(
                method,
                target,
                headers={"User-Agent": "mp", **headers},
                body=body or None,
                preload_content=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=silent_s),
            )

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except HTTPError as problem:
            hint = "is it running and reachable from here?"
            raise Unreachable(self.host, words(problem), hint) from problem


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


def _lower(response: urllib3.BaseHTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def refusal(location: str, answer: Answer) -> BackendError:
    """The error of an answer that is not the one that was hoped for."""
    message = f"answers {answer.status}: {reason(answer.body)}"
    match answer.status:
        case 400 if b"DIGEST_INVALID" in answer.body:
            return Corrupt(location, "the bytes that arrived are not those that were sent", "try again")
        case 400 if not answer.body or b"HTTPS server" in answer.body:  # HEAD has no body
            hint = "where it speaks HTTPS alone: remove `insecure: true`, or name its authority with `ca`"
            return BackendError(location, message, hint)
        case 404:
            return Missing(location, message, "does this repository exist, and may you write to it?")
        case 413 | 507:
            hint = "the layer, or one request, is larger than this registry or a proxy before it takes: see docs/registries.md"
            return Exhausted(location, message, hint)
        case _:
            return BackendError(location, message)


def reason(body: bytes) -> str:
    """The registry's own words, where it has any."""
    try:
        return str(json.loads(body)["errors"][0].get("message") or "no reason given")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "no reason given"
