"""`mp plan`: what apply would do, with bytes and reasons. Reads only."""

from typing import Annotated

import typer

from pipeline import engine
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
    options_of,
)
from pipeline.cli.session import adoption_of, open_session, verdict
from pipeline.cli.views import json, output
from pipeline.cli.views.plan import plan as view
from pipeline.core.errors import ExitCode


def run(
    context: typer.Context,
    models: Models = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit 2 when there are changes")
    ] = False,
    as_json: AsJson = False,
    locked: Locked = False,
    max_deletes: MaxDeletes = None,
    no_cache: NoCache = False,
    build_only: BuildOnly = False,
    adopt: Adopt = False,
    adopt_restart: AdoptRestart = False,
    take_from: TakeFrom = None,
) -> ExitCode:
    """Say what apply would do: every change with its reason, the bytes to download, to push and reused. Nothing is changed.

    Exits 1 when not everything could be read, 4 when a guard refuses.
    """
    session = open_session(options_of(context), locked=locked, take_from=take_from or ())
    selection = engine.Selection(
        session.models(models),
        max_deletes=max_deletes,
        cached=not no_cache,
        build_only=build_only,
        adoption=adoption_of(adopt=adopt, restart=adopt_restart),
    )
    planned = session.plan(selection)
    plan = planned.plan
    if as_json:
        output.result(json.text(json.plan(plan)))
    else:
        project = session.project
        output.result(view(plan, session.origin(planned), project.texts, project.options.ink))
    code = verdict(plan)
    return ExitCode.CHANGES if code is ExitCode.OK and detailed_exitcode and plan.active else code
