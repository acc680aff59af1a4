"""`mp show MODEL…`: where each source comes from, where its copy is, and every resource with what is live. Reads only."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.cache.storage import Storage, gather, open_storage
from pipeline.cli.options import AsJson, options_of
from pipeline.cli.session import Session, open_session
from pipeline.cli.status import details, of_entry, provenance
from pipeline.cli.views import json, output
from pipeline.cli.views.details import Details
from pipeline.cli.views.details import details as view
from pipeline.core.errors import ExitCode, UserError
from pipeline.core.plan import Plan
from pipeline.resources.cache.cached import Cached


def run(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Names, globs, references, or short names of what is cached"),
    ],
    as_json: AsJson = False,
) -> ExitCode:
    """Show where a model comes from and what was made of it: for each source the pin, licence, files with their sha256 and
    the copy in the cache; for each image and deployment what is live.

    Works without models.yaml too, for what is in the cache.
    """
    options = options_of(context)
    storage = open_storage(options)
    session = open_session(options) if storage.project else None
    names, entries = _meant(session, storage, models)
    shown, plan = _declared(session, storage, names) if session and names else ([], None)
    shown += [of_entry(entry) for entry in entries]
    if as_json:
        output.result(json.text(json.details(shown)))
    else:
        output.result("\n\n".join(view(one, str(options.folder), options.ink) for one in shown))
        if session and plan:
            session.tell(plan)
    return ExitCode.OK if plan is None or (plan.complete and not plan.errors) else ExitCode.ERROR


def _meant(
    session: Session | None, storage: Storage, words: Sequence[str]
) -> tuple[tuple[str, ...], list[Cached]]:
    """Declared models, and entries of the cache that no word means by a declared one."""

    def read(word: str) -> tuple[tuple[str, ...], list[Cached]]:
        try:
            return (session.models([word]), []) if session else ((), storage.entries([word]))
        except UserError:
            if session is None or ("/" not in word and not _is_cached(storage, word)):
                raise
            return (), storage.entries([word])

    meant = gather(words, read)
    names = dict.fromkeys(name for each, _ in meant for name in each)
    entries = [entry for _, each in meant for entry in each]
    return tuple(names), [entry for index, entry in enumerate(entries) if entry not in entries[:index]]


def _is_cached(storage: Storage, word: str) -> bool:
    try:
        return bool(storage.entries([word]))
    except UserError:
        return False


def _declared(session: Session, storage: Storage, names: tuple[str, ...]) -> tuple[list[Details], Plan]:
    planned = session.plan(engine.Selection(names))
    cached = storage.shelf.list()
    shown = []
    for name in names:
        parts = planned.lock.models.get(name, {})
        sources = provenance(parts, cached, storage.cache.missing_bytes)
        where = session.project.document.where("models", name)
        shown.append(details(planned.plan, name, sources, str(where)))
    return shown, planned.plan
