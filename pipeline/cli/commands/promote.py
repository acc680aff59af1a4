"""`mp promote`: what a canary tries becomes the deployment."""

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
    target: Annotated[str | None, typer.Option(metavar="NAME", help="Only at this target")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Let the new version that a canary tries (rollout: {strategy: canary}) take the place of the old one; the canary goes.

    Nothing else is changed. It is the version that was tried, or nothing: what models.yaml wants since then is tried first.
    """
    if not models:
        raise MpError("say which models", "mp status shows which have a canary")
    session = open_session(options_of(context))
    names = session.owned(models)
    with session.waiting.word("Reading"):
        planned = engine.promote(session.world, names, target)
    return carry_out(session, planned, "Promote these versions?", yes=yes, as_json=as_json)
