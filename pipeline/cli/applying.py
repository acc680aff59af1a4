"""A plan shown, asked about, carried out and reported: what `apply` and `destroy` share."""

from pipeline import engine
from pipeline.cli.asking import agreed
from pipeline.cli.interrupt import graceful
from pipeline.cli.session import Session, outcome
from pipeline.cli.views import json, output
from pipeline.cli.views.plan import plan as plan_view
from pipeline.cli.views.report import report as report_view
from pipeline.cli.watching import watch
from pipeline.core.errors import ExitCode, MpError, Refused


def carry_out(
    session: Session, planned: engine.Planned, question: str, *, yes: bool, as_json: bool
) -> ExitCode:
    """Show the plan, ask unless `yes`, apply it, show the report. The result is the report; the plan is, too, in text."""
    options, plan = session.project.options, planned.plan
    show, ink = (output.message, options.message_ink) if as_json else (output.result, options.ink)
    show(plan_view(plan, session.origin(planned), session.project.texts, ink))
    if plan.refusals or plan.barred:
        raise Refused("the plan is refused; nothing was changed")
    if plan.errors:
        raise MpError("the plan has errors; nothing was changed")
    if plan.active and not yes and not agreed(question, "mp plan"):
        raise MpError("nothing was changed")
    with graceful() as stop, watch(options) as shown:
        report = engine.apply(session.world, planned, shown.emit, stop)
    if as_json:
        output.result(json.text(json.report(report)))
    elif plan.active:
        output.result("\n" + report_view(report, options.ink))
    return outcome(plan, report)
