"""Which port of this machine a process gets. Used by driver."""

import socket

from pipeline.core.errors import StartFailed
from pipeline.core.resource import Resource
from pipeline.targets.local.record import HOST, Process
from pipeline.targets.local.spec import LocalState


def port_for(resource: Resource[LocalState], before: Process | None) -> int:
    """The declared port, or the one that it had, or a free one. Another's server must not be taken for ours."""
    state = resource.desired
    if isinstance(state.port, int):
        if not _is_free(state.port):
            raise StartFailed(
                resource.address,
                f"port {state.port} is taken by another program",
                "end it, or declare another port",
            )
        return state.port
    if before is not None and before.state.port == "auto" and _is_free(before.port):
        return before.port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        chosen: int = probe.getsockname()[1]
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server does: TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
