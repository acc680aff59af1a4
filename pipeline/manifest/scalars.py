"""The small types of models.yaml: names, sizes, environment variables. Used by the specs."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from pipeline.core.names import DNS_LABEL, DNS_SUBDOMAIN, SERVICE_NAME
from pipeline.core.size import PATTERN as SIZE
from pipeline.core.size import size_bytes
from pipeline.templates import TEMPLATES

SECRET_KEY = r"^[-._a-zA-Z0-9]+$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
FLAG_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
REGISTRY_URL = r"^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*$"
# RFC 6901, below the parts of workloads that say what runs (resource, inference: of a KAITO Workspace)
POINTER = r"^/(spec|resource|inference)(/([^/~]|~[01])+)+$"
BASE_IMAGE = r"^[^\s@]+(@sha256:[0-9a-f]{64})?$"
# What buildctl connects to: moby/buildkit v0.32.2, client/client.go and client/connhelper.
# buildx://NAME is ours, for docker/buildx's builders.
BUILDER = (
    r"^((tcp|unix|ssh|docker-container|podman-container|nerdctl-container|kube-pod)://[^\s]+"
    r"|buildx://[a-zA-Z][a-zA-Z0-9._+-]*)$"
)

PATTERNS = {  # pattern → what it asks for, the hint
    DNS_LABEL: ("must be lower-case letters, digits and dashes", 'such as "qwen3-8b"'),
    DNS_SUBDOMAIN: ("must be lower-case letters, digits, dashes and dots", 'such as "registry-login"'),
    SERVICE_NAME: (
        "must be lower-case letters, digits and dashes, with a letter first",
        'such as "qwen3-8b"',
    ),
    SECRET_KEY: ("must be letters, digits, dashes, dots and underscores", 'such as "token"'),
    ENV_NAME: ("must be the name of an environment variable", 'such as "HF_TOKEN"'),
    FLAG_NAME: ("must be an engine's flag without leading dashes", 'such as "max-num-seqs"'),
    REGISTRY_URL: (
        "must be host and prefix in lower case, without https://",
        'such as "ghcr.io/acme/models"',
    ),
    POINTER: ("must be a JSON pointer into what runs the model", 'such as "/spec/replicas"'),
    SIZE: ("is not a size", "write a number and a unit: 44GiB, 4Gi, 500MB"),
    BASE_IMAGE: ("must be an image with an optional digest", 'such as "registry.local/base@sha256:<64 hex>"'),
    BUILDER: (
        "must be the address of a BuildKit",
        'such as "tcp://builder:1234"; of a builder of buildx "buildx://NAME"',
    ),
}


class Spec(BaseModel):
    """A record exactly as the user wrote it."""

    # validators of parts are made with that of the whole, not one by one while modules are loaded
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def mistake(summary: str, hint: str) -> PydanticCustomError:
    """A problem in our own words; read shows it with its line."""
    return PydanticCustomError("mp", "{summary}", {"summary": summary, "hint": hint})


def parse_size(value: object) -> int:
    """Bytes of "44GiB", "4Gi" (powers of 1024), "500MB", "4G" (powers of 1000)."""
    if lacking := lacks_unit(value):
        raise mistake(*lacking)
    try:
        return size_bytes(str(value))
    except ValueError as problem:
        raise mistake(str(problem), PATTERNS[SIZE][1]) from None


def lacks_unit(value: object) -> tuple[str, str] | None:
    """What is wrong with a bare number where a size is meant, and the hint."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", str(value)):
        return None
    return f"needs a unit, {value} has none", f'write its unit: "{value}GiB" or "{value}MiB"'


Name = Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=63)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
FlagName = Annotated[str, StringConstraints(pattern=FLAG_NAME)]
Text = Annotated[str, StringConstraints(min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Template = Annotated[Name, WithJsonSchema({"type": "string", "enum": sorted(TEMPLATES)})]
Size = Annotated[
    int,
    PlainValidator(parse_size),
    WithJsonSchema({"type": "string", "pattern": SIZE, "examples": ["44GiB"]}),
]
