"""A plan shown, asked about, carried out and reported: what `apply` and `destroy` share."""

import importlib
import sys

from pipeline import engine
from pipeline.cli.interrupt import graceful
from pipeline.cli.options import Options
from pipeline.cli.session import Session, outcome
from pipeline.cli.views import json, output
from pipeline.cli.views.plan import plan as plan_view
from pipeline.cli.views.progress import Lines, Watch
from pipeline.cli.views.report import report as report_view
from pipeline.core.errors import ExitCode, MpError, Refused


def carry_out(
    session: Session, planned: engine.Planned, question: str, *, yes: bool, as_json: bool
) -> ExitCode:
    """Show the plan, ask unless `yes`, apply it, show the report. The result is the report; the plan is, too, in text."""
    options, plan = session.project.options, planned.plan
    show, ink = (output.message, options.message_ink) if as_json else (output.result, options.ink)
    show(plan_view(plan, session.origin(planned), session.project.texts, ink))
    if plan.refusals:
        raise Refused("the plan is refused; nothing was changed")
    if plan.errors:
        raise MpError("the plan has errors; nothing was changed")
    if plan.active and not yes and not _agreed(question):
        raise MpError("nothing was changed")
    with graceful() as stop, _watch(options) as watch:
        report = engine.apply(session.world, planned, watch.emit, stop)
    if as_json:
        output.result(json.text(json.report(report)))
    elif plan.active:
        output.result("\n" + report_view(report, options.ink))
    return outcome(plan, report)


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise MpError(
            "nobody is there to ask, and --yes was not given", "look at mp plan, then run it with --yes"
        )
    return output.ask(f"\n{question}")


def _watch(options: Options) -> Watch:
    """Bars on a terminal, lines elsewhere; what draws bars is loaded only for them."""
    if not sys.stderr.isatty() or options.environ.get("TERM") == "dumb":
        return Lines(sys.stderr)
    colour = output.coloured(sys.stderr, options.environ, wanted=options.colour)
    bars: Watch = importlib.import_module("pipeline.cli.views.bars").Bars(sys.stderr, colour=colour)
    return bars
