"""`mp validate`: is models.yaml right? Offline, instant, every mistake at once."""

import typer

from pipeline.cli.options import AsJson, Options, options_of
from pipeline.cli.project import FILE, read_project
from pipeline.cli.views import json, output, units
from pipeline.cli.views.diagnostics import diagnostics
from pipeline.core.errors import ExitCode
from pipeline.manifest.read import read


def run(context: typer.Context, as_json: AsJson = False) -> ExitCode:
    """Check models.yaml without touching a network: all mistakes at once, each with its line and a hint."""
    options = options_of(context)
    return _as_json(options) if as_json else _as_text(options)


def _as_json(options: Options) -> ExitCode:
    """Mistakes are the result here, so they are on stdout."""
    document = read(options.folder / FILE, options.environment)
    output.result(json.text(json.validation(document.name, document.diagnostics)))
    return ExitCode.OK if document.is_right else ExitCode.ERROR


def _as_text(options: Options) -> ExitCode:
    project = read_project(options)
    if remarks := project.document.diagnostics:
        output.message(diagnostics(remarks, project.texts, options.message_ink))
    manifest = project.manifest
    models = units.counted(len(manifest.models), "model")
    output.result(
        f"{project.document.name} is valid: {models}, {units.counted(len(manifest.targets), 'target')}."
    )
    return ExitCode.OK
