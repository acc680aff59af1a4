"""Builders that `docker buildx create` made, by its files: where they are, which certificates they want. Used by buildctl.

Files and names: docker/buildx at 9a0c320, store/nodegroup.go, util/confutil/config.go, driver/remote/factory.go and
driver/driver.go.
"""

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.clients.handshake import Certificates
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing
from pipeline.core.frozen import frozen

SCHEME = "buildx://"
DOCKER = "default"  # the Docker engine's own BuildKit, of which there is no file
_CONTAINER = "buildx_buildkit_"  # what stands before a node's name in that of its container


@frozen
class Endpoint:
    """Where buildctl finds a BuildKit."""

    address: str  # "tcp://builder:1234"
    certificates: Certificates | None = None
    environ: Mapping[str, str] = field(default_factory=dict)  # for the program that reaches it


def endpoint(name: str, platform: str, environ: Mapping[str, str]) -> Endpoint:
    """Where a builder's node for a platform is: the one that was made for it, else the first.

    Raises Missing, Denied, Corrupt, BackendError.
    """
    file = _folder(environ) / "instances" / name.lower()
    told = _read(file, name)
    try:
        nodes = told["Nodes"]
        node = next((one for one in nodes if platform in _platforms(one)), nodes[0])
        return _endpoint(str(told["Driver"]), node, name)
    except (AttributeError, IndexError, KeyError, TypeError) as problem:
        raise Corrupt("buildx", f'"{file}" is not what buildx writes', _again(name)) from problem


def _folder(environ: Mapping[str, str]) -> Path:
    """BUILDX_CONFIG, else $DOCKER_CONFIG/buildx, else ~/.docker/buildx."""
    if own := environ.get("BUILDX_CONFIG"):
        return Path(own)
    return Path(environ.get("DOCKER_CONFIG") or f"{environ.get('HOME', '')}/.docker") / "buildx"


def _read(file: Path, name: str) -> Any:  # Any: JSON that others wrote
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        hint = "docker buildx ls shows those of this user; BUILDX_CONFIG and DOCKER_CONFIG say where they are kept"
        raise Missing("buildx", f'no builder "{name}" in {file.parent}', hint) from None
    except OSError as problem:
        why = (problem.strerror or "").lower()
        raise Denied(
            "buildx", f'"{file}" cannot be read: {why}', "run mp as the user who made it"
        ) from problem
    except ValueError as problem:
        raise Corrupt("buildx", f'"{file}" is no JSON', _again(name)) from problem


def _platforms(node: Mapping[str, Any]) -> set[str]:
    return {f"{one['os']}/{one['architecture']}" for one in node.get("Platforms") or ()}


def _endpoint(driver: str, node: Mapping[str, Any], name: str) -> Endpoint:
    address, options = str(node["Endpoint"]), node.get("DriverOpts") or {}
    if driver == "remote":
        return Endpoint(address, _certificates(options, name))
    if driver == "docker-container":
        container = f"docker-container://{_CONTAINER}{node['Name']}"
        if "://" in address:  # a Docker engine's address
            return Endpoint(container, environ={"DOCKER_HOST": address})
        return Endpoint(f"{container}?context={quote(address)}" if address else container)
    hint = 'name a builder of the driver remote or docker-container, or an address: "kube-pod://POD?namespace=NAMESPACE"'
    raise BackendError("buildx", f'buildctl cannot reach builder "{name}": its driver is "{driver}"', hint)


def _certificates(options: Mapping[str, str], name: str) -> Certificates | None:
    ca, cert, key, server = (options.get(word) for word in ("cacert", "cert", "key", "servername"))
    if not (ca or cert or key or server):
        return None
    if not ca or bool(cert) != bool(key):
        lacking = "cacert" if not ca else "key" if cert else "cert"
        raise Corrupt("buildx", f'builder "{name}" speaks TLS and has no "{lacking}"', _again(name))
    return Certificates(ca, cert, key, server)


def _again(name: str) -> str:
    return f"make it anew: docker buildx rm {name}, docker buildx create --name {name}"
