"""HTTP reads with the manners a long download needs: retries, time-outs, ranges, redirects, tokens kept home. Used by clients of the Hub and of web servers; its errors by all others."""

import contextlib
import io
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Unreachable
from pipeline.core.frozen import frozen

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")

TRIES = 4
HOPS = 8
LONGEST_WAIT_S = 300.0  # the window of the Hub's rate limits
SKIP_BYTES = 1 << 20
DRAIN_BYTES = 64 << 10
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
MOVED = frozenset({301, 302, 303, 307, 308})
SECRET_HEADERS = frozenset({"authorization", "cookie"})

_log = logging.getLogger(__name__)


class Busy(Unreachable):
    """The server asks to come back; `wait_s` is what it said."""

    def __init__(self, system: str, message: str, wait_s: float | None) -> None:
        later = "later" if wait_s is None else f"in {wait_s:,.0f} s"
        super().__init__(system, message, f"run it again {later}")
        self.wait_s = wait_s


class NotAllowed(BackendError):
    """The server does not answer requests of this method."""


@frozen
class Head:
    """What is said of a file without its bytes; names of headers are lower case."""

    url: str  # where it is, after all redirects
    headers: Mapping[str, str]  # of the server that has the file
    first_headers: Mapping[str, str]  # of the server that was asked


@frozen
class Reply:
    """An answer: the headers of the first server (lower case), the body of the last."""

    headers: Mapping[str, str]
    body: BinaryIO
    head: Head


def patiently(work: Callable[[], T], pause: Callable[[float], None], tries: int = TRIES) -> T:
    """Do it, and again after a while when the other side is busy or away; at once no more when it asks for too long."""
    for number in range(1, tries):
        try:
            return work()
        except Unreachable as problem:
            wait_s = wait_after(number, problem)
            _log.debug("try %d failed, next in %.1f s: %s", number, wait_s, problem.message)
            pause(wait_s)
    return work()


def wait_after(failures: int, problem: Unreachable) -> float:
    """Seconds until another try: what a busy server asked for, else longer each time. Raises the problem when that is too long."""
    asked_s = problem.wait_s if isinstance(problem, Busy) else None
    wait_s = 0.5 * 2 ** (failures - 1) if asked_s is None else asked_s
    if wait_s > LONGEST_WAIT_S:
        raise problem
    return wait_s


def seconds(retry_after: str | None) -> float | None:
    """The Retry-After header in its form of seconds; None when there is none, or a date."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def wait_of(headers: Mapping[str, str]) -> float | None:
    """How long a busy server asks us to wait: Retry-After, else the seconds until an empty RateLimit is filled again.

    '"api";r=0;t=55' is the form of draft-ietf-httpapi-ratelimit-headers-09, which the Hugging Face Hub uses.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    limit = re.search(r";\s*r=0\s*;\s*t=(\d+)", lowered.get("ratelimit", ""))
    return seconds(lowered.get("retry-after") or (limit[1] if limit else None))


