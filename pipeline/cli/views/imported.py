"""Entries of models.yaml for what runs already, as text to be pasted, or put into models.yaml below what is there. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from pipeline.engine.importing import Imported

INDENT = "  "
_TOP = re.compile(r"[^\s#]")  # a line that begins a section


class _Plain(yaml.SafeDumper):
    """Without anchors, and items of lists below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def sections(found: Imported, indent: str = INDENT) -> Mapping[str, str]:
    """The lines of each section that gets new entries."""
    each: dict[str, Mapping[str, Any]] = {
        "secrets": found.secrets,
        "hardware": found.hardware,
        "models": found.models,
    }
    return {
        name: "".join(
            _entry(key, value, found.remarks.get(key, ()), name, indent) for key, value in entries.items()
        )
        for name, entries in each.items()
        if entries
    }


def document(found: Imported, first: str) -> str:
    """A text with these sections alone."""
    return f"# {first}\n" + "".join(f"{name}:\n{lines}" for name, lines in sections(found).items())


def added(text: str, found: Imported) -> str | None:
    """models.yaml with the entries at the ends of its sections; None where a section is not written as lines below its key."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    for name in sections(found):
        at = next((i for i, line in enumerate(lines) if re.match(rf"{name}\s*:", line)), None)
        if at is None:
            lines += ["\n", f"{name}:\n", *sections(found)[name].splitlines(keepends=True)]
            continue
        if not re.fullmatch(rf"{name}\s*:\s*(#.*)?\n", lines[at]):
            return None
        end = _end(lines, at + 1)
        new = sections(found, _indent(lines[at + 1 : end]))[name]
        lines[end:end] = new.splitlines(keepends=True)
    return "".join(lines)


def _entry(key: str, value: Any, remarks: Sequence[str], section: str, indent: str) -> str:
    said = remarks if section == "models" else ()
    dumped = yaml.dump(
        {key: value},
        Dumper=_Plain,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        indent=len(INDENT),
        default_flow_style=None,
    )
    return "".join(f"{indent}{line}\n" for line in [*(f"# {one}" for one in said), *dumped.splitlines()])


def _end(lines: Sequence[str], start: int) -> int:
    """Behind the last line of a section: blank lines and comments before the next one are that one's."""
    following = (i for i in range(start, len(lines)) if _TOP.match(lines[i]))
    end = next(following, len(lines))
    while end > start and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _indent(lines: Sequence[str]) -> str:
    """How far the keys of a section stand from the left."""
    return next(_indents(lines), INDENT)


def _indents(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            yield line[: len(line) - len(line.lstrip())]
