"""The wall around the tests: this process may connect to loopback and to nothing else."""

import ipaddress
import socket
import sys
from typing import Any


def is_local(host: object) -> bool:
    if not isinstance(host, str):
        return False
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:  # Any: each audit event has arguments of its own
    if event != "socket.connect":
        return
    family, where = arguments[0].family, arguments[1]
    if family in (socket.AF_INET, socket.AF_INET6) and not is_local(where[0]):
        raise RuntimeError(f"a test tried to reach {where[0]}: tests talk to parts on this machine only")


def block_outside() -> None:
    """From now on a connection out of this machine raises. (Programs that a test starts are not held.)"""
    sys.addaudithook(_refuse)
