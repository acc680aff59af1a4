"""`mp list`: every model at every target. Reads only."""

import typer

from pipeline import engine
from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import open_session
from pipeline.cli.status import rows
from pipeline.cli.views import json, output
from pipeline.cli.views.tables import models as view
from pipeline.core.errors import ExitCode


def run(context: typer.Context, models: Models = None, as_json: AsJson = False) -> ExitCode:
    """List the models at their targets: what state each is in, which version and pin, and where it answers."""
    session = open_session(options_of(context))
    names = session.models(models)
    plan = session.plan(engine.Selection(names)).plan
    found = rows(plan, session.project.manifest, names)
    if as_json:
        output.result(json.text(json.models(found)))
    else:
        output.result(view(found, session.project.options.ink))
        session.tell(plan)
    return ExitCode.OK if plan.complete and not plan.errors else ExitCode.ERROR
