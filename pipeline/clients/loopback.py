"""Which addresses are this machine's own: there nobody listens on the way. Used by clients, sources/https and targets/docker."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """A host, with a port or without one, that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return _without_port(host) not in ("", host) and is_loopback(_without_port(host))


def _without_port(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a bracket too many
        return ""
