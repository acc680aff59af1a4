"""`mp show MODEL…`: pins, sizes, files, and every resource with what is live. Reads only."""

from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.options import AsJson, options_of
from pipeline.cli.session import open_session
from pipeline.cli.status import details
from pipeline.cli.views import json, output
from pipeline.cli.views.tables import details as view
from pipeline.core.errors import ExitCode


def run(
    context: typer.Context,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names or globs")],
    as_json: AsJson = False,
) -> ExitCode:
    """Show what is known of a model: its pin, sizes and facts, and each of its resources with what is live."""
    session = open_session(options_of(context))
    names = session.models(models)
    plan = session.plan(engine.Selection(names)).plan
    shown = [details(plan, name, session.project.origin.root) for name in names]
    if as_json:
        output.result(json.text(json.details(shown)))
    else:
        output.result("\n\n".join(view(one, session.project.options.ink) for one in shown))
        session.tell(plan)
    return ExitCode.OK if plan.complete and not plan.errors else ExitCode.ERROR
