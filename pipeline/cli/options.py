"""Options of the whole command line, and the parameters that commands share. `-C`, `--env`, `--offline` and `--no-color` may stand anywhere."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias, cast

import typer

from pipeline.cli.views import output
from pipeline.cli.views.text import Ink
from pipeline.core.frozen import frozen
from pipeline.core.settings import is_offline

Models: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...", help="Names, globs or references; all models when left out", show_default=False
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of text")]
Locked: TypeAlias = Annotated[bool, typer.Option("--locked", help="Fail when models.lock is stale (exit 3)")]
MaxDeletes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-deletes", metavar="N", min=0, help="Most things that may be deleted; 3 or 10 % when left out"
    ),
]
NoCache: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--no-cache", help="Weights go straight from their source into images, none stay on this disk"
    ),
]
BuildOnly: TypeAlias = Annotated[
    bool, typer.Option("--build-only", help="Engines and images only: deployments stay as they are")
]
Adopt: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--adopt", help="Take over what has a wanted name and no mark of mp, if it runs on as it is"
    ),
]
AdoptRestart: TypeAlias = Annotated[
    bool, typer.Option("--adopt-restart", help="The same, also where it has to be changed and restarts")
]
TakeFrom: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--take-from",
        metavar="MANAGER",
        help="Take the fields that this manager has and models.yaml declares; may be repeated",
    ),
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]

_VALUED = ("-C", "--chdir", "--env")
_FLAGS = ("--no-color", "--offline")


@frozen
class Options:
    """What was said before or behind the command, for all commands alike."""

    folder: Path  # where models.yaml is
    environment: str
    colour: bool  # False: --no-color
    environ: Mapping[str, str]
    offline: bool = False

    @property
    def ink(self) -> Ink:
        """For results."""
        return output.ink(sys.stdout, self.environ, wanted=self.colour)

    @property
    def message_ink(self) -> Ink:
        """For messages."""
        return output.ink(sys.stderr, self.environ, wanted=self.colour)


def options_from(chdir: Path | None, environment: str, *, colour: bool, offline: bool = False) -> Options:
    environ = dict(os.environ)
    return Options((chdir or Path()).absolute(), environment, colour, environ, offline or is_offline(environ))


def options_of(context: typer.Context) -> Options:
    return cast(Options, context.find_root().obj)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Global options moved to the front, wherever they stood; nothing behind "--" is touched."""
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += [word, *waiting]
            break
        if word in _VALUED and waiting:
            front += [word, waiting.pop(0)]
        elif word in _FLAGS or word.startswith(
            tuple(f"{name}=" for name in _VALUED if name.startswith("--"))
        ):
            front.append(word)
        else:
            rest.append(word)
    return front + rest
