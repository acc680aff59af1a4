"""Referrers of a registry that keeps the list itself, page by page, and of registries that answer the question badly."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.clients.oci.connection import Connection
from pipeline.clients.oci.registry import RegistryRepository
from pipeline.clients.oci.repository import INDEX, MANIFEST, Descriptor, ImageManifest
from pipeline.core.digest import Digest, digest

SUBJECT = digest(b"an image")
SBOM, SIGNATURE = "application/vnd.cyclonedx+json", "application/vnd.example.signature"


@dataclass
class Script:
    pages: list[list[Descriptor]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None  # status and kind of body, for the list
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """A registry that keeps referrers."""

    server: "Server"

    def do_GET(self) -> None:
        script, (path, _, query) = self.server.script, self.path.partition("?")
        script.asked.append(f"{self.command} {path.rpartition('/')[2]}")
        if "/referrers/" not in path:
            self.answer(404, b"")
        elif script.refusal:
            status, kind = script.refusal
            self.answer(status, b"<html>not a list</html>", **{"Content-Type": kind})
        else:
            page = int(query.partition("page=")[2] or 0)
            more = {"Link": f'<{path}?page={page + 1}>; rel="next"'} if page + 1 < len(script.pages) else {}
            body = {"schemaVersion": 2, "manifests": [each.document() for each in script.pages[page]]}
            self.answer(200, json.dumps(body).encode(), **{"Content-Type": INDEX, **more})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.script.asked.append("PUT manifest")
        self.answer(201, b"", **{"OCI-Subject": SUBJECT})

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = Script()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()


def opened(server: Server) -> RegistryRepository:
    return RegistryRepository(Connection(f"127.0.0.1:{server.server_port}", {}), "acme/", "qwen3")


def made(kind: str, text: bytes) -> Descriptor:
    return Descriptor(MANIFEST, digest(text), len(text), kind)


def test_the_registrys_own_list_is_read_to_its_last_page_and_filtered_here_too(server: Server) -> None:
    one, two, three = made(SIGNATURE, b"one"), made(SBOM, b"two"), made(SBOM, b"three")
    server.script.pages = [[one, two], [three]]

    assert set(opened(server).referrers(SUBJECT)) == {one, two, three}
    assert opened(server).referrers(SUBJECT, SIGNATURE) == (one,)


def test_a_registry_that_keeps_the_list_is_given_no_tag(server: Server) -> None:
    body = {"mediaType": MANIFEST, "artifactType": SBOM, "subject": {"digest": SUBJECT}}
    manifest = ImageManifest(json.dumps(body).encode(), MANIFEST)

    assert opened(server).put_referrer(manifest) == manifest.digest

    assert server.script.asked == ["PUT manifest"]


@pytest.mark.parametrize(
    "refusal",
    [(404, "text/plain"), (405, "text/plain"), (501, "text/plain"), (200, "text/html; charset=utf-8")],
)
def test_where_the_registry_keeps_no_list_the_tag_is_read(server: Server, refusal: tuple[int, str]) -> None:
    server.script.refusal = refusal

    assert opened(server).referrers(SUBJECT) == ()

    assert server.script.asked == [f"GET {SUBJECT}", f"GET {Digest(SUBJECT.replace(':', '-'))}"]
