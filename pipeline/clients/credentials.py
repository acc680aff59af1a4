"""What `docker login` left on this machine: users and passwords of registries. Used by clients/connection."""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.core.errors import BackendError

_HELPER_TIMEOUT_S = 60  # it may ask the user to unlock a key ring
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"


def basic_credentials(host: str, environ: Mapping[str, str]) -> str | None:
    """The base64 "user:password" of a registry, as docker's config.json has it; None: nobody logged in."""
    folder = environ.get("DOCKER_CONFIG") or f"{environ.get('HOME', '')}/.docker"
    file = Path(folder) / "config.json"
    try:
        config = json.loads(file.read_bytes())
        auths = config.get("auths") or {}
        helper = (config.get("credHelpers") or {}).get(host) or config.get("credsStore")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, AttributeError) as problem:
        raise BackendError("docker config", f"{file} cannot be read: {problem}", "repair it") from problem
    key = _DOCKER_HUB_KEY if host == "docker.io" else host
    if helper and (found := _helped(f"docker-credential-{helper}", key, environ)):
        return found
    for key in (host, f"https://{host}", f"http://{host}", f"https://{host}/v2/", f"https://{host}/v1/"):
        if found := _basic(auths.get(key)):
            return found
    return _basic(auths.get(_DOCKER_HUB_KEY)) if host == "docker.io" else None


def _helped(program: str, key: str, environ: Mapping[str, str]) -> str | None:
    """What a credential helper answers; None where it knows nothing of the registry, or is not installed."""
    import subprocess

    try:
        said = subprocess.run(  # its output is the password: no error of ours may repeat it
            [program, "get"],
            input=key.encode(),
            capture_output=True,
            env=dict(environ),
            timeout=_HELPER_TIMEOUT_S,
        )
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired):
        raise BackendError(program, f"gives no password for {key}", f"try it: {program} get") from None
    if said.returncode != 0:
        if b"not found" in said.stdout + said.stderr:
            return None
        raise BackendError(program, f"gives no password for {key}", f"try it: {program} get")
    try:
        entry = json.loads(said.stdout)
        return _basic({"username": entry["Username"], "password": entry["Secret"]})
    except (ValueError, KeyError, TypeError):
        raise BackendError(program, f"answers no JSON for {key}", f"try it: {program} get") from None


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
