"""`mp cache list|path|verify|prune|import`: what is in the cache, whether it is sound, and what may go."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pipeline.cli.asking import agreed
from pipeline.cli.cache.importing import Origin, find, here, take_over
from pipeline.cli.cache.pruning import OLDER_THAN_DAYS, pruning
from pipeline.cli.cache.pulling import folder_of
from pipeline.cli.cache.storage import open_storage, raise_all
from pipeline.cli.options import AsJson, Yes, options_of
from pipeline.cli.views import entries, output, shelf
from pipeline.cli.watching import watch
from pipeline.core.errors import ExitCode, MpError
from pipeline.core.report import Progress
from pipeline.core.resource import Address
from pipeline.resources.cache.cached import distinct_bytes

References: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[REF]...", help="References, aliases or short names; all when left out", show_default=False
    ),
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Show it and change nothing")]


def list_entries(
    context: typer.Context,
    references: References = None,
    models: Annotated[bool, typer.Option("--models", help="Models only")] = False,
    adapters: Annotated[bool, typer.Option("--adapters", help="Adapters only")] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """List what is in the cache: every version with its pin and size, when it was used, and whether it is whole; n/a is what
    nobody knows. Looks at files and reads none: mp cache verify does.
    """
    options = options_of(context)
    storage = open_storage(options, references or ())
    kinds = {"model", "adapter"} if models == adapters else {"model"} if models else {"adapter"}
    found = [one for one in storage.entries(references) if one.kind in kinds]
    disk_bytes = distinct_bytes(found)
    if as_json:
        output.result(entries.text(entries.listed(found, disk_bytes)))
    else:
        output.result(shelf.listed(found, disk_bytes, time.time(), options.ink))
    return ExitCode.OK


def path(
    context: typer.Context,
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="A model, a reference, an alias or a short name")
    ],
    pull: Annotated[bool, typer.Option("--pull", help="Fetch it first when it is not here")] = False,
) -> ExitCode:
    """Print the folder that holds the files of a cached model, and nothing else. The files are read-only: mp pull --destination
    makes copies to edit.

    Exits 1 when nothing or more than one thing is meant.
    """
    storage = open_storage(options_of(context), [reference])
    output.result(str(folder_of(storage, reference, pull=pull)))
    return ExitCode.OK


def verify(context: typer.Context, references: References = None, as_json: AsJson = False) -> ExitCode:
    """Hash every file in the cache and drop those that are not what they were: the next mp apply or mp pull fetches them again.

    Exits 1 when something was damaged.
    """
    options = options_of(context)
    storage = open_storage(options, references or ())
    found = storage.entries(references)
    total_bytes, read_bytes = distinct_bytes(found), 0
    guard = threading.Lock()
    with watch(options) as shown:

        def on_bytes(count: int) -> None:
            nonlocal read_bytes
            with guard:
                read_bytes += count
                shown.emit(Progress(Address("cache"), "verify", read_bytes, total_bytes))

        damage = storage.shelf.verify(found, on_bytes)
    if as_json:
        output.result(entries.text(entries.verified(found, damage, read_bytes)))
    else:
        output.result(shelf.verified(found, damage, read_bytes, options.ink))
    return ExitCode.ERROR if damage else ExitCode.OK


def prune(
    context: typer.Context,
    older_than: Annotated[
        int | None,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            min=0,
            help=f"Remove what was not used for so long; {OLDER_THAN_DAYS} when left out",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Whatever its age, all that models.lock of this folder does not name"),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Free the space of what nobody needs. What models.lock and the inventories of this folder's project name always stays; what
    others fetched goes when it was not used for long. Shows each with its rule, and asks first.

    Entries of the last hour and downloads under way stay too, unless --all; so does always what a running server reads.
    """
    if everything and older_than is not None:
        raise MpError("--all and --older-than exclude one another", "--all asks for no age")
    options = options_of(context)
    storage = open_storage(options)
    made = pruning(storage, older_than, everything=everything)
    show, ink = (output.message, options.message_ink) if as_json else (output.result, options.ink)
    if not (as_json and dry_run):
        show(shelf.fates(made.fates, made.plan, ink))
    freed_bytes = None
    if made.is_empty:
        freed_bytes = None if dry_run else 0
    elif not dry_run:
        if not yes and not agreed("Remove these?", "mp cache prune --dry-run"):
            raise MpError("nothing was removed")
        freed_bytes = storage.shelf.prune(made.plan)
        if not as_json:
            output.result(shelf.freed(freed_bytes, options.ink))
    if as_json:
        output.result(entries.text(entries.pruned(made.fates, made.plan, freed_bytes)))
    return ExitCode.OK


def take(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="The other cache; where these programs keep theirs when left out",
            show_default=False,
        ),
    ] = None,
    origin: Annotated[Origin | None, typer.Option("--from", help="Only caches of this program")] = None,
    move: Annotated[
        bool, typer.Option("--move", help="Take the files away there: no byte is twice on the disk")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Take over the models that the caches of huggingface_hub and InstructLab hold on this machine, every file hashed: blocks are
    shared where the file system can, else copied. What nobody knows there, such as a version, stays n/a.
    """
    options = options_of(context)
    storage = open_storage(options, ())
    found = find(options.environ, options.folder / folder.expanduser() if folder else None, origin)
    sizes_bytes = [one.size_bytes for one in found]  # before they are moved
    known = here(storage, found)
    todo = [index for index in range(len(found)) if index not in known or move]
    taken, problems = ({}, {}) if dry_run else take_over(storage, found, todo, move=move)
    if as_json:
        told = {index: problem.message for index, problem in problems.items()}
        output.result(entries.text(entries.imported(found, sizes_bytes, {**known, **taken}, told)))
    else:
        states = shelf.states(found, known, taken, problems, move=move)
        output.result(shelf.elsewhere(found, sizes_bytes, states, options.ink))
    raise_all(list(problems.values()))
    return ExitCode.OK


RUNS: Mapping[str, Callable[..., ExitCode]] = {
    "list": list_entries,
    "path": path,
    "verify": verify,
    "prune": prune,
    "import": take,
}
