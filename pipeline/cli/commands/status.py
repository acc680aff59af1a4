"""`mp status`: how every deployment is now. Reads only."""

import time

import typer

from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import open_session
from pipeline.cli.views import json, output
from pipeline.cli.views.standing import status as view
from pipeline.cli.views.standing import status_json
from pipeline.core.errors import ExitCode
from pipeline.core.resource import Unreadable
from pipeline.engine.status import status


def run(context: typer.Context, models: Models = None, as_json: AsJson = False) -> ExitCode:
    """Say how every deployment is right now: its health with the reason, version, replicas, when it answered last, and
    what a rollback holds. Asks the targets, and neither sources nor registries.

    Exits 1 when a target could not be read.
    """
    session = open_session(options_of(context), lenient=True)
    names = session.owned(models)
    with session.waiting.word("Reading"):
        found = status(session.world, names)
    if as_json:
        output.result(json.text(status_json(found)))
    else:
        output.result(view(found, time.time(), session.project.options.ink))
    unread = any(isinstance(one.answer, Unreadable) for one in found)
    return ExitCode.ERROR if unread else ExitCode.OK
