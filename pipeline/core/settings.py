"""What a run knows of its surroundings: folders, identity, environment variables. Made once by cli, read by wiring."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.core.errors import MpError
from pipeline.core.frozen import frozen
from pipeline.core.model import Secret

DOCKER_HOST = "unix:///var/run/docker.sock"


@frozen
class Settings:
    root: Path  # folder of models.yaml
    cache: Path  # content-addressed store of this machine
    state: Path  # root / ".mp": inventory, journal, launches
    environ: Mapping[str, str]
    environment: str = "default"
    commit: str | None = None  # of the checkout, when it is one
    offline: bool = (
        False  # no source is asked and nothing is pinned anew: models.lock and the cache have to do
    )

    def secret(self, secret: Secret) -> str:
        """The value of a secret on this machine; never to be logged, stored or put into a State."""
        value = self.text(secret).removesuffix("\n").removesuffix("\r")
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise MpError(
                f'secret "{secret.name}" holds a control character', f"a key is one line: {_again(secret)}"
            )
        return value

    def text(self, secret: Secret) -> str:
        """A secret of several lines, such as a private key; as little to be shown as any other."""
        value = self._file(secret) if secret.file else self.environ.get(secret.env or "", "")
        if not value.strip():
            raise MpError(f'secret "{secret.name}" is not set', _again(secret))
        return value

    def _file(self, secret: Secret) -> str:
        try:
            return (self.root / Path(str(secret.file)).expanduser()).read_text()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as problem:
            why = (problem.strerror or "").lower() if isinstance(problem, OSError) else "it is no text"
            raise MpError(f'secret "{secret.name}": "{secret.file}" cannot be read: {why}') from None


def _again(secret: Secret) -> str:
    """What to do about a secret that is not there, or not right."""
    return (
        f"write it into {secret.file}" if secret.file else f"export {secret.env or 'the variable it names'}"
    )


def default_cache(environ: Mapping[str, str]) -> Path:
    """MP_CACHE, else $XDG_CACHE_HOME/mp, else ~/.cache/mp."""
    if chosen := environ.get("MP_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".cache")
    return Path(base) / "mp"


def is_offline(environ: Mapping[str, str]) -> bool:
    """HF_HUB_OFFLINE, with the values that huggingface_hub takes for true (2.4.0, constants.py)."""
    return environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def default_docker_host(environ: Mapping[str, str]) -> str:
    """The Docker engine that is meant when none is named: DOCKER_HOST's, or this machine's."""
    named = environ.get("DOCKER_HOST") or DOCKER_HOST
    return named if "://" in named else f"tcp://{named}"
