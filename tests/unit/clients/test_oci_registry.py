"""How a registry over HTTP is talked to when it asks for tokens, redirects, fails now and then, or lies."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.clients.loopback import is_loopback
from pipeline.clients.oci.connection import Connection
from pipeline.clients.oci.credentials import Login, login
from pipeline.clients.oci.registry import RegistryRepository
from pipeline.clients.oci.repository import held
from pipeline.core.digest import digest
from pipeline.core.errors import BackendError, Corrupt, Denied, Exhausted, Unreachable
from tests.fakes.hub import Fault
from tests.parts.faulty import Answer, faulty

BLOB = b"weights"
TOKEN = "t0ken"
BASIC = base64.b64encode(b"ada:secret").decode()


@dataclass
class Script:
    """What the server does, and what it was asked."""

    bearer: bool = False
    failures: list[int] = field(default_factory=list)  # statuses given before an answer
    redirect: str | None = None  # where blobs are
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, authorization
    body: bytes = BLOB
    upload_status: int = 201
    absent: bool = False  # neither blobs nor what an upload has so far are known


class Handler(BaseHTTPRequestHandler):
    """A registry of one blob."""

    server: "Server"

    def do_GET(self) -> None:
        script, path = self.server.script, urlsplit(self.path)
        authorization = self.headers["Authorization"]
        script.asked.append((self.command, path.path, authorization))
        length = int(self.headers["Content-Length"] or 0)
        self.rfile.read(length)
        if path.path == "/token":
            scopes = parse_qs(path.query)["scope"]
            granted = {"token": TOKEN} if authorization in (None, f"Basic {BASIC}") and scopes else {}
            self.answer(200, json.dumps(granted).encode())
        elif script.failures:
            self.answer(script.failures.pop(0), b'{"errors":[{"message":"overloaded"}]}')
        elif script.bearer and authorization != f"Bearer {TOKEN}":
            realm = f"http://{self.headers['Host']}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="repository:x:pull"'
            self.answer(401, b"", **{"WWW-Authenticate": challenge})
        else:
            self.route(script)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    def do_DELETE(self) -> None:
        """The rights of a token that was given to push do not reach this far."""
        self.server.script.asked.append((self.command, self.path, self.headers["Authorization"]))
        self.answer(403, b"")

    def route(self, script: Script) -> None:
        if self.command == "POST":
            self.answer(202, b"", Location="/upload/1?state=x")
        elif self.command == "PATCH":
            self.answer(202, b"", Location="/upload/2")
        elif self.command == "PUT":
            self.answer(script.upload_status, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}')
        elif script.absent:
            self.answer(404, b"")
        elif script.redirect:
            self.answer(307, b"", Location=script.redirect)
        else:
            self.answer(200, script.body)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server(Script())
    threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()


def repository(server: Server, environ: dict[str, str] | None = None) -> RegistryRepository:
    connection = Connection(server.host, environ or {}, sleep=lambda seconds: None)
    return RegistryRepository(connection, "acme/", "qwen3")


def logged_in(folder: Path, host: str) -> dict[str, str]:
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": BASIC}}}))
    return {"DOCKER_CONFIG": str(folder)}


def test_a_token_is_asked_for_once_with_the_password_and_used_from_then_on(
    server: Server, tmp_path: Path
) -> None:
    server.script.bearer = True
    opened = repository(server, logged_in(tmp_path, server.host))

    assert opened.blob(digest(BLOB)) == BLOB
    assert opened.has(digest(BLOB))

    assert [(path.rpartition("/")[2][:6], given) for _, path, given in server.script.asked] == [
        ("sha256", None),
        ("token", f"Basic {BASIC}"),
        ("sha256", f"Bearer {TOKEN}"),
        ("sha256", f"Bearer {TOKEN}"),
    ]


def test_a_public_registry_gives_a_token_without_a_password(server: Server) -> None:
    server.script.bearer = True

    assert repository(server).blob(digest(BLOB)) == BLOB


def test_a_refused_password_is_denied_without_saying_it(server: Server, tmp_path: Path) -> None:
    server.script.failures = [401, 401, 401]

    with pytest.raises(Denied) as denied:
        repository(server, logged_in(tmp_path, server.host)).blob(digest(BLOB))

    assert denied.value.hint == f"docker login {server.host}"
    assert "secret" not in str(denied.value)
    assert BASIC not in str(denied.value)


def test_a_forbidden_repository_is_denied(server: Server) -> None:
    server.script.failures = [403]

    with pytest.raises(Denied, match="acme/qwen3"):
        repository(server).head("v1")


def test_a_layer_that_cannot_be_mounted_is_no_error_where_cancelling_its_upload_is_denied(
    server: Server,
) -> None:
    assert repository(server).mount(digest(BLOB), "other") is False

    assert [method for method, _, _ in server.script.asked] == ["POST", "DELETE"]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_failure_that_passes_is_tried_again(server: Server, status: int) -> None:
    server.script.failures = [status, status]

    assert repository(server).blob(digest(BLOB)) == BLOB


def test_a_failure_that_stays_is_unreachable_after_three_tries(server: Server) -> None:
    server.script.failures = [503] * 10

    with pytest.raises(Unreachable, match=f"{server.host}: answers 503: overloaded"):
        repository(server).blob(digest(BLOB))

    assert len(server.script.asked) == 3


@pytest.mark.parametrize("known", [True, False])
def test_an_upload_begins_again_when_it_was_cut(server: Server, known: bool) -> None:
    began = []
    server.script.absent = True

    def chunks(start: int) -> Iterator[bytes]:
        began.append(1)
        server.script.failures = [502] if len(began) == 1 else []  # of the request that carries the bytes
        yield BLOB[start:]

    assert repository(server).push(digest(BLOB) if known else None, len(BLOB), chunks) == digest(BLOB)

    assert len(began) == 2


def test_an_upload_whose_last_answer_was_lost_is_not_sent_again(server: Server) -> None:
    began = []

    def chunks(start: int) -> Iterator[bytes]:
        began.append(1)
        server.script.failures = [502]
        yield BLOB

    assert repository(server).push(digest(BLOB), len(BLOB), chunks) == digest(BLOB)

    assert len(began) == 1
    assert [method for method, _, _ in server.script.asked] == ["POST", "PUT", "HEAD"]


def test_a_redirect_elsewhere_is_followed_without_our_password(server: Server, tmp_path: Path) -> None:
    storage = Server(Script())
    threading.Thread(target=storage.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        server.script.bearer = True
        server.script.redirect = f"http://{storage.host}/bucket/blob"
        opened = repository(server, logged_in(tmp_path, server.host))

        assert opened.blob(digest(BLOB)) == BLOB
        with opened.open_blob(digest(BLOB)) as stream:
            assert stream.read() == BLOB

        assert {given for _, _, given in storage.script.asked} == {None}
    finally:
        storage.shutdown()
        storage.server_close()


def test_a_registry_that_redirects_in_circles_is_given_up(server: Server) -> None:
    server.script.redirect = "/v2/again"

    with pytest.raises(Unreachable, match="circles"):
        repository(server).blob(digest(BLOB))


def test_a_blob_that_is_not_its_digest_is_corrupt(server: Server) -> None:
    server.script.body = b"w3ights"

    with pytest.raises(Corrupt, match="damaged"):
        repository(server).blob(digest(BLOB))


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, Corrupt), (413, Exhausted), (405, BackendError)],
    ids=["digest", "size", "other"],
)
def test_what_a_registry_refuses_has_a_kind(server: Server, status: int, error: type[BackendError]) -> None:
    server.script.upload_status = status

    with pytest.raises(error):
        repository(server).push(digest(BLOB), len(BLOB), held(BLOB))


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("127.0.0.1:5000", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("::1", True),
        ("127.0.0.1.nip.io:5000", False),
        ("[:5000", False),
        ("", False),
        ("ghcr.io", False),
        ("10.0.0.1", False),
    ],
)
def test_only_this_machine_is_spoken_to_without_encryption(host: str, plain: bool) -> None:
    assert is_loopback(host) is plain


@pytest.mark.parametrize(
    ("host", "auths", "found"),
    [
        ("ghcr.io", {"ghcr.io": {"auth": BASIC}}, BASIC),
        ("ghcr.io", {"https://ghcr.io": {"auth": BASIC}}, BASIC),
        ("docker.io", {"https://index.docker.io/v1/": {"auth": BASIC}}, BASIC),
        ("ghcr.io", {"ghcr.io": {"username": "ada", "password": "secret"}}, BASIC),
        ("ghcr.io", {"ghcr.io": {}}, None),
        ("ghcr.io", {"quay.io": {"auth": BASIC}}, None),
    ],
)
def test_passwords_are_found_where_docker_login_puts_them(
    tmp_path: Path, host: str, auths: dict[str, Any], found: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))

    assert login(host, {"DOCKER_CONFIG": str(tmp_path)}) == (found and Login(found))


def helped(folder: Path, script: str, **config: object) -> dict[str, str]:
    """An environment in which `docker-credential-box` is a program of this script."""
    program = folder / "docker-credential-box"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (folder / "config.json").write_text(json.dumps(config))
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}


ANSWERS = """[ "$1" = get ] && read key || true
case "$key" in
  ghcr.io|https://index.docker.io/v1/) echo '{"ServerURL": "x", "Username": "ada", "Secret": "secret"}';;
  *) echo 'credentials not found in native keychain'; exit 1;;
