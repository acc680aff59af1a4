"""A small real token server, as distribution specifies it, for a registry with `auth: token`."""

import base64
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.parts.certificates import Certificate, signed
from tests.parts.registry import PASSWORD, USER

ISSUER, SERVICE = "mp-tokens", "mp-registry"
IDENTITY_TOKEN = "identity-0123"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass
class Asked:
    """One question: how the client said who it is, and for what."""

    method: str
    by: str  # "password", "identity token", "nobody"
    scopes: list[str]


class TokenServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, signer: Certificate) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.signer = signer
        self.scheme = "http"
        self.asked: list[Asked] = []
        self.expires_in_s: int | None = 300

    @property
    def auth(self) -> str:
        """The value of `auth` in a registry's configuration."""
        realm = f"{self.scheme}://127.0.0.1:{self.server_port}/token"
        return (
            f"{{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, "
            f"rootcertbundle: {self.signer.file}}}}}"
        )

    def token(self, subject: str, scopes: list[str]) -> str:
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        pem = self.signer.file.read_text().split("-----BEGIN CERTIFICATE-----")[1].split("-----END")[0]
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem.split())]}
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": SERVICE,
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": str(len(self.asked)),
            "access": access,
        }
        content = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        return f"{content}.{_encoded(signed(self.signer.key, content.encode()))}"


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        given = self.headers["Authorization"]
        if given not in (None, f"Basic {BASIC}"):
            self._answer(401, {})
            return
        scopes = [one for value in query.get("scope", []) for one in value.split()]
        self._grant("password" if given else "nobody", scopes, "token")

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if form.get("grant_type") != ["refresh_token"] or form.get("refresh_token") != [IDENTITY_TOKEN]:
            self._answer(400, {"error": "invalid_grant"})
            return
        self._grant("identity token", form.get("scope", [""])[0].split(), "access_token")

    def _grant(self, by: str, scopes: list[str], key: str) -> None:
        self.server.asked.append(Asked(self.command, by, scopes))
        granted = scopes if by != "nobody" else []
        found: dict[str, object] = {key: self.server.token(by, granted)}
        if self.server.expires_in_s is not None:
            found["expires_in"] = self.server.expires_in_s
        self._answer(200, found)

    def _answer(self, status: int, body: Mapping[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextlib.contextmanager
def running_tokens(signer: Certificate, tls: Certificate | None = None) -> Iterator[TokenServer]:
    """`signer` signs the tokens; with `tls` the server speaks HTTPS."""
    server = TokenServer(signer)
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.file, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
