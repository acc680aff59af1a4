"""A Docker engine that goes away in the middle of an answer: an error of the world, not of ours."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.clients.buildkit import Builder, Instructions
from pipeline.clients.docker import DockerHost
from pipeline.core.errors import Unreachable

LINE = json.dumps({"status": "Downloading", "id": "a", "progressDetail": {"current": 1, "total": 2}}).encode()


class Engine(BaseHTTPRequestHandler):
    """Says its version; of a pull and of a build it says one line and breaks the connection in the next."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps({"ApiVersion": "1.47"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(LINE), LINE))
        if "fromImage=in-a-line" in self.path:
            self.wfile.write(b'5\r\n{"sta\r\n0\r\n\r\n')
        else:
            self.wfile.write(b'40\r\n{"sta')
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def engine() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"tcp://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("where", ["in-a-chunk", "in-a-line"])
def test_pull_that_is_cut_is_unreachable(engine: str, where: str) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(Unreachable, match="does not answer: the connection broke"):
        DockerHost(engine).pull(where, f"sha256:{'0' * 64}", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2)]


def test_build_that_is_cut_is_unreachable(engine: str) -> None:
    instructions = Instructions("mp-build/x:y", "linux/amd64", {}, {})
    with pytest.raises(Unreachable, match="the engine does not answer"):
        Builder(engine).build(instructions, lambda: iter([b"tar"]), print)