def plain(url: str) -> str:
    """A URL as it may be logged and shown: signed URLs carry their secret in the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


class Http:
    """A pool of connections for reading. Threads may share it."""

    def __init__(
        self,
        stall_timeout_s: float = 60.0,
        connect_timeout_s: float = 10.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._pause = pause
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    @contextlib.contextmanager
    def get(self, url: str, headers: Mapping[str, str], start: int = 0) -> Iterator[Reply]:
        """Read a URL from an offset; the body raises Unreachable when it is cut or stalls.

        Raises Denied, Missing, Unreachable, and Corrupt when the file ends before `start`.
        """
        response, head = patiently(lambda: self._ask("GET", url, headers, start), self._pause)
        try:
            body = _Body(response, host_of(url))
            if start and response.status != 206:
                body.skip(start)  # a server that knows no ranges sends everything
            yield Reply(head.first_headers, cast(BinaryIO, body), head)
        finally:
            _give_back(response)

    def head(self, url: str, headers: Mapping[str, str]) -> Head:
        """What is said of a file; no bytes are read. Where HEAD tells no length the file is asked for, and hung up on.

        Raises Denied, Missing, Unreachable.
        """

        def asked(method: str) -> Head:
            response, head = self._ask(method, url, headers, 0)
            _give_back(response)
            return head

        with contextlib.suppress(NotAllowed):
            found = patiently(lambda: asked("HEAD"), self._pause)
            if "content-length" in found.headers:
                return found
        return patiently(lambda: asked("GET"), self._pause)

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], start: int
    ) -> tuple["urllib3.BaseHTTPResponse", Head]:
        """One try: follow redirects by hand, so that nobody else sees our token."""
        sent = {"Accept-Encoding": "identity", **headers}
        if start:
            sent["Range"] = f"bytes={start}-"
        first_headers: Mapping[str, str] | None = None
        for _ in range(HOPS):
            response = self._send(method, url, sent)
            lowered = {name.lower(): value for name, value in response.headers.items()}
            first_headers = lowered if first_headers is None else first_headers
            if response.status not in MOVED:
                if problem := _problem(response.status, lowered, url, start):
                    _give_back(response)
                    raise problem
                return response, Head(url, lowered, first_headers)
            _give_back(response)
            url, sent = _next_hop(url, lowered.get("location", ""), sent)
        raise BackendError(host_of(url), f"more than {HOPS} redirects")

    def _send(self, method: str, url: str, headers: Mapping[str, str]) -> "urllib3.BaseHTTPResponse":
        import urllib3

        _log.debug("%s %s %s", method, plain(url), headers.get("Range", ""))
        try:
            return self._pool(url).request(
                method,
                url,
                headers=dict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=self._connect_timeout_s, read=self._stall_timeout_s),
            )
        except urllib3.exceptions.HTTPError as problem:
            raise _unreachable(host_of(url), problem) from problem
        except ValueError:  # http.client repeats a header that it refuses: the token
            raise Denied(
                host_of(url), "the token does not fit into a header", "set it anew, as one line"
            ) from None

    def _pool(self, url: str) -> "urllib3.PoolManager":
        """Connections of our own, or through the proxy that the environment names."""
        from pipeline.clients.oci.pools import manager, proxy_of

        proxy = proxy_of(url, os.environ)
        if proxy not in self._pools:
            self._pools[proxy] = manager(proxy, num_pools=16, maxsize=32)
        return self._pools[proxy]


class _Body(io.BufferedIOBase):
    """The bytes of an answer; foreign errors end here."""

    def __init__(self, response: "urllib3.BaseHTTPResponse", system: str) -> None:
        self._response = response
        self._system = system

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        import urllib3

        try:
            return self._response.read(None if size is None or size < 0 else size, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            raise _unreachable(self._system, problem) from problem

    def skip(self, count: int) -> None:
        while count:
            chunk = self.read(min(count, SKIP_BYTES))
            if not chunk:
                raise Corrupt(self._system, "the file is shorter than it was said to be")
            count -= len(chunk)


def host_of(url: str) -> str:
    """host:port, how errors name a server."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _next_hop(url: str, location: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Where to go on, and what may be sent there: secrets only to the server they were meant for."""
    target = urljoin(url, location)
    here, there = urlsplit(url), urlsplit(target)
    if there.scheme not in ("http", "https") or (here.scheme, there.scheme) == ("https", "http"):
        raise BackendError(host_of(url), f"redirects to {plain(target)}, which is not safe to follow")
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        headers = {name: value for name, value in headers.items() if name.lower() not in SECRET_HEADERS}
    return target, headers


def _problem(status: int, headers: Mapping[str, str], url: str, start: int) -> BackendError | None:
    """The error that a status means; None when the bytes follow."""
    if status == 200 or (status == 206 and headers.get("content-range", "").startswith(f"bytes {start}-")):
        return None
    system, said = host_of(url), headers.get("x-error-message") or f"status {status}"
    match status:
        case 401 | 403:
            return Denied(system, f"{said} for {plain(url)}", "check the token, and that it may read this")
        case 404 | 410:
            return Missing(system, f"{plain(url)} is not there")
        case 416:
            return Corrupt(system, f"{plain(url)} is shorter than it was said to be")
        case 405 | 501:
            return NotAllowed(system, f"{said} for {plain(url)}")
        case _ if status in BUSY:
            return Busy(system, f"{said} for {plain(url)}", wait_of(headers))
        case _:
            return BackendError(system, f"{said} for {plain(url)}")


def _unreachable(system: str, problem: Exception) -> Unreachable:
    from pipeline.clients.broken import words

    return Unreachable(system, words(problem), "check the network and the address, then run it again")


def _give_back(response: "urllib3.BaseHTTPResponse") -> None:
    """Use the connection again when little is left to read; http.client wants every answer read to its end."""
    left_bytes = response.length_remaining
    if left_bytes is None or left_bytes > DRAIN_BYTES:
        response.close()
    else:
        response.drain_conn()
        response.release_conn()
