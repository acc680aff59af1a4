"""Containers as plain records, and what `docker inspect` says made into one. Pure; used by clients/docker and targets."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.core.digest import Json
from pipeline.core.frozen import frozen


@frozen
class Mount:
    source: str
    destination: str
    read_only: bool


@frozen
class Wanted:
    """A container to be created."""

    name: str
    image: str  # reference: "repo:tag@sha256:…"
    command: tuple[str, ...]
    environ: Mapping[str, str]
    labels: Mapping[str, str]
    mounts: tuple[Mount, ...]
    gpus: int
    cpus: float | None
    memory_bytes: int | None
    shm_bytes: int
    container_port: int
    bind: str
    port: int | None  # None: the engine chooses
    user: str


@frozen
class Container:
    """A container as `docker inspect` shows it."""

    id: str
    name: str
    image: str  # the reference that it was made with
    command: tuple[str, ...]  # entrypoint and arguments
    environ: Mapping[str, str]
    labels: Mapping[str, str]
    mounts: tuple[Mount, ...]
    gpus: int
    cpus: float | None
    memory_bytes: int | None
    shm_bytes: int
    restart: str
    declared_ports: Mapping[
        str, tuple[str, str]
    ]  # "8000/tcp" → address and port of the host as asked for; "" is any
    ports: Mapping[str, tuple[str, str]]  # the same as they are
    running: bool
    exit_code: int
    out_of_memory: bool
    error: str


def container_of(seen: Mapping[str, Any]) -> Container:
    """A record of what the engine answers, whose shape only this room knows."""
    config, host, state = seen["Config"], seen["HostConfig"], seen["State"]
    bound = host.get("PortBindings") or {}
    open_ports = seen["NetworkSettings"].get("Ports") or {}
    environ = dict(pair.partition("=")[::2] for pair in config.get("Env") or ())
    return Container(
        id=seen["Id"],
        name=seen["Name"].removeprefix("/"),
        image=config["Image"],
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        environ=environ,
        labels=config.get("Labels") or {},
        mounts=tuple(
            Mount(each.get("Source", ""), each["Destination"], not each.get("RW", True))
            for each in seen.get("Mounts") or ()
        ),
        gpus=sum(_gpus(request) for request in host.get("DeviceRequests") or ()),
        cpus=host["NanoCpus"] / 1e9 if host.get("NanoCpus") else None,
        memory_bytes=host.get("Memory") or None,
        shm_bytes=host.get("ShmSize") or 0,
        restart=(host.get("RestartPolicy") or {}).get("Name") or "no",
        declared_ports=_first(bound),
        ports=_first(open_ports),
        running=bool(state["Running"]) and not state.get("Restarting") and not state.get("Paused"),
        exit_code=state.get("ExitCode", 0),
        out_of_memory=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
    )


def _first(ports: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Of each port's bindings the first: IPv6 comes after IPv4."""
    return {
        port: (bindings[0].get("HostIp", ""), bindings[0].get("HostPort", ""))
        for port, bindings in ports.items()
        if bindings
    }


def _gpus(request: Mapping[str, Any]) -> int:
    if not any("gpu" in names for names in request.get("Capabilities") or ()):
        return 0
    return len(request["DeviceIDs"]) if request.get("DeviceIDs") else int(request.get("Count", 0))


def launch_document(container: Container) -> dict[str, Json]:
    """The launch document that a container was given; empty when it has none that can be read."""
    try:
        document = json.loads(container.environ.get("MP_LAUNCH", "{}"))
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
