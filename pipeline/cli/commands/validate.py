"""`mp validate`: is models.yaml right? Offline, instant, every mistake at once."""

import typer

from pipeline.cli.options import options_of
from pipeline.cli.project import read_project
from pipeline.cli.views import output, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.core.errors import ExitCode


def run(context: typer.Context) -> ExitCode:
    """Check models.yaml without touching a network: all mistakes at once, each with its line and a hint."""
    project = read_project(options_of(context))
    if remarks := project.document.diagnostics:
        output.message(diagnostics(remarks, project.texts, project.options.message_ink))
    manifest = project.manifest
    models = units.counted(len(manifest.models), "model")
    output.result(
        f"{project.document.name} is valid: {models}, {units.counted(len(manifest.targets), 'target')}."
    )
    return ExitCode.OK
