"""`mp outdated`: what moved upstream since it was pinned, and what of it changed. Reads only; it is no drift."""

from typing import Annotated

import typer

from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import open_session
from pipeline.cli.views import json, output
from pipeline.cli.views.outdated import outdated as view
from pipeline.core.errors import ExitCode
from pipeline.engine.outdated import newer_engines, outdated


def run(
    context: typer.Context,
    models: Models = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when something has moved")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Ask every source whether its branch or tag has moved since it was pinned, and say what changed: weights, tokenizer,
    chat template, config keys, licence, gating, code. What is pinned by commit or digest cannot move.

    What brings new code is told beside the rest, and may not be taken over. Exits 1 when a source could not be asked.
    """
    session = open_session(options_of(context))
    names = session.models(models) or tuple(session.project.manifest.models)
    with session.waiting.word("Asking"):
        looked = outdated(session.world, names)
    engines = newer_engines(session.world, names)
    if as_json:
        output.result(json.text(json.outdated(looked, engines)))
    else:
        root = str(session.world.settings.root)
        output.result(view(looked, engines, root, session.project.options.ink))
    if not all(one.moved for one in looked.found):
        return ExitCode.ERROR
    return ExitCode.CHANGES if detailed_exitcode and (looked.found or engines) else ExitCode.OK
