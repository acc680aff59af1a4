"""`mp schema`: the JSON Schemas of what mp reads and writes, printed or written to a folder."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from pipeline.cli.options import options_of
from pipeline.cli.views import json, output
from pipeline.cli.views.schema import SCHEMAS
from pipeline.core.digest import Json
from pipeline.core.errors import ExitCode, MpError

_ELSEWHERE: Mapping[str, tuple[str, str]] = {  # made where the record is defined
    "models": ("pipeline.manifest.schema", "models_schema"),
    "lock": ("pipeline.manifest.schema", "lock_schema"),
    "launch": ("pipeline.templates.launch", "launch_schema"),
}
NAMES = (*_ELSEWHERE, *SCHEMAS)


def run(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help=f"One of {', '.join(NAMES)}", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write <NAME>.schema.json files into a folder")
    ] = None,
) -> ExitCode:
    """Print the JSON Schema of models.yaml or of another form; with --out, write them as files."""
    if name is None and out is None:
        raise MpError("say which schema, or --out DIR for all", f"there are {', '.join(NAMES)}")
    if name is not None and name not in NAMES:
        raise MpError(f'there is no schema "{name}"', f"there are {', '.join(NAMES)}")
    chosen = NAMES if name is None else (name,)
    if out is None:
        output.result(json.text(schema(chosen[0])))
        return ExitCode.OK
    _write(options_of(context).folder / out, chosen)
    return ExitCode.OK


def _write(folder: Path, chosen: Sequence[str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in chosen:
            (folder / f"{each}.schema.json").write_text(json.text(schema(each)) + "\n", encoding="utf-8")
    except OSError as problem:
        reason = (problem.strerror or "unknown error").lower()
        hint = "--out takes a folder that you may write to"
        raise MpError(f"{problem.filename or folder} cannot be written: {reason}", hint) from problem


def schema(name: str) -> dict[str, Json]:
    """The schema of this name."""
    if name in SCHEMAS:
        return SCHEMAS[name]()
    module, function = _ELSEWHERE[name]
    made = cast(Callable[[], dict[str, Json]], getattr(importlib.import_module(module), function))
    return made()
