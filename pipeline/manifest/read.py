"""models.yaml becomes a Manifest, or everything that is wrong with it at once. Used by wiring, cli and tests."""

import gc
import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.core.diagnostic import Diagnostic, Severity, Where, error
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.manifest.check import check
from pipeline.manifest.impossible import Setting, impossible, without_mistakes
from pipeline.manifest.marks import Tree, parse
from pipeline.manifest.spec import Manifest
from pipeline.manifest.wording import Loc, Schema, describe_all, written
from pipeline.targets import KINDS

LARGEST_BYTES = 32 * 2**20


@frozen
class Document:
    """One manifest file as it was read."""

    path: Path
    name: str  # as diagnostics show it: "models.yaml"
    text: str
    manifest: Manifest | None  # None when there is an error that is not in `impossible`
    diagnostics: tuple[Diagnostic, ...]  # in the order of the file
    tree: Tree = field(repr=False)
    impossible: tuple[Diagnostic, ...] = ()  # those of them that forbid only to make what is declared

    @property
    def is_right(self) -> bool:
        """Everything that is declared can be made, as far as the file shows."""
        return self.manifest is not None and not self.impossible

    def where(self, *path: str | int) -> Where:
        """The place of a key or of a list's item: where("models", "qwen3-8b", "test", 0)."""
        return self.tree.where(*path)


def read(path: Path, environment: str = "default") -> Document:
    """Read a manifest. Raises nothing for what users write: what is wrong is in `diagnostics`.

    `environment`: the one that its models are for; names of objects may begin with it.
    """
    name = path.name if path.is_absolute() else str(path)
    try:
        text = _decode(path.read_bytes(), name) if _is_regular(path) else _no_file(name)
    except OSError as problem:
        text = _unreadable(problem, name)
    if isinstance(text, Diagnostic):
        return Document(path, name, "", None, (text,), parse("", name))
    with _no_collector():
        return _document(path, name, text, Setting(path.parent, environment))


def _document(path: Path, name: str, text: str, setting: Setting) -> Document:
    tree = parse(text, name)
    problems = list(tree.problems)
    manifest = None
    no_way: tuple[Diagnostic, ...] = ()
    if tree.whole and isinstance(tree.data, dict):
        sections = _without_empty(tree.data)
        manifest, found = _validate(sections)
        if right := manifest or _rest(sections, found):
            no_way = tuple(dict.fromkeys(impossible(right, tree, setting)))
        problems += _described(sections, found, tree)
        problems += check(sections, tree, path.parent)
    elif tree.whole and tree.data is None:
        problems.append(error("the file is empty", Where(name, 1, 1), "mp init writes a first one"))
    elif tree.whole:
        problems.append(error("the file must be a mapping: lines of key: value", Where(name, 1, 1)))
    if any(d.severity is Severity.ERROR for d in problems):
        manifest = None
    every = dict.fromkeys((*no_way, *problems))
    ordered = sorted(every, key=lambda d: (d.where or Where(name, 0, 0), d.summary))
    return Document(path, name, text, manifest, tuple(ordered), tree, no_way)


def _validate(sections: Mapping[str, Json]) -> tuple[Manifest | None, list[ErrorDetails]]:
    try:
        # JSON's own rules: lists are tuples, text is never a number
        text = json.dumps(sections)
        return Manifest.model_validate_json(text, strict=True, context={"kinds": _kinds(sections)}), []
    except ValidationError as problem:
        return None, problem.errors(include_url=False)


def _described(
    sections: Mapping[str, Json], found: Iterable[ErrorDetails], tree: Tree
) -> Iterable[Diagnostic]:
    problems = [one for one in found if written(one["loc"]) not in tree.reported]
    return describe_all(problems, tree, lambda loc: _schema(loc, _kinds(sections)))


def _rest(sections: Mapping[str, Json], found: Iterable[ErrorDetails]) -> Manifest | None:
    """What is right by itself, so that a wrong key hides no mistake of another entry."""
    left = without_mistakes(sections, [written(one["loc"]) for one in found])
    return _validate(left)[0] if left is not None else None


def _kinds(sections: Mapping[str, Json]) -> dict[str, str]:
    """Which kind of target each name stands for, as far as it is written."""
    targets = sections.get("targets")
    specs = targets.items() if isinstance(targets, dict) else ()
    kinds = {name: spec.get("kind") for name, spec in specs if isinstance(spec, dict)}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, str)}


def _without_empty(data: Mapping[str, Json]) -> dict[str, Json]:
    """A section, or a part of a model, whose lines are all commented out is not there."""
    kept: dict[str, Json] = {key: value for key, value in data.items() if value is not None}
    models = kept.get("models")
    if isinstance(models, dict):
        kept["models"] = {
            name: {k: v for k, v in entry.items() if v is not None} if isinstance(entry, dict) else entry
            for name, entry in models.items()
        }
    return kept


def _schema(loc: Loc, kinds: Mapping[str, str]) -> tuple[Schema, Loc]:
    """The JSON schema that knows the keys of a place: targets and their options have one for each kind."""
    if len(loc) > 1 and loc[0] == "targets" and kinds.get(str(loc[1])) in KINDS:
        return _schema_of(KINDS[kinds[str(loc[1])]].spec), loc[2:]
    if len(loc) > 3 and (loc[0], loc[2]) == ("models", "targets"):
        return _schema_of(KINDS[kinds[str(loc[3])]].options), loc[4:]
    return _schema_of(Manifest), loc


@cache
def _schema_of(spec: type[BaseModel]) -> Schema:
    return spec.model_json_schema()


def _decode(body: bytes, name: str) -> str | Diagnostic:
    if len(body) > LARGEST_BYTES:
        return error(f"larger than {LARGEST_BYTES >> 20} MiB", Where(name, 1, 1))
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = body.count(b"\n", 0, problem.start) + 1
        column = problem.start - body.rfind(b"\n", 0, problem.start)
        return error(
            f"byte 0x{body[problem.start]:02x} is not UTF-8",
            Where(name, line, column),
            "save the file as UTF-8",
        )


def _is_regular(path: Path) -> bool:
    """A pipe would be waited for, a device has no end."""
    return stat.S_ISREG(path.stat().st_mode)


def _no_file(name: str) -> Diagnostic:
    return error(
        f"{name} cannot be read: it is no regular file", hint="move it away; mp init writes a first one"
    )


def _unreadable(problem: OSError, name: str) -> Diagnostic:
    if isinstance(problem, FileNotFoundError):
        return error(f"{name} is not there", hint="mp init writes a first one")
    return error(f"{name} cannot be read: {(problem.strerror or 'unknown error').lower()}")


@contextmanager
def _no_collector() -> Iterator[None]:
    """Everything read is kept: collecting garbage meanwhile costs a third of the time and finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
