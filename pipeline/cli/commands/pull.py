"""`mp pull REF…`: a model into the cache, or out of it into a folder. Writes the cache and that folder, nothing else."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from pipeline.cli.cache.pulling import bring
from pipeline.cli.cache.storage import open_storage, raise_all
from pipeline.cli.cache.wanted import wanted
from pipeline.cli.options import AsJson, options_of
from pipeline.cli.views import entries, output, shelf
from pipeline.core.errors import ExitCode, MpError
from pipeline.core.model import Filter

Format: TypeAlias = Literal["auto", "safetensors", "gguf", "text"]


def run(
    context: typer.Context,
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="REF...", help="Models of models.yaml, references, aliases", show_default=False
        ),
    ],
    destination: Annotated[
        Path | None,
        typer.Option("--destination", metavar="DIR", help="Copy the files into a folder too; yours to edit"),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="GLOB", help="Take these files only; may be repeated"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Leave these files out; may be repeated"),
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", help="Of the weights, where a source has several; text takes none")
    ] = "auto",
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Ask the source again what is here already: branches move")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Bring models into the cache, each file verified by its sha256. A model of models.yaml comes as models.lock pins it, with all
    its sources; any other reference (hf://Qwen/Qwen3-8B:main) as its source has it now.

    What is here already needs no request. Ctrl-C keeps what has arrived, and the same command goes on from there.
    """
    options = options_of(context)
    storage = open_storage(options, references)
    found = wanted(
        storage, references, Filter(tuple(include or ()), tuple(exclude or ()), format), upgrade=upgrade
    )
    if destination and len(found) > 1:
        names = ", ".join(f'"{one.name}"' for one in found)
        raise MpError(
            f"--destination takes one model, and these are {len(found)}: {names}", "pull them one by one"
        )
    done, problems = bring(storage, found, options.folder / destination.expanduser() if destination else None)
    if as_json:
        output.result(entries.text(entries.pulled(done)))
    elif done:
        output.result(shelf.pulled(done, options.ink))
    raise_all(problems)
    return ExitCode.OK
