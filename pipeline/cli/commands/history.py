"""`mp history`: what was applied when, by which commit, and how it went. Reads only."""

from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import open_session
from pipeline.cli.views import json, output
from pipeline.cli.views.history import history as view
from pipeline.cli.views.history import history_json
from pipeline.core.errors import ExitCode
from pipeline.core.resource import owner_of


def run(
    context: typer.Context,
    models: Models = None,
    most: Annotated[
        int, typer.Option("--most", metavar="N", min=1, help="Changes to show, the newest first")
    ] = 50,
    as_json: AsJson = False,
) -> ExitCode:
    """Say what was done to deployments and images, the newest first: when, from which version to which, by which commit,
    whether it went well, how long it took. It is kept in .mp and asks nobody.
    """
    session = open_session(options_of(context), lenient=True)
    past = engine.past(session.world)
    names = session.owned(models, others=dict.fromkeys(owner_of(one.address) for one in past))
    found = [one for one in past if not names or owner_of(one.address) in names][:most]
    if as_json:
        output.result(json.text(history_json(found)))
    else:
        output.result(view(found, session.project.options.ink))
    return ExitCode.OK
