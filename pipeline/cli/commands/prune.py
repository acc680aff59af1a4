"""`mp prune`: images and weights that nobody needs, shown with their rules and bytes, then freed."""

from typing import Annotated

import typer

from pipeline.cli.asking import agreed
from pipeline.cli.cache.pruning import OLDER_THAN_DAYS, pruning
from pipeline.cli.cache.storage import open_storage
from pipeline.cli.options import AsJson, Yes, options_of
from pipeline.cli.session import open_session
from pipeline.cli.views import entries, output, shelf, stock
from pipeline.core.errors import ExitCode, MpError
from pipeline.engine import prune as images
from pipeline.engine.prune import KEPT_VERSIONS, Pruned, Rules


def run(
    context: typer.Context,
    older_than: Annotated[
        int | None,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            min=0,
            help=f"Only what was not applied or used for so long; when left out, images of any age, weights after {OLDER_THAN_DAYS}",
        ),
    ] = None,
    keep: Annotated[
        int,
        typer.Option("--keep", metavar="N", min=1, help="Newest images of each model that stay"),
    ] = KEPT_VERSIONS,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also images of this project that no inventory here remembers, and weights of any age that models.lock does not name",
        ),
    ] = False,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it and change nothing")] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Free images and weights that nobody needs. What is applied, was good last, or is named by models.yaml and models.lock stays, in
    every environment; so do images of others. Shows each with its rule, and asks first.

    An OCI registry frees the bytes itself, later. Exits 1 when one could not be read, 5 when one refused and others did not.
    """
    if everything and older_than is not None:
        raise MpError("--all and --older-than exclude one another", "--all asks for no age")
    options = options_of(context)
    session, storage = open_session(options), open_storage(options)
    with session.waiting.word("Reading"):
        plan = images.pruning(session.world, Rules(keep, older_than, everything))
        cached = pruning(storage, older_than, everything=everything)
    show, ink = (output.message, options.message_ink) if as_json else (output.result, options.ink)
    if not (as_json and dry_run):
        title = ink("bold", "Weights in the cache")
        show(f"{stock.images(plan, ink)}\n\n{title}\n\n{shelf.fates(cached.fates, cached.plan, ink)}")
    done: Pruned | None = None
    freed_bytes: int | None = None
    if not dry_run:
        idle = not plan.removals and not plan.leaving and cached.is_empty
        if not idle and not yes and not agreed("Remove these?", "mp prune --dry-run"):
            raise MpError("nothing was removed")
        done, freed_bytes = images.prune(session.world, plan), storage.shelf.prune(cached.plan)
        if not as_json and not idle:
            output.result("\n" + stock.pruned(done, plan.names, freed_bytes, options.ink))
    if as_json:
        weights = entries.pruned(cached.fates, cached.plan, freed_bytes)
        output.result(entries.text(stock.document(plan, done, weights)))
    if done and done.problems:
        return ExitCode.PARTIAL if done.images or freed_bytes else ExitCode.ERROR
    return ExitCode.ERROR if plan.unreadable else ExitCode.OK
