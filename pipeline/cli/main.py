"""The `mp` command: a table of commands, each imported when it is called. Errors become messages and exit codes here."""

import contextlib
import difflib
import gc
import itertools
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from pipeline.cli.options import hoisted, options_from
from pipeline.cli.views import output
from pipeline.cli.views.diagnostics import diagnostics, failure
from pipeline.core.diagnostic import Diagnostic
from pipeline.core.errors import ExitCode, MpError, UserError
from pipeline.core.frozen import frozen

HELP = "Machine-learning models from one models.yaml: pinned, verified, built, published, deployed, proven."
WIDTH = 100
# Objects that are made until garbage is looked for (Python: 700). A plan keeps nearly all that it makes.
COLLECT_AFTER = 100_000
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}


@frozen
class Command:
    """One command: the module below `commands` whose `run` it is, and what it is for. A group has members instead."""

    module: str
    help: str
    members: Mapping[str, str] = field(default_factory=dict)  # of a group: what each is for; `RUNS` has them


COMMANDS: Mapping[str, Command] = {
    "init": Command("init", "Write a first models.yaml"),
    "validate": Command("validate", "Check models.yaml: offline, instantly, all mistakes at once"),
    "lock": Command("lock", "Pin every version and write models.lock"),
    "outdated": Command("outdated", "Say what moved upstream since it was pinned, and what changed"),
    "plan": Command("plan", "Say what apply would do, before a byte moves"),
    "apply": Command("apply", "Bring the world to what models.yaml declares"),
    "promote": Command("promote", "Let what a canary tries take the place of the old version"),
    "rollback": Command("rollback", "Bring deployments back to their last good version"),
    "render": Command("render", "Write the objects of kubernetes targets into a folder"),
    "drift": Command("drift", "Say where the world moved away from what was applied"),
    "status": Command("status", "Say how every deployment is now"),
    "history": Command("history", "Say what was applied when, and how it went"),
    "list": Command("list", "List the models at their targets: state, version, URL or image"),
    "show": Command("show", "Show everything that is known of a model"),
    "pull": Command("pull", "Bring a model into the cache, or into a folder"),
    "cache": Command(
        "cache",
        "Look at the cache, check it, free its space",
        {
            "list": "List what is in the cache",
            "path": "Print the folder of a cached model, for scripts",
            "verify": "Hash every file, and drop what is damaged",
            "prune": "Free the space of what nobody needs",
            "import": "Take over what other caches of this machine hold",
        },
    ),
    "import": Command(
        "taking",
        "Write entries for what runs already",
        {
            "kubernetes": "Deployments of a namespace that nobody declares",
            "kaito": "Workspaces and InferenceSets of a namespace that nobody declares",
        },
    ),
    "prune": Command("prune", "Free the space of images and weights that nobody needs"),
    "destroy": Command("destroy", "Take deployments down"),
    "forget": Command("forget", "Drop entries of the inventory and leave the world alone"),
    "schema": Command("schema", "Print or write the JSON Schemas"),
}


class Lazy(TyperGroup):
    """A group that knows its commands from the table and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # Any, here and below: typer keeps its Context private
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load(cmd_name) if cmd_name in COMMANDS else _unknown("mp", cmd_name, COMMANDS)


class Group(TyperGroup):
    """A command with commands of its own: alone, it says which."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _unknown(f"mp {self.name}", cmd_name, self.commands)


def load(name: str) -> Any:
    """The command as typer's own object: its module's function `run`, or the group of its `RUNS`."""
    command = COMMANDS[name]
    module = import_module(f"pipeline.cli.commands.{command.module}")
    app = typer.Typer(name=name, rich_markup_mode=None, add_completion=False)
    if command.members:
        app.callback(cls=Group, help=f"{command.help}.", context_settings=_SETTINGS)(lambda: None)
        for member, told in command.members.items():
            app.command(member, short_help=told, context_settings=_SETTINGS)(module.RUNS[member])
    else:
        app.command(name, context_settings=_SETTINGS)(module.run)
    return typer.main.get_command(app)


def _unknown(group: str, word: str, known: Iterable[str]) -> NoReturn:
    close = difflib.get_close_matches(word, known)
    hint = f'did you mean "{close[0]}"?' if close else f"see {group} --help"
    raise MpError(f'there is no command "{word}"', hint)


def _version(asked: bool) -> None:
    if asked:
        output.result(f"mp {import_module('importlib.metadata').version('mp-pipeline')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    chdir: Annotated[
        Path | None,
        typer.Option(
            "-C", "--chdir", metavar="DIR", help="Folder of models.yaml; the current one when left out"
        ),
    ] = None,
    env: Annotated[str, typer.Option(metavar="NAME", help="Environment")] = "default",
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no source: lock and cache only; HF_HUB_OFFLINE=1 does the same"),
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour; NO_COLOR does the same")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", env):
        raise typer.BadParameter(
            f'"{env}" is no name: lower-case letters, digits and "-"', param_hint="--env"
        )
    context.obj = options_from(chdir, env, colour=not no_color, offline=offline)


def application() -> Any:
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.callback(cls=Lazy, help=HELP, context_settings=_SETTINGS)(_root)
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit with the code of design section 5. What is our own mistake flies with a traceback."""
    gc.set_threshold(COLLECT_AFTER)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """The exit code of one command line."""
    words = hoisted(arguments) or ["--help"]
    ink = output.ink(sys.stderr, os.environ, wanted="--no-color" not in words)
    try:
        return int(application().main(words, prog_name="mp", standalone_mode=False) or ExitCode.OK)
    except UserError as problem:
        output.message(diagnostics(problem.diagnostics, _texts(problem.diagnostics, _folder(words)), ink))
        return problem.exit_code
    except MpError as problem:
        output.message(failure(problem.message, problem.hint, ink))
        return problem.exit_code
    except TyperException as problem:  # click's 2 would say "there are changes"
        output.message(failure(_sentence(problem.format_message()), _usage(words), ink))
        return ExitCode.ERROR
    except output.Closed:
        return ExitCode.ERROR


def _sentence(text: str) -> str:
    text = text.replace(": Value error, ", ": ")  # typer repeats pydantic's prefix
    return text[:1].lower() + text[1:].rstrip(".")


def _usage(words: Sequence[str]) -> str:
    at = next((index for index, word in enumerate(words) if word in COMMANDS), None)
    if at is None:
        return "see mp --help"
    member = next((word for word in words[at + 1 : at + 2] if word in COMMANDS[words[at]].members), None)
    return f"see mp {words[at]} {member} --help" if member else f"see mp {words[at]} --help"


def _texts(problems: Sequence[Diagnostic], folder: Path) -> dict[str, str]:
    """The files that diagnostics point into, as far as they can be read: for excerpts."""
    texts = {}
    for file in {problem.where.file for problem in problems if problem.where}:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            texts[file] = (folder / file).read_text(encoding="utf-8")
    return texts


def _folder(words: Sequence[str]) -> Path:
    """The folder that -C named, for excerpts."""
    for flag, value in itertools.pairwise(words):
        if flag in ("-C", "--chdir"):
            return Path(value)
        if flag.startswith("--chdir="):
            return Path(flag.removeprefix("--chdir="))
    return Path()
