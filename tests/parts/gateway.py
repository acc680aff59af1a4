"""An HTTP gateway before a real registry: it counts the bytes of uploads, and does what gateways do on a bad day."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK_BYTES = 64 * 2**10


class Cut(Enum):
    """What becomes of a request's bytes that came before it broke."""

    PASSED_ON = "the registry sees the same break"
    DROPPED = "the gateway had gathered them, as nginx does, and forgets them"
    KEPT = "the registry gets them, and GET of the session says how many it has"


@dataclass
class Refusal:
    """An answer in the registry's place, to the next request of this method."""

    method: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    after_body: bool = True  # the body is read first; otherwise the connection is closed on it


@dataclass
class Faults:
    refusals: list[Refusal] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)  # bytes of uploads, in all, after which a connection breaks
    cut: Cut = Cut.PASSED_ON
    patch: int | None = None  # the status of every PATCH
    delay_s: float = 0.0  # before every answer


class Gateway(ThreadingHTTPServer):
    """`uploaded_bytes`: bodies that clients sent, whatever became of them; `requests`: "PATCH 1048576"."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = host
        self.faults = Faults()
        self.guard = threading.Lock()
        self.uploaded_bytes = 0
        self.requests: list[str] = []
        self.locations: dict[str, str] = {}  # path of a session → where the registry has it now

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are its business."""

    def refusal(self, method: str) -> Refusal | None:
        with self.guard:
            found = next((one for one in self.faults.refusals if one.method == method), None)
            if found:
                self.faults.refusals.remove(found)
            return found

    def count(self, size_bytes: int) -> bool:
        """Count bytes of an upload; True where the connection breaks now."""
        with self.guard:
            self.uploaded_bytes += size_bytes
            if self.faults.cuts and self.uploaded_bytes >= self.faults.cuts[0]:
                self.faults.cuts.pop(0)
                return True
            return False


class _Broken(Exception):
    pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_GET(self) -> None:
        sent = self.headers["Content-Length"] or "a stream"
        self.server.requests.append(
            f"{self.command} {sent}" if self.command in ("PATCH", "PUT") else self.command
        )
        refusal = self.server.refusal(self.command)
        if self.command == "PATCH" and self.server.faults.patch:
            refusal = Refusal("PATCH", self.server.faults.patch)
        if refusal:
            self._refuse(refusal)
            return
        try:
            self._forward()
        except _Broken:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.after_body:
            for _ in self._body():
                pass
        else:
            self.close_connection = True
        time.sleep(self.server.faults.delay_s)
        self.send_response(refusal.status)
        for name, value in {**refusal.headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _forward(self) -> None:
        method, path = self.command, self._known(self.path)
        if method == "PUT" and "/uploads/" in path and self.server.faults.cut is Cut.KEPT:
            query = path[path.rindex("digest=") :]  # bytes first, so that a part of them can be kept
            self._answer(self._send("PATCH", path, self._body()))
            path = f"{self.server.locations[_session(self.path)]}&{query}"
            answer = self._send("PUT", path, iter(()))
        else:
            answer = self._send(method, path, self._body())
        time.sleep(self.server.faults.delay_s)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self._answer(answer)
        content = answer.read()
        length = str(len(content)) if method != "HEAD" else answer.getheader("Content-Length", "0")
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    def _known(self, path: str) -> str:
        """A session's newest address, where it is the gateway that keeps it."""
        if self.server.faults.cut is not Cut.KEPT:
            return path
        known = self.server.locations.get(_session(path), path)
        digest = path.rpartition("digest=")[2] if "digest=" in path else ""
        return f"{known}&digest={digest}" if digest and "digest=" not in known else known

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        location = answer.getheader("Location", "")
        if "/uploads/" in location:
            below = location[location.index("/v2/") :]
            self.server.locations[_session(below)] = below

    def _send(self, method: str, path: str, body: Iterator[bytes]) -> http.client.HTTPResponse:
        """One request of our own to the registry; a cut of the client's ends it as the faults say."""
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name in ("Host", "Accept", "Authorization", "Content-Type", "Range"):
            if self.headers[name]:
                connection.putheader(name, self.headers[name])
        connection.putheader("Transfer-Encoding", "chunked")
        gathered: list[bytes] | None = [] if self.server.faults.cut is Cut.DROPPED else None
        try:
            if gathered is not None:
                gathered += list(body)
                body = iter(gathered)
            connection.endheaders()
            for block in body:
                connection.send(b"%x\r\n%s\r\n" % (len(block), block))
        except _Broken:
            if self.server.faults.cut is Cut.KEPT:
                connection.send(b"0\r\n\r\n")
                self._answer(connection.getresponse())
            connection.close()
            raise
        connection.send(b"0\r\n\r\n")
        return connection.getresponse()

    def _body(self) -> Iterator[bytes]:
        """What the client sends, of a known length or in chunks. Raises _Broken where the connection is to break."""
        if self.headers["Transfer-Encoding"] == "chunked":
            while size_bytes := int(self.rfile.readline(), 16):
                yield from self._counted(size_bytes)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._counted(int(self.headers["Content-Length"] or 0))

    def _counted(self, left_bytes: int) -> Iterator[bytes]:
        while left_bytes:
            block = self.rfile.read(min(left_bytes, BLOCK_BYTES))
            if not block:
                raise _Broken
            left_bytes -= len(block)
            breaks = self.server.count(len(block))
            yield block
            if breaks:
                raise _Broken


def _session(path: str) -> str:
    return path.partition("?")[0]


@contextlib.contextmanager
def before(host: str) -> Iterator[Gateway]:
    """A gateway before the registry at `host`."""
    gateway = Gateway(host)
    threading.Thread(target=gateway.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield gateway
    finally:
        gateway.shutdown()
        gateway.server_close()
