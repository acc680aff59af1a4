"""`mp list`: every model at every target, every adapter, and what the cache holds besides. Reads only."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.cache.storage import Storage, open_storage
from pipeline.cli.options import AsJson, Models, options_of
from pipeline.cli.session import Session, open_session
from pipeline.cli.status import adapters, rows
from pipeline.cli.views import json, output, shelf, tables
from pipeline.cli.views.tables import AdapterRow, Row
from pipeline.core.errors import ExitCode
from pipeline.core.frozen import frozen
from pipeline.core.plan import Plan
from pipeline.resources.cache.cached import Cached


def run(
    context: typer.Context,
    models: Models = None,
    only_models: Annotated[bool, typer.Option("--models", help="Models only")] = False,
    only_adapters: Annotated[bool, typer.Option("--adapters", help="Adapters only")] = False,
    cached: Annotated[
        bool, typer.Option("--cached", help="Also what the cache holds and models.yaml does not declare")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """List the models at their targets: what state each is in, which version of which source, how large, and where it answers;
    then the adapters of these models.
    """
    options = options_of(context)
    storage = open_storage(options)
    kinds = _kinds(models=only_models, adapters=only_adapters)
    session = open_session(options) if storage.project or not cached else None
    found = _declared(session, storage, session.models(models)) if session else Declared()
    found = replace(
        found,
        models=found.models if "model" in kinds else (),
        adapters=found.adapters if "adapter" in kinds else (),
    )
    others = _undeclared(storage, kinds, found.pins) if cached else None
    if as_json:
        output.result(json.text(json.models(found.models, found.adapters, others)))
    else:
        ink, sections = options.ink, []
        if session and "model" in kinds:
            sections.append(("Models", tables.models(found.models, ink)))
        if session and (found.adapters or kinds == {"adapter"}):
            sections.append(("Adapters", tables.adapters(found.adapters, ink)))
        if others is not None:
            sections.append((_title(session), shelf.undeclared(others, time.time(), ink)))
        output.result(tables.sections(sections, ink))
        if session and found.plan:
            session.tell(found.plan)
    sound = found.plan is None or (found.plan.complete and not found.plan.errors)
    return ExitCode.OK if sound else ExitCode.ERROR


@frozen
class Declared:
    """What the manifest has."""

    models: Sequence[Row] = ()
    adapters: Sequence[AdapterRow] = ()
    plan: Plan | None = None
    pins: Collection[tuple[str, str]] = ()  # source and pin of everything that models.lock has


def _kinds(*, models: bool, adapters: bool) -> set[str]:
    """The kinds that were asked for: both, when neither was."""
    if models == adapters:
        return {"model", "adapter"}
    return {"model"} if models else {"adapter"}


def _declared(session: Session, storage: Storage, names: tuple[str, ...]) -> Declared:
    planned = session.plan(engine.Selection(names))
    manifest, lock = session.project.manifest, planned.lock
    root = session.project.origin.root
    every = names or tuple(manifest.models)
    return Declared(
        rows(planned.plan, lock, manifest, names, root),
        adapters(lock, every, root, storage.cache.complete),
        planned.plan,
        {(one.source, one.pin) for parts in lock.models.values() for one in parts.values()},
    )


def _undeclared(storage: Storage, kinds: Collection[str], pins: Collection[tuple[str, str]]) -> list[Cached]:
    """What the cache holds and no model of the manifest is pinned to."""
    return [one for one in storage.shelf.list() if one.kind in kinds and (one.source, one.pin) not in pins]


def _title(session: Session | None) -> str:
    return "In the cache, not declared here" if session else "In the cache"
