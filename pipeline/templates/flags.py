"""Engine flags: from `serve.args` of models.yaml to an argument list, refusing what mp writes itself. Used by templates."""

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.core.model import Model


def arguments(args: Mapping[str, Json], switches: Collection[str]) -> tuple[str, ...]:
    """`{max_num_seqs: 8, enforce-eager: true}` as ("--enforce-eager", "--max-num-seqs=8"), sorted by flag.

    null leaves a flag out, false turns a switch off, a list is several values, a mapping is JSON.
    """
    named = sorted((flag_name(name), value) for name, value in args.items())
    return tuple(word for name, value in named for word in _words(name, value, switches))


def merged(defaults: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    """The chosen arguments after those defaults that they do not speak of. Defaults are one word each."""
    spoken = {_flag_of(word) for word in chosen if word.startswith("--")}
    return (*(word for word in defaults if _flag_of(word) not in spoken), *chosen)


def problems(
    model: Model, own: Mapping[str, str], flags: Collection[str] | None, engine: str
) -> Iterator[Diagnostic]:
    """What is wrong with the model's `serve.args`, all of it."""
    for _, summary, hint in mistakes(model.args, own, flags, engine):
        yield error(f"{model.name}: serve.args: {summary}", model.where, hint, model.name)


def mistakes(
    args: Iterable[str], own: Mapping[str, str], flags: Collection[str] | None, engine: str
) -> Iterator[tuple[str, str, str | None]]:
    """Each flag that cannot be given, what is wrong with it, and a hint."""
    for written in sorted(args):
        name = flag_name(written).partition(".")[0]  # "compilation-config.mode" is a part of a flag
        plain = name.removeprefix("no-")
        if plain in own:
            yield written, f'"{written}" is written by mp', f"it comes from {own[plain]}"
        elif flags is not None and name not in flags and plain not in flags:
            near = difflib.get_close_matches(name, sorted(flags), 1)
            hint = f'did you mean "{near[0]}"?' if near else None
            yield written, f'{engine} has no flag "{written}"', hint


def flag_name(written: str) -> str:
    """ "max_num_seqs", "--max-num-seqs" and "max-num-seqs" are one flag; only its first part is ours to change."""
    first, dot, rest = written.removeprefix("--").partition(".")
    return first.replace("_", "-") + dot + rest


def _words(name: str, value: Json, switches: Collection[str]) -> Iterator[str]:
    match value:
        case None:
            return
        case True:
            yield f"--{name}"
        case False:
            if name in switches:
                yield f"--no-{name}"
        case list():
            yield f"--{name}"
            yield from map(_text, value)
        case _:
            yield f"--{name}={_text(value)}"


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))


def _flag_of(word: str) -> str:
    return word.partition("=")[0].removeprefix("--").removeprefix("no-")
