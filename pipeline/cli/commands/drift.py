"""`mp drift`: where the world moved away from what was applied last. Reads only."""

import typer

from pipeline import engine
from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import open_session
from pipeline.cli.views import json, output
from pipeline.cli.views.drift import drift as view
from pipeline.core.errors import ExitCode


def run(context: typer.Context, models: Models = None, as_json: AsJson = False) -> ExitCode:
    """Compare the world with what was applied last. What models.yaml changed since is no drift: mp plan shows it.

    Exits 2 on drift, 1 when not everything could be read.
    """
    session = open_session(options_of(context))
    plan = session.plan(engine.Selection(session.models(models))).plan
    project = session.project
    if as_json:
        output.result(json.text(json.drift(plan)))
    else:
        output.result(view(plan, project.origin, project.texts, project.options.ink))
    if plan.errors or not plan.complete:
        return ExitCode.ERROR
    return ExitCode.CHANGES if plan.drifted else ExitCode.OK
