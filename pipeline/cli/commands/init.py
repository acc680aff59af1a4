"""`mp init`: a first models.yaml, commented, the schema that lets editors complete it, and mp's own folder in .gitignore."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import options_of
from pipeline.cli.views import json, output
from pipeline.core.errors import ExitCode, MpError
from pipeline.manifest.schema import models_schema

MANIFEST = "models.yaml"
SCHEMA = "models.schema.json"
TEMPLATE = """\
# yaml-language-server: $schema=./models.schema.json
# What `mp apply` brings about. `mp plan` says first what that would be.
version: 1
project: {project:<29}# owner mark on everything mp makes

defaults: {{template: transformers, hardware: cpu, registry: here}}

hardware:                             # what a replica gets
  cpu: {{gpus: 0, cpu: 2, memory: 8Gi}}
  # l40s: {{gpu: L40S, gpus: 1}}

registries:                           # where images go
  here: {{layout: .mp/registry}}        # a folder on this machine
  # main: {{url: ghcr.io/acme/models}}

targets:                              # where models run or are published
  laptop: {{kind: local}}
  # box: {{kind: docker, host: "ssh://gpu1"}}

models:
  qwen3-0-6b:                         # its name everywhere: images, containers, URLs
    source: hf://Qwen/Qwen3-0.6B      # or a folder: ./checkpoint
    version: main                     # branch, tag or commit; `mp lock` pins it in models.lock
    test:                             # what must be answered before it counts as applied
      - prompt: "2+2="
    targets:
      laptop: {{}}
"""
IGNORED = ".mp/"


def run(
    context: typer.Context,
    project: Annotated[
        str | None, typer.Option(metavar="NAME", help="Project; the folder's name when left out")
    ] = None,
) -> ExitCode:
    """Write a commented models.yaml for one small model on this machine, beside it the schema that lets editors complete it, and add .mp/ to .gitignore.

    Nothing is overwritten. After an update of mp, mp schema models --out . renews the schema.
    """
    folder = options_of(context).folder
    name = project or _dns_label(folder.name)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise MpError(f'"{name}" cannot be a project name', "use lower-case letters, digits and dashes")
    if not _written(folder / MANIFEST, TEMPLATE.format(project=name)):
        raise MpError(f"{MANIFEST} is there already", "edit it, or remove it first")
    new_schema = _written(folder / SCHEMA, json.text(models_schema()) + "\n")
    _ignore(folder / ".gitignore")
    files = f"{MANIFEST} and {SCHEMA}" if new_schema else f"{MANIFEST}; {SCHEMA} was there already"
    output.result(f"Wrote {files}; .gitignore leaves out {IGNORED}.\nNext: mp plan")
    return ExitCode.OK


def _written(file: Path, text: str) -> bool:
    """Write a new file; False where there is one."""
    try:
        with _writing(file), file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        return False
    return True


def _ignore(file: Path) -> None:
    with _writing(file):
        lines = file.read_bytes().splitlines() if file.exists() else []
        if IGNORED.encode() not in lines:
            file.write_bytes(b"\n".join([*lines, IGNORED.encode()]) + b"\n")


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as problem:
        reason = (problem.strerror or "unknown error").lower()
        raise MpError(
            f"{file} cannot be written: {reason}", "run it in a folder that you may write to"
        ) from problem


def _dns_label(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-") or "models"
