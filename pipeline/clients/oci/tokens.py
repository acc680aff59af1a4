"""The Authorization header that a registry asks for: Basic, or a token from its token server. Used by clients/connection.

Token servers: distribution's "Token Authentication" and "OAuth2 Token Authentication" (docs of distribution 2.8 and 3.0).
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from pipeline.clients.oci.credentials import Login, login
from pipeline.core.errors import BackendError, Denied, Unreachable
from pipeline.core.frozen import frozen

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_LIFETIME_S = 60.0  # of a token that does not say it (the specification's default)
_MARGIN_S = 5.0  # a token this near to its end is not sent any more
_CLIENT = "mp"


class Send(Protocol):
    """One request without authorization of its own; status and body of the answer. Raises Unreachable."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]: ...


@frozen
class _Known:
    value: str = field(repr=False)
    until_s: float  # of the clock


class Tokens:
    """What was granted, by scope. Safe for threads: the worst of a race is a token asked for twice."""

    def __init__(
        self,
        host: str,
        base: str,
        environ: Mapping[str, str],
        send: Send,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._base = base  # "https://ghcr.io"
        self._environ = environ
        self._send = send
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._signed_in = False  # whether there was a login to ask with

    def known(self, scope: str) -> str | None:
        """The header's value for a scope, while it is worth sending."""
        found = self._known.get(scope)
        return found.value if found and self._clock() < found.until_s else None

    def fresh(self, challenge: str, scope: str) -> str:
        """A new value, after the registry answered 401. Raises Denied, Unreachable."""
        value, lifetime_s = self._granted(challenge, scope)
        self._known[scope] = _Known(value, self._clock() + lifetime_s - _MARGIN_S)
        return value

    def denied(self, scope: str) -> Denied:
        what = scope.split()[0] if scope else "this registry"
        whom = " to the login that Docker keeps for it" if self._signed_in else ""
        return Denied(self._host, f"access to {what} denied{whom}", f"docker login {self._host}")

    def _granted(self, challenge: str, scope: str) -> tuple[str, float]:
        found = login(self._host, self._environ)
        self._signed_in = found is not None
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            token, lifetime_s = self._token(dict(_PARAMETER.findall(rest)), scope, found)
            return f"Bearer {token}", lifetime_s
        if kind.lower() == "basic" and found and found.basic:
            return f"Basic {found.basic}", float("inf")
        raise self.denied(scope)

    def _token(self, challenge: Mapping[str, str], scope: str, found: Login | None) -> tuple[str, float]:
        realm = urljoin(self._base, challenge.get("realm", ""))
        if found and urlsplit(realm).scheme != "https" and self._base.startswith("https"):
            raise Denied(self._host, "asks for the password over an unencrypted connection")
        service = {"service": challenge["service"]} if "service" in challenge else {}
        scopes = scope or challenge.get("scope", "")
        if found and found.identity_token:
            status, body = self._refreshed(realm, service, scopes, found.identity_token)
        else:
            status, body = self._asked(realm, service, scopes, found)
        if status in (400, 401, 403):  # 400: OAuth2's word for a token that is no longer good (RFC 6749, 5.2)
            raise self.denied(scope)
        return self._read(status, body)

    def _asked(
        self, realm: str, service: Mapping[str, str], scopes: str, found: Login | None
    ) -> tuple[int, bytes]:
        query = urlencode([*service.items(), *(("scope", one) for one in scopes.split())])
        headers = {"Authorization": f"Basic {found.basic}"} if found and found.basic else {}
        return self._send("GET", f"{realm}{'&' if urlsplit(realm).query else '?'}{query}", headers, b"")

    def _refreshed(
        self, realm: str, service: Mapping[str, str], scopes: str, identity_token: str
    ) -> tuple[int, bytes]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": identity_token,
            "client_id": _CLIENT,
            "scope": scopes,
            **service,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._send("POST", realm, headers, urlencode(form).encode())

    def _read(self, status: int, body: bytes) -> tuple[str, float]:
        if 400 <= status < 500 and status != 429:
            raise BackendError(self._host, f"its token server answers {status}", "docker login " + self._host)
        try:
            found = json.loads(body)
            token = _header_word(str(found.get("token") or found["access_token"]))
            return token, float(found.get("expires_in") or _LIFETIME_S)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise Unreachable(self._host, f"gave no token ({status})", "try again later") from problem


def _header_word(token: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise ValueError("a header cannot hold it")  # http.client would, repeating it
    return token
