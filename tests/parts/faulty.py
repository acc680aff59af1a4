"""A web server on loopback that answers with what a function says, with faults on request and a log of requests."""

import contextlib
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pipeline.core.frozen import frozen
from tests.fakes.hub import Fault, Request


@frozen
class Answer:
    """What is sent back; `sized` False leaves the length out, and the end of the connection is the end of the body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    sized: bool = True


Answering = Callable[[Request, bytes], Answer]


class FaultyServer:
    """`faults` spoil answers, `log` has what was asked."""

    def __init__(self, answering: Answering, certificate: Path | None = None) -> None:
        self.answering = answering
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.stopping = threading.Event()
        self._guard = threading.Lock()
        faulty = self

        class Handler(_Handler):
            server_of = faulty

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def asked(self, pattern: str = "") -> list[Request]:
        """The requests whose "METHOD /path" matches."""
        with self._guard:
            return [each for each in self.log if re.search(pattern, f"{each.method} {each.path}")]

    def remember(self, request: Request) -> Fault | None:
        """Log a request; the fault that is due for it."""
        with self._guard:
            self.log.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, f"{request.method} {request.path}"):
                    fault.times -= 1
                    return fault
        return None

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def faulty(answering: Answering, certificate: Path | None = None) -> Iterator[FaultyServer]:
    server = FaultyServer(answering, certificate)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def forwarding(target: str, context: ssl.SSLContext | None = None) -> Answering:
    """Answers with what a real server at `target` ("http://127.0.0.1:5000") says; `context` trusts its certificate."""

    tls = urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)

    def answer(request: Request, body: bytes) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name != "connection"}
        asked = urllib.request.Request(
            target + request.path, data=body or None, headers=headers, method=request.method
        )
        try:
            with opener.open(asked, timeout=30) as got:
                return Answer(got.status, dict(got.headers), got.read())
        except urllib.error.HTTPError as problem:
            return Answer(problem.code, dict(problem.headers), problem.read())

    return answer


class _Handler(BaseHTTPRequestHandler):
    server_of: FaultyServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        lowered = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, lowered.get("host", ""), self.path, lowered)
        fault = self.server_of.remember(request) or Fault("")
        try:
            if fault.stall_s:
                self.server_of.stopping.wait(fault.stall_s)
            if fault.status is not None:
                self._send(Answer(fault.status, fault.headers), fault)
                return
            if fault.ignore_range:
                lowered.pop("range", None)
            self._send(self.server_of.answering(request, body), fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """The log is `FaultyServer.log`."""

    def _send(self, answer: Answer, fault: Fault) -> None:
        self.send_response(answer.status)
        own = {"content-length", "connection", "transfer-encoding", "date", "server"}
        for name, value in answer.headers.items():
            if name.lower() not in own:
                self.send_header(name, value)
        body = bytearray(answer.body)
        length = answer.headers.get("Content-Length", str(len(body)))  # of a HEAD's answer
        if answer.sized:
            self.send_header("Content-Length", length)
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.corrupt_at is not None:
            body[fault.corrupt_at] ^= 1
        if fault.cut_after_bytes is not None:
            del body[fault.cut_after_bytes :]
            self.close_connection = True
        self.wfile.write(body)
