"""`mp apply`: plan, ask, carry out, prove, report."""

from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.applying import carry_out
from pipeline.cli.options import (
    Adopt,
    AdoptRestart,
    AsJson,
    BuildOnly,
    Locked,
    MaxDeletes,
    Models,
    NoCache,
    TakeFrom,
    Yes,
    options_of,
)
from pipeline.cli.session import adoption_of, open_session
from pipeline.core.errors import ExitCode


def run(
    context: typer.Context,
    models: Models = None,
    yes: Yes = False,
    as_json: AsJson = False,
    locked: Locked = False,
    max_deletes: MaxDeletes = None,
    no_cache: NoCache = False,
    build_only: BuildOnly = False,
    adopt: Adopt = False,
    adopt_restart: AdoptRestart = False,
    take_from: TakeFrom = None,
    release: Annotated[
        bool, typer.Option("--release", help="Also what mp rollback brought back and holds")
    ] = False,
) -> ExitCode:
    """Bring the world to what models.yaml declares. Shows the plan and asks first; every deployment is proven by one request.

    Ctrl-C once finishes what has begun, twice kills; running it again goes on from there. Exits 5 when partly applied.
    """
    session = open_session(options_of(context), locked=locked, take_from=take_from or ())
    selection = engine.Selection(
        session.models(models),
        max_deletes=max_deletes,
        cached=not no_cache,
        build_only=build_only,
        adoption=adoption_of(adopt=adopt, restart=adopt_restart),
        release=release,
    )
    planned = session.plan(selection)
    return carry_out(session, planned, "Apply these changes?", yes=yes, as_json=as_json)
