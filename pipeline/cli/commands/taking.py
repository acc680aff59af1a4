"""`mp import kubernetes`: entries for what runs in a target's namespace and nobody declares. Changes nothing there."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import wiring
from pipeline.cli.options import options_of
from pipeline.cli.project import FILE
from pipeline.cli.session import Session, open_session
from pipeline.cli.views import imported as view
from pipeline.cli.views import output, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.core.diagnostic import error, warning
from pipeline.core.errors import ExitCode, MpError, UserError
from pipeline.engine.importing import Imported, declared_names, imported
from pipeline.manifest.read import read
from pipeline.resources.cluster.live import strangers
from pipeline.targets.kubernetes.describing import describe
from pipeline.targets.kubernetes.spec import KubernetesSpec


def kubernetes(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A kubernetes target of models.yaml")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Names of Deployments; all when left out", show_default=False
        ),
    ] = None,
    out: Annotated[
        str, typer.Option("--out", metavar="FILE", help="File to write; - is the standard output")
    ] = "-",
    add: Annotated[
        bool, typer.Option("--add", help="Put the entries into models.yaml, below what is there")
    ] = False,
) -> ExitCode:
    """Write entries for the Deployments of a target's namespace that bear no mark of mp: image, arguments, GPUs, replicas.

    Each says manage: observe, so nothing is changed by it. Remove that line and run mp apply --adopt to take it over.
    """
    session = open_session(options_of(context))
    found = _found(session, target, names or [])
    if not found.models:
        output.message("nothing to import")
        return ExitCode.OK
    if add:
        _add(session, found)
    elif out == "-":
        output.result(view.document(found, f"what runs at {target}: put these into {FILE}"))
    else:
        _write(Path(out), view.document(found, f"what runs at {target}: put these into {FILE}"))
    output.message(f"{units.counted(len(found.models), 'model')} imported")
    return ExitCode.OK


RUNS = {"kubernetes": kubernetes}


def _found(session: Session, target: str, names: list[str]) -> Imported:
    manifest, environment = session.project.manifest, session.world.settings.environment
    spec = manifest.targets.get(target)
    if not isinstance(spec, KubernetesSpec):
        known = [name for name, one in manifest.targets.items() if isinstance(one, KubernetesSpec)]
        hint = f"kubernetes targets: {', '.join(known)}" if known else "declare one under `targets:`"
        raise UserError([error(f'"{target}" is no kubernetes target of {FILE}', hint=hint)])
    with session.waiting.word("Reading"):
        there = strangers(wiring.cluster(session.world.settings, spec.context), spec.namespace)
    by_name = {str(one["metadata"]["name"]): one for one in there}
    declared = declared_names(manifest, target, environment)
    if unknown := [name for name in names if name not in by_name]:
        hint = "what bears mp's mark is declared already; mp list shows it"
        raise UserError(
            [
                error(f'no Deployment "{name}" without a mark in {spec.namespace}', hint=hint)
                for name in unknown
            ]
        )
    wanted = [name for name in names or sorted(by_name) if name not in declared]
    described = {name: describe(by_name[name]) for name in wanted}
    remarks = [
        warning(f'Deployment "{name}": its name can be no name of an entry, it is left out')
        for name, one in described.items()
        if one is None
    ]
    if remarks:
        output.message(diagnostics(remarks, {}, session.project.options.message_ink))
    return imported(manifest, target, [one for one in described.values() if one is not None])


def _write(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError as problem:
        raise MpError(f"{file} exists already", "name a new file with --out") from problem
    except OSError as problem:
        raise MpError(f"{file} cannot be written: {problem}", "name another file with --out") from problem


def _add(session: Session, found: Imported) -> None:
    """Into models.yaml, which stays as it is when it would not be right any more."""
    file = session.project.options.folder / FILE
    text = view.added(session.project.document.text, found)
    if text is None:
        raise MpError(
            f"{FILE} has a section in braces", "write its keys on lines of their own, or use --out -"
        )
    part = file.with_name(f".{FILE}.part")
    try:
        part.write_text(text, encoding="utf-8")
        again = read(part, session.project.options.environment)
        if again.manifest is None:
            raise UserError(again.diagnostics)
        part.replace(file)
    except OSError as problem:
        raise MpError(f"{file} cannot be written: {problem}", "use --out -") from problem
    finally:
        part.unlink(missing_ok=True)
