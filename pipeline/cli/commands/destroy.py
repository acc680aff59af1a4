"""`mp destroy`: take deployments down; images and weights stay."""

from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.applying import carry_out
from pipeline.cli.options import AsJson, Models, Yes, options_of
from pipeline.cli.session import open_session
from pipeline.core.errors import ExitCode, MpError


def run(
    context: typer.Context,
    models: Models = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of this project")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Take deployments down, also those that models.yaml no longer names. Images and cached weights stay.

    Protected models are refused (exit 4).
    """
    if bool(models) == every:
        raise MpError("say which models, or --all", "mp list shows them")
    session = open_session(options_of(context), lenient=True)
    planned = session.plan(engine.Selection(session.owned(models), destroy=True))
    return carry_out(session, planned, "Destroy these?", yes=yes, as_json=as_json)
