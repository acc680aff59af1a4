"""`mp lock`: pin every version, and write models.lock."""

from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import Session, open_session
from pipeline.cli.views import json, output, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.core.diagnostic import Severity
from pipeline.core.errors import ExitCode, MpError, Stale, UserError
from pipeline.manifest.lock import write_lock

FILE = "models.lock"


def run(
    context: typer.Context,
    models: Models = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Resolve anew what is pinned already: branches move")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, use no network; exit 3 when stale")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Resolve every version that models.lock does not hold to a commit or a hash, and write models.lock."""
    if upgrade and check:
        raise MpError("--upgrade and --check exclude one another")
    session = open_session(options_of(context), locked=check)
    names = session.models(models)
    anew = frozenset(names or session.project.manifest.models) if upgrade else frozenset()
    with session.waiting.word("Resolving"):
        locked = engine.lock(session.world, names, anew)
    broken = any(item.severity is Severity.ERROR for item in locked.diagnostics)
    write = bool(locked.changed) and not check and not broken and not locked.refusals
    if write:
        write_lock(session.project.settings.root / FILE, locked.lock)
    if as_json:
        output.result(
            json.text(json.locked(locked.changed, (*locked.diagnostics, *locked.refusals), written=write))
        )
    else:
        _tell(session, locked, check=check)
    if broken or locked.refusals:
        return ExitCode.ERROR if broken else ExitCode.REFUSED
    return ExitCode.STALE if check and locked.changed else ExitCode.OK


def _tell(session: Session, locked: engine.Locked, *, check: bool) -> None:
    """In words: remarks, then what changed. Raises UserError when there are errors, Stale for `check`."""
    if any(item.severity is Severity.ERROR for item in locked.diagnostics):
        raise UserError((*locked.diagnostics, *locked.refusals))
    if remarks := (*locked.diagnostics, *locked.refusals):
        project = session.project
        output.message(diagnostics(remarks, project.texts, project.options.message_ink))
    if locked.refusals:
        return
    if check and locked.changed:
        raise Stale(f"{FILE} is stale: {'; '.join(locked.changed)}", f"run mp lock and commit {FILE}")
    if locked.changed:
        output.result("\n".join([*locked.changed, f"Wrote {FILE}."]))
    elif check:
        output.result(f"{FILE} is fresh.")
    else:
        models = units.counted(len(locked.lock.models), "model")
        output.result(f"{FILE} is fresh: {models}. Nothing was written.")
