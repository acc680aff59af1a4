"""What `docker login` left on this machine: users, passwords and identity tokens of registries. Used by clients/tokens."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen

_HELPER_TIMEOUT_S = 60  # it may ask the user to unlock a key ring
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_IDENTITY_USER = "<token>"  # docker-credential-helpers' word for: the secret is an identity token


@frozen
class Login:
    """One of the two is set."""

    basic: str | None = field(default=None, repr=False)  # base64 of "user:password"
    identity_token: str | None = field(default=None, repr=False)  # OAuth2's refresh token


def login(host: str, environ: Mapping[str, str]) -> Login | None:
    """How to sign in at a registry, as docker's config.json has it; None: nobody logged in."""
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
        if found := _login(auths.get(key)):
            return found
    return _login(auths.get(_DOCKER_HUB_KEY)) if host == "docker.io" else None


def _helped(program: str, key: str, environ: Mapping[str, str]) -> Login | None:
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
        if entry["Username"] == _IDENTITY_USER:
            return Login(identity_token=str(entry["Secret"]))
        return _login({"username": entry["Username"], "password": entry["Secret"]})
    except (ValueError, KeyError, TypeError):
        raise BackendError(program, f"answers no JSON for {key}", f"try it: {program} get") from None


def _login(entry: object) -> Login | None:
    if not isinstance(entry, dict):
        return None
    if entry.get("identitytoken"):  # docker's own order: it counts more than a password beside it
        return Login(identity_token=str(entry["identitytoken"]))
    if entry.get("auth"):
        try:
            user_and_password = base64.b64decode(str(entry["auth"]), validate=True).rstrip(b"\0")
        except binascii.Error:
            return None
        return Login(base64.b64encode(user_and_password).decode())
    if entry.get("username"):
        pair = f"{entry['username']}:{entry.get('password', '')}"
        return Login(base64.b64encode(pair.encode()).decode())
    return None
