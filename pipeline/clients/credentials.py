"""What `docker login` left on this machine: users and passwords of registries. Used by clients/connection."""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.core.errors import BackendError

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"


def basic_credentials(host: str, environ: Mapping[str, str]) -> str | None:
    """The base64 "user:password" of a registry, as docker's config.json has it; None: nobody logged in."""
    folder = environ.get("DOCKER_CONFIG") or f"{environ.get('HOME', '')}/.docker"
    file = Path(folder) / "config.json"
    try:
        auths = json.loads(file.read_bytes()).get("auths") or {}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AttributeError) as problem:
        raise BackendError("docker config", f"{file} cannot be read: {problem}", "repair it") from problem
    for key in (host, f"https://{host}", f"http://{host}", f"https://{host}/v2/", f"https://{host}/v1/"):
        if found := _basic(auths.get(key)):
            return found
    return _basic(auths.get(_DOCKER_HUB_KEY)) if host == "docker.io" else None


def _basic(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return None
    if entry.get("auth"):
        try:
            user_and_password = base64.b64decode(str(entry["auth"]), validate=True).rstrip(b"\0")
        except binascii.Error:
            return None
        return base64.b64encode(user_and_password).decode()
    if entry.get("username"):
        return base64.b64encode(f"{entry['username']}:{entry.get('password', '')}".encode()).decode()
    return None
