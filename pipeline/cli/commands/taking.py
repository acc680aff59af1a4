"""`mp import kubernetes` and `mp import kaito`: entries for what runs in a target's namespace and nobody declares. Changes nothing there."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from pipeline import wiring
from pipeline.cli.options import options_of
from pipeline.cli.project import FILE
from pipeline.cli.session import Session, open_session
from pipeline.cli.views import imported as view
from pipeline.cli.views import output, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.errors import ExitCode, MpError, UserError
from pipeline.core.frozen import frozen
from pipeline.engine.importing import Imported, declared_names, imported
from pipeline.manifest.read import read
from pipeline.resources.cluster.health import Object
from pipeline.resources.cluster.strangers import deployments, surroundings, workspaces
from pipeline.targets import describing as deployment
from pipeline.targets.described import Described, left_out
from pipeline.targets.kaito import describing as workspace
from pipeline.targets.kaito.spec import KaitoSpec
from pipeline.targets.kubernetes.spec import KubernetesSpec

S = TypeVar("S")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Names of objects; all when left out", show_default=False),
]
Out = Annotated[str, typer.Option("--out", metavar="FILE", help="File to write; - is the standard output")]
Add = Annotated[bool, typer.Option("--add", help="Put the entries into models.yaml, below what is there")]


def kubernetes(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A kubernetes target of models.yaml")],
    names: Names = None,
    out: Out = "-",
    add: Add = False,
) -> ExitCode:
    """Write entries for the Deployments of a target's namespace that bear no mark of mp: image, arguments, GPUs, replicas.

    Each says manage: observe, so nothing is changed by it. Remove that line and run mp apply --adopt to take it over.
    """
    session = open_session(options_of(context))
    spec = _spec(session, target, KubernetesSpec, "kubernetes")
    with session.waiting.word("Reading"):
        there = deployments(wiring.cluster(session.world.settings, spec.context), spec.namespace)
    return _told(session, target, names, _Found(there, deployment.describe), out, add=add)


def kaito(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A kaito target of models.yaml")],
    names: Names = None,
    out: Out = "-",
    add: Add = False,
) -> ExitCode:
    """Write entries for the Workspaces and InferenceSets of a target's namespace that bear no mark of mp: preset, instance
    type, GPUs, adapters, node labels, replicas.

    Each says manage: observe, so nothing is changed by it. Remove that line and run mp apply --adopt to take it over.
    """
    session = open_session(options_of(context))
    spec = _spec(session, target, KaitoSpec, "kaito")
    with session.waiting.word("Reading"):
        cluster = wiring.cluster(session.world.settings, spec.context)
        there = workspaces(cluster, spec.namespace)
        around = workspace.Around(*surroundings(cluster, spec.namespace), spec.pull_secret)
    return _told(
        session, target, names, _Found(there, partial(workspace.describe, around=around)), out, add=add
    )


RUNS = {"kubernetes": kubernetes, "kaito": kaito}


@frozen
class _Found:
    """What others made, and how it is told."""

    objects: Mapping[str, Object]  # "Deployment/qwen"
    describe: Callable[[Object], Described | None]


def _spec(session: Session, target: str, record: type[S], kind: str) -> S:
    targets = session.project.manifest.targets
    spec = targets.get(target)
    if isinstance(spec, record):
        return spec
    known = [name for name, one in targets.items() if isinstance(one, record)]
    hint = f"{kind} targets: {', '.join(known)}" if known else "declare one under `targets:`"
    raise UserError([error(f'"{target}" is no {kind} target of {FILE}', hint=hint)])


def _told(
    session: Session, target: str, names: list[str] | None, there: _Found, out: str, *, add: bool
) -> ExitCode:
    found = _imported(session, target, names or [], there)
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


def _imported(session: Session, target: str, names: list[str], there: _Found) -> Imported:
    manifest, environment = session.project.manifest, session.world.settings.environment
    known = {_name(key) for key in there.objects}
    if unknown := [name for name in names if name not in known]:
        hint = "what bears mp's mark is declared already; mp list shows it"
        raise UserError([error(f'nothing without a mark is called "{name}"', hint=hint) for name in unknown])
    declared = declared_names(manifest, target, environment)
    described: list[Described] = []
    remarks: list[Diagnostic] = []
    for key in sorted(there.objects, key=lambda key: (_name(key), key)):
        if _name(key) in declared or (names and _name(key) not in names):
            continue
        one = there.objects[key]
        if any(_name(key) == other.name for other in described):
            remarks.append(warning(f"{key}: another one has its name here, it is left out"))
        elif why := left_out(one):
            remarks.append(warning(f"{key}: {why}, it is left out"))
        elif (entry := there.describe(one)) is None:
            remarks.append(warning(f"{key}: its name can be no name of an entry, it is left out"))
        else:
            described.append(entry)
    if remarks:
        output.message(diagnostics(remarks, {}, session.project.options.message_ink))
    return imported(manifest, target, described)


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
        if not again.is_right:
            raise UserError(again.diagnostics)
        part.replace(file)
    except OSError as problem:
        raise MpError(f"{file} cannot be written: {problem}", "use --out -") from problem
    finally:
        part.unlink(missing_ok=True)


def _name(key: str) -> str:
    """ "Workspace/phi" → "phi"."""
    return key.partition("/")[2]
