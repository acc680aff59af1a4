"""`mp forget`: drop entries of the inventory; the world is left as it is."""

from typing import Annotated

import typer

from pipeline import engine
from pipeline.cli.options import options_of
from pipeline.cli.session import open_session
from pipeline.cli.views import output, units
from pipeline.core.errors import ExitCode


def run(
    context: typer.Context,
    addresses: Annotated[
        list[str],
        typer.Argument(
            metavar="ADDRESS...", help="Addresses (qwen3-8b/docker:box), or names of targets or registries"
        ),
    ],
) -> ExitCode:
    """Drop entries from the inventory: what they stand for goes on running and is no longer mp's."""
    session = open_session(options_of(context), lenient=True)
    dropped = engine.forget(session.world, addresses)
    output.result(
        "\n".join(
            [
                *dropped,
                f"Forgot {units.counted(len(dropped), 'resource')}; what they stand for was left alone.",
            ]
        )
    )
    return ExitCode.OK