esac"""


@pytest.mark.parametrize(
    ("host", "config", "found"),
    [
        ("ghcr.io", {"credsStore": "box", "auths": {"ghcr.io": {}}}, BASIC),
        ("docker.io", {"credsStore": "box"}, BASIC),
        ("ghcr.io", {"credHelpers": {"ghcr.io": "box"}}, BASIC),
        ("quay.io", {"credHelpers": {"ghcr.io": "box"}}, None),
        ("quay.io", {"credsStore": "box"}, None),
        ("quay.io", {"credsStore": "box", "auths": {"quay.io": {"auth": BASIC}}}, BASIC),
        ("ghcr.io", {"credsStore": "that-is-not-installed"}, None),
    ],
)
def test_passwords_are_asked_of_the_helper_that_docker_asks(
    tmp_path: Path, host: str, config: dict[str, Any], found: str | None
) -> None:
    assert login(host, helped(tmp_path, ANSWERS, **config)) == (found and Login(found))


@pytest.mark.parametrize("script", ["echo secret; exit 1", "echo secret", "echo '[\"secret\"]'"])
def test_helper_that_fails_is_named_and_what_it_said_is_not(tmp_path: Path, script: str) -> None:
    with pytest.raises(BackendError, match="docker-credential-box") as failed:
        login("ghcr.io", helped(tmp_path, script, credsStore="box"))
    assert "secret" not in f"{failed.value.message} {failed.value.hint}"


def test_without_a_docker_config_there_is_no_password(tmp_path: Path) -> None:
    assert login("ghcr.io", {"HOME": str(tmp_path)}) is None


def test_a_broken_docker_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")

    with pytest.raises(BackendError, match=r"config\.json"):
        login("ghcr.io", {"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("status", "expected", "says"), [(206, Unreachable, "other bytes than"), (416, Corrupt, "shorter than")]
)
def test_an_answer_that_is_not_the_range_asked_for_is_no_part_of_a_blob(
    server: Server, status: int, expected: type[BackendError], says: str
) -> None:
    server.script.failures = [status]

    with pytest.raises(expected, match=says), repository(server).open_blob(digest(BLOB), 3):
        pass


def test_a_registry_without_ranges_is_read_past_the_start(server: Server) -> None:
    with repository(server).open_blob(digest(BLOB), 3) as stream:
        assert stream.read() == BLOB[3:]
    with pytest.raises(Corrupt, match="shorter than"), repository(server).open_blob(digest(BLOB), 99):
        pass


def test_a_registry_that_falls_silent_is_left_in_time() -> None:
    with faulty(lambda request, body: Answer(200, {}, BLOB)) as silent:
        silent.faults.append(Fault("GET", stall_s=30))
        connection = Connection(f"127.0.0.1:{silent.port}", {}, stall_timeout_s=0.05)
        opened = RegistryRepository(connection, "acme/", "qwen3")

        with pytest.raises(Unreachable, match="no answer in time"), opened.open_blob(digest(BLOB)):
            pass

        with opened.open_blob(digest(BLOB)) as stream:
            assert stream.read() == BLOB
