"""`mp render`: the objects that apply would write, as files, for those who let Argo CD or Flux apply them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline import engine
from pipeline.cli.options import Locked, Models, options_of
from pipeline.cli.session import Session, open_session
from pipeline.cli.views import objects as view
from pipeline.cli.views import output, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.core.diagnostic import Diagnostic, Severity, error, warning
from pipeline.core.errors import ExitCode, MpError, UserError
from pipeline.core.resource import Address, Observed, Resource, Unreadable, owner_of, place_of
from pipeline.resources.cluster.filling import is_claim, objects_of, unfilled
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.state import ClusterState

KINDS = ("kubernetes", "kaito")


def run(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write into: TARGET/NAME.yaml each")
    ],
    models: Models = None,
    locked: Locked = False,
) -> ExitCode:
    """Write the objects of kubernetes and kaito targets into a folder, exactly as mp apply would send them: with the digests
    of their images, which registries are asked for. No cluster is asked, and nothing outside the folder changes.

    Without MODEL, files that mp render wrote for what is no longer declared are removed. Files of others stay.
    """
    session = open_session(options_of(context), locked=locked)
    names = session.models(models)
    with session.waiting.word("Reading"):
        desired = engine.desired(session.world, KINDS, engine.Selection(names))
    if any(one.severity is Severity.ERROR for one in desired.diagnostics):
        raise UserError(desired.diagnostics)
    digests, remarks = _digests(desired)
    _tell(session, (*desired.diagnostics, *remarks))
    project = session.project.manifest.project
    head = view.head(project, session.world.settings.environment)
    files = {
        _file(resource): view.document(head, _objects(resource, digests))
        for resource in desired.resources
        if not _is_standing(resource)
    }
    _write(out, files)
    gone = () if names else _clear(out, head, files)
    for name in (*files, *(f"{name} (removed)" for name in gone)):
        output.result(name)
    output.message(f"{units.counted(len(files), 'file')} in {out}")
    unclear = any(one.severity is Severity.ERROR for one in remarks)
    return ExitCode.ERROR if unclear else ExitCode.OK


def _digests(desired: engine.Desired) -> tuple[Mapping[Address, str], list[Diagnostic]]:
    """The digests of the images that are published, and a remark for each that is not."""
    found: dict[Address, str] = {}
    remarks: list[Diagnostic] = []
    for address, answer in desired.answers.items():
        match answer:
            case Observed(digest=str(digest)):
                found[address] = digest
            case Unreadable():
                remarks.append(
                    error(f"{address}: {answer.reason}", hint=answer.hint, model=owner_of(address))
                )
            case _:
                remarks.append(
                    warning(
                        f"{address}: is not published: it is written by its tag, without a digest",
                        hint="publish it with mp apply and a registry target, and render again",
                        model=owner_of(address),
                    )
                )
    return found, remarks


def _objects(resource: Resource[ClusterState], known: Mapping[Address, str]) -> list[dict[str, Any]]:
    recipe = resource.desired.recipe
    assert recipe is not None, "a desired deployment knows how it is made"
    digests = {image: known[address] for image, address in recipe.images.items() if address in known}
    filling = {key_of(one): one for task in recipe.tasks.values() for one in objects_of(task)}
    made = ordered({**resource.desired.objects, **filling})
    return [written(unfilled(one) if is_claim(one) else one, digests) for one in made]


def _is_standing(resource: Resource[ClusterState]) -> bool:
    """Others made its object, and mp knows only a part of it."""
    recipe = resource.desired.recipe
    return recipe is not None and recipe.standing


def _file(resource: Resource[ClusterState]) -> str:
    return f"{place_of(resource.address)}/{resource.locator['name']}.yaml"


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Files that say the same already are not touched."""
    try:
        for name, text in files.items():
            file = folder / name
            if file.is_file() and file.read_text(encoding="utf-8") == text:
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            part.replace(file)
    except (OSError, UnicodeDecodeError) as problem:
        raise MpError(f"{folder} cannot be written: {problem}", "name another folder with --out") from problem


def _clear(folder: Path, head: str, files: Mapping[str, str]) -> Sequence[str]:
    """Remove what an earlier render of this project and environment wrote; what was removed."""
    stale = []
    for file in sorted(folder.glob("*/*.yaml")):
        name = file.relative_to(folder).as_posix()
        if name not in files and file.read_text(encoding="utf-8", errors="replace").startswith(head):
            file.unlink()
            stale.append(name)
    return stale


def _tell(session: Session, remarks: Sequence[Diagnostic]) -> None:
    if remarks:
        project = session.project
        output.message(diagnostics(remarks, project.texts, project.options.message_ink))
