"""A project with its world opened: what every command that looks outside begins with, and how a plan ends one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pipeline import engine, wiring
from pipeline.cli.options import Options
from pipeline.cli.project import Project, read_project
from pipeline.cli.resolving import telling
from pipeline.cli.select import selected
from pipeline.cli.views import output
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.cli.views.origin import Origin
from pipeline.cli.views.plan import not_read
from pipeline.cli.views.waiting import Waiting
from pipeline.core.diagnostic import Severity
from pipeline.core.errors import ExitCode
from pipeline.core.frozen import frozen
from pipeline.core.plan import Plan
from pipeline.core.reference import Reference, parse
from pipeline.core.report import Report, Status
from pipeline.core.resource import owner_of
from pipeline.engine.diff import Adoption
from pipeline.engine.parts import declared
from pipeline.engine.world import World
from pipeline.resources.cache.artifact import artifact_address


@frozen
class Session:
    project: Project
    world: World
    waiting: Waiting

    def models(self, patterns: Sequence[str] | None) -> tuple[str, ...]:
        """Declared models by name, glob or reference; () is all."""
        return self._selected(patterns, self.project.manifest.models)

    def owned(self, patterns: Sequence[str] | None, others: Iterable[str] = ()) -> tuple[str, ...]:
        """The same, also of models that only the inventory still knows, or `others`."""
        entries = engine.owned(self.world).entries
        owners = {owner_of(address): None for address in sorted(entries)}
        undeclared = (name for name in (*owners, *others) if not name.startswith("@"))
        names = [*self.project.manifest.models, *undeclared]
        return self._selected(patterns, dict.fromkeys(names))

    def _selected(self, patterns: Sequence[str] | None, names: Iterable[str]) -> tuple[str, ...]:
        manifest, root = self.project.manifest, self.world.settings.root

        def sources(name: str) -> Iterator[Reference]:
            for one in declared(manifest.models[name]).values() if name in manifest.models else ():
                reference = parse(one.source, root, manifest.aliases)
                yield reference.at(one.version) if one.version and not reference.version else reference

        return selected(patterns, names, sources, root, manifest.aliases)

    def plan(self, selection: engine.Selection) -> engine.Planned:
        with self.waiting.word("Reading"):
            return engine.plan(self.world, selection)

    def origin(self, planned: engine.Planned) -> Origin:
        """What the plan's first lines say."""
        pins = {
            artifact_address(name, role): artifact.pin
            for name, roles in self.world.lock.models.items()
            for role, artifact in roles.items()
        }
        return replace(self.project.origin, pins=pins, unlocked=planned.lock_changed)

    def tell(self, plan: Plan) -> None:
        """On stderr: what could not be read, and errors, for views that do not show them."""
        ink = self.project.options.message_ink
        if lines := not_read(plan, ink):
            output.message("\n".join(lines))
        if plan.errors:
            output.message(diagnostics(plan.errors, self.project.texts, ink))


def open_session(
    options: Options, *, locked: bool = False, take_from: Iterable[str] = (), lenient: bool = False
) -> Session:
    """`take_from`: field managers of clusters whose fields may be taken. `lenient`: of entries that cannot be made, it warns."""
    project = read_project(options, lenient=lenient)
    if remarks := [replace(one, severity=Severity.WARNING) for one in project.document.impossible]:
        output.message(diagnostics(remarks, project.texts, options.message_ink))
    world = wiring.open_world(project.settings, project.document, locked=locked, take_from=take_from)
    waiting = Waiting()
    return Session(project, telling(world, waiting.named), waiting)


def adoption_of(*, adopt: bool, restart: bool) -> Adoption:
    """What --adopt and --adopt-restart allow."""
    if restart:
        return Adoption.RESTART
    return Adoption.GENTLE if adopt else Adoption.NONE


def verdict(plan: Plan) -> ExitCode:
    """What a plan means for the exit code, changes aside."""
    if plan.refusals:
        return ExitCode.REFUSED
    return ExitCode.ERROR if plan.errors or not plan.complete else ExitCode.OK


def outcome(plan: Plan, report: Report) -> ExitCode:
    """What a run means for the exit code: partly applied is told from nothing applied."""
    if report.interrupted:
        return ExitCode.INTERRUPTED
    if report.count(Status.APPLIED) < len(report.outcomes):
        return ExitCode.PARTIAL if report.count(Status.APPLIED) else ExitCode.ERROR
    return verdict(plan)
