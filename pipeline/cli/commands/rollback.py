"""`mp rollback`: deployments go back to their last good version, and stay there."""

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
    target: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only at this target; all of its models, when none is named"),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Bring deployments back to the last version that was good and is not the one applied last. It takes nothing but
    models.yaml and .mp: no git, no source, no new image.

    They stay there: plan and apply leave them, and say so, until models.yaml wants something else for them than now, or until
    mp apply --release.
    """
    if not models and target is None:
        raise MpError("say which models, or --target", "mp list shows them")
    session = open_session(options_of(context), lenient=True)
    names = session.owned(models) if models else ()
    with session.waiting.word("Reading"):
        planned = engine.rollback(session.world, names, target)
    return carry_out(session, planned, "Go back to these versions?", yes=yes, as_json=as_json)
