"""Pools of connections: the proxies to take, and for registries the certificates to trust. Used by clients/connection and http."""

import contextlib
import ipaddress
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from pipeline.clients.loopback import is_loopback
from pipeline.core.errors import BackendError

DOCKER_CERTIFICATES = Path("/etc/docker/certs.d")  # the Docker engine's: HOST[:PORT]/ca.crt


class Pools:
    """The pools of one registry's host, one for each way out: direct, or through a proxy; plain, or with TLS. Safe for threads."""

    def __init__(
        self,
        host: str,
        environ: Mapping[str, str],
        ca: str | None = None,
        docker_certificates: Path = DOCKER_CERTIFICATES,
    ) -> None:
        self._host = host
        self._environ = environ
        self._authorities = [*([Path(ca)] if ca else []), *_crt(docker_certificates / host)]
        self._guard = threading.Lock()  # authorities are read once, and not by every thread that begins
        self._pools: dict[tuple[str | None, bool], urllib3.PoolManager] = {}

    def pool(self, url: str) -> urllib3.PoolManager:
        """For one address. Raises BackendError when a certificate file cannot be used."""
        proxy, secure = proxy_of(url, self._environ), url.startswith("https:")
        with self._guard:
            if (proxy, secure) not in self._pools:
                self._pools[proxy, secure] = self._made(proxy, secure=secure)
            return self._pools[proxy, secure]

    def _made(self, proxy: str | None, *, secure: bool) -> urllib3.PoolManager:
        options: dict[str, Any] = {  # heterogeneous: urllib3's own keywords
            "maxsize": 32,
            "blocksize": 2**20,  # the default sends at half the speed
            "retries": False,
            # one for all connections: left to itself, urllib3 reads the system's authorities for each
            "ssl_context": self._trust() if secure else None,
        }
        return manager(proxy, **options)

    def _trust(self) -> ssl.SSLContext:
        """The system's authorities (or SSL_CERT_FILE's, as OpenSSL has it), and those of this registry besides."""
        system = self._environ.get("SSL_CERT_FILE") or None, self._environ.get("SSL_CERT_DIR") or None
        file: object = system
        try:
            context = ssl.create_default_context(cafile=system[0], capath=system[1])
            for file in self._authorities:
                context.load_verify_locations(cafile=file)
        except (OSError, ssl.SSLError) as problem:
            name = file if isinstance(file, Path) else "the file that SSL_CERT_FILE names"
            why = (
                problem.strerror if isinstance(problem, FileNotFoundError) else "it holds no PEM certificate"
            )
            raise BackendError(
                self._host,
                f"{name} cannot be used: {why}",
                "name a file of certificates that begins with -----BEGIN CERTIFICATE-----",
            ) from problem
        return context


def manager(proxy: str | None, **options: Any) -> urllib3.PoolManager:  # Any: urllib3's own keywords
    """Direct connections, or those through a proxy; a user and password in its address sign in there."""
    if proxy is None:
        return urllib3.PoolManager(**options)
    parts = urlsplit(proxy)
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
    return urllib3.ProxyManager(address, proxy_headers=headers, **options)


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy for an address, by HTTPS_PROXY, HTTP_PROXY and NO_PROXY in either case; never for this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    found = _variable(environ, f"{parts.scheme}_proxy") or _variable(environ, "all_proxy")
    if not found or is_loopback(host):
        return None
    without = (_variable(environ, "no_proxy") or "").lower().split(",")
    if any(_names(one.strip(), host, parts.port) for one in without):
        return None
    return found if "://" in found else f"http://{found}"


def _names(pattern: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY means a host: "*", a name (and what is below it), an address or network, with a port or not."""
    if pattern == "*":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    name, _, only_port = pattern.partition(":")
    name = name.removeprefix("*").removeprefix(".")
    if not name or (only_port and only_port != str(port)):
        return False
    return host == name or host.endswith(f".{name}")


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name) or environ.get(name.upper()) or None


def _crt(folder: Path) -> list[Path]:
    """Docker takes every *.crt of a registry's folder for an authority."""
    try:
        return sorted(folder.glob("*.crt"))
    except OSError:
        return []
