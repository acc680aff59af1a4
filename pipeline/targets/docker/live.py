"""A container that was found, read as the state that mp compares, where it answers, and whether it can stay. Pure."""

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pipeline.clients.container import Container, launch_document
from pipeline.core.mark import mark_in
from pipeline.core.resource import Absent, Observed, fields_of
from pipeline.targets.deployment import launch_in
from pipeline.targets.docker.labels import secrets_of
from pipeline.targets.docker.spec import DockerState

MODELS = "/models"
SECRETS = "/run/secrets/mp"
_TAG = re.compile(r":(mp-[0-9a-f]{12})(?:@sha256:[0-9a-f]{64})?$")
_ANYWHERE = ("", "0.0.0.0", "::")
_IN_PLACE = {"memory_bytes", "cpus", "restart", "running"}


def state_in(container: Container) -> DockerState:
    """Every compared field as the container has it, whoever made it."""
    tagged = _TAG.search(container.image)
    weights, content = _weights(container)
    bind, port = next(iter(container.declared_ports.values()), ("", "none"))
    return DockerState(
        image=tagged[1] if tagged else container.image,
        command=container.command,
        launch=launch_in(launch_document(container), secrets_of(container.labels)),
        weights=weights,
        content=content,
        gpus=container.gpus,
        cpus=container.cpus,
        memory_bytes=container.memory_bytes,
        shm_bytes=container.shm_bytes,
        bind=bind or "0.0.0.0",
        port=int(port) if port.isdecimal() and port != "0" else "none" if port == "none" else "auto",
        restart=container.restart,
        running=container.running,
    )


def endpoint_of(host: str, container: Container) -> str | None:
    """The base URL as seen from this machine; None while no port is open."""
    if not container.running or not container.ports:
        return None
    address, port = next(iter(container.ports.values()))
    url = urlsplit(host)
    if url.scheme != "unix" and url.hostname:
        address = url.hostname if address in _ANYWHERE else address
    return f"http://{'127.0.0.1' if address in _ANYWHERE else address}:{port}"


def seen(url: str, container: Container | None) -> Observed[DockerState] | Absent:
    """The answer for a container of the engine at `url`."""
    if container is None:
        return Absent()
    return Observed(
        state_in(container),
        mark=mark_in(container.labels),
        remote_id=container.id,
        endpoint=endpoint_of(url, container),
    )


def can_stay(container: Container, desired: DockerState) -> bool:
    """All that differs now can be changed in place; an engine can move a limit and cannot lift one."""
    live, wanted = fields_of(state_in(container)), fields_of(desired)
    differing = {name for name in wanted if live[name] != wanted[name]}
    lifted = {name for name in ("memory_bytes", "cpus") if wanted[name] is None}
    return differing <= _IN_PLACE - lifted


def ended(container: Container | None) -> str | None:
    """None while it runs, else how it ended."""
    if container is None:
        return "the container is gone"
    if container.running:
        return None
    if container.out_of_memory:
        limit = (
            ""
            if container.memory_bytes is None
            else f", its limit is {container.memory_bytes / 2**30:.2f} GiB"
        )
        return f"out of memory (OOMKilled){limit}"
    return container.error or f"exit code {container.exit_code}"


def _weights(container: Container) -> tuple[str, str]:
    """How the weights got in, and which: the cache's view is named by its content."""
    mounted = next((mount for mount in container.mounts if mount.destination == MODELS), None)
    if mounted is None:
        return "baked", ""
    return "mount" if mounted.read_only else "mount, writable", PurePosixPath(mounted.source).name
