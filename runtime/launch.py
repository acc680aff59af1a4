"""Reads launch.json (schema/launch.schema.json): what to serve and how. Shared by every serve.py; lies beside it in images."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FORMAT_VERSION = 1
VARIABLE = "MP_LAUNCH"  # holds the text of launch.json where no file can be handed over


@dataclass(frozen=True)
class Launch:
    """One deployment: a folder of weights, the name it is served under, the engine's own flags."""

    template: str
    model: str
    served_name: str
    host: str
    port: int
    adapters: Mapping[str, str]  # name → folder inside the model's
    argv: tuple[str, ...]
    env: Mapping[str, str]
    secrets: Mapping[str, str]  # environment variable → file that holds its value
    group: (
        Mapping[str, str] | None
    )  # of several nodes: how many, and the variables that tell this one's place


def read(arguments: Sequence[str], environ: Mapping[str, str], template: str) -> Launch:
    """The launch of this process: of the file that is its first argument, else of MP_LAUNCH. Ends it when there is none."""
    if arguments:
        text, where = _text_of(Path(arguments[0])), arguments[0]
    elif VARIABLE in environ:
        text, where = environ[VARIABLE], VARIABLE
    else:
        raise SystemExit(f"mp: no launch: name a launch.json, or put its text into {VARIABLE}")
    launch = _parse(text, where)
    if launch.template != template:
        raise SystemExit(f'mp: {where}: template is "{launch.template}", but this is the {template} runtime')
    return launch


def environment(launch: Launch, environ: Mapping[str, str]) -> dict[str, str]:
    """The engine's environment: this one, what the launch adds, and the secrets from their files."""
    secrets = {name: _text_of(Path(file)).rstrip("\n") for name, file in launch.secrets.items()}
    return {**environ, **launch.env, **secrets}


def export(launch: Launch) -> None:
    """Put the engine's environment into this process, before the engine is imported."""
    os.environ.update(environment(launch, os.environ))


def _parse(text: str, where: str) -> Launch:
    try:
        document = json.loads(text)
        if document["format_version"] != FORMAT_VERSION:
            raise SystemExit(
                f"mp: {where}: format_version {document['format_version']!r} is not {FORMAT_VERSION}"
            )
        return Launch(
            template=str(document["template"]),
            model=str(document["model"]),
            served_name=str(document["served_name"]),
            host=str(document["host"]),
            port=int(document["port"]),
            adapters={str(name): str(folder) for name, folder in document["adapters"].items()},
            argv=tuple(map(str, document["argv"])),
            env={str(name): str(value) for name, value in document["env"].items()},
            secrets={str(name): str(file) for name, file in document["secrets"].items()},
            group=None if document["group"] is None else {k: str(v) for k, v in document["group"].items()},
        )
    except (ValueError, TypeError, AttributeError, KeyError) as problem:
        raise SystemExit(f"mp: {where} is no launch document: {problem!r}") from problem


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise SystemExit(f"mp: {file} cannot be read: {problem}") from problem
