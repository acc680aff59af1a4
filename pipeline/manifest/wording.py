"""What pydantic found, in our words: the place, what is wrong, what to do. Used by read and lock."""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from pydantic_core import ErrorDetails

from pipeline.core.diagnostic import Diagnostic, Where, error
from pipeline.core.digest import Json
from pipeline.manifest.later import find_later
from pipeline.manifest.marks import Path, Tree
from pipeline.manifest.plain import resolve
from pipeline.manifest.scalars import PATTERNS, lacks_unit

Schema = Mapping[str, Any]  # a JSON schema is as heterogeneous as JSON
Loc: TypeAlias = tuple[int | str, ...]  # pydantic's path of an error, with the tags of its unions
Known: TypeAlias = Callable[
    [Loc], tuple[Schema, Loc]
]  # the schema that knows a place, and the rest of the way


def describe_all(problems: Iterable[ErrorDetails], tree: Tree, known: Known) -> list[Diagnostic]:
    """A diagnostic for each of pydantic's errors; a key that is missing because it is misspelt counts once."""
    problems = list(problems)
    misspelt = {
        (*one["loc"][:-1], nearest(str(one["loc"][-1]), keys_at(known, one["loc"][:-1])))
        for one in problems
        if one["type"] == "extra_forbidden"
    }
    return [
        describe(one, tree, known)
        for one in problems
        if one["type"] != "missing" or one["loc"] not in misspelt
    ]


def describe(problem: ErrorDetails, tree: Tree, known: Known) -> Diagnostic:
    """One diagnostic for one of pydantic's errors; `known` tells which keys there are, for "did you mean"."""
    kind, ctx, found = problem["type"], problem.get("ctx", {}), problem["input"]
    path = written(problem["loc"])
    if kind == "union_tag_invalid":
        path, kind, found = (*path, "kind"), "literal_error", ctx["tag"]
        ctx = {"expected": ctx["expected_tags"]}
    elif kind == "union_tag_not_found":
        path, kind = (*path, "kind"), "missing"
    at_value = kind not in ("missing", "extra_forbidden") and problem["loc"][-1:] != ("[key]",)
    where = tree.where_value(*path) if at_value else tree.where(*path)
    if later := find_later(path, found):
        key = f"{path[-1]}: {found}" if later.values else str(path[-1])
        return _place(path[:-1], f'"{key}" ({later.what}) is not supported yet', where, "remove it")
    match kind:
        case "extra_forbidden":
            key = str(path[-1])
            keys = keys_at(known, problem["loc"][:-1])
            return _place(path[:-1], f'unknown key "{key}"', where, did_you_mean(key, keys))
        case "missing":
            return _place(path[:-1], f'"{path[-1]}" is missing', where, f'add "{path[-1]}:"')
    summary, hint = _size(path, found) or _rule(kind, ctx, found, tree.word(*path))
    if kind == "mp" and isinstance(found, dict):  # about several keys at once
        return _place(path, summary, where, hint)
    return _subject(path, summary, where, hint)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The nearest known word, or all of them when they are few."""
    known = sorted(known)
    if near := nearest(word, known):
        return f'did you mean "{near}"?'
    return "known: " + ", ".join(known) if 0 < len(known) <= 16 else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    near = difflib.get_close_matches(word, sorted(known), 1, 0.6)
    return near[0] if near else None


def named(path: Path) -> str:
    """A place in words: "qwen3-8b: serve.args", "hardware.cpu.gpus", "models.yaml" for the whole."""
    if path[:1] == ("models",) and len(path) > 1:
        return f"{path[1]}: {_dotted(path[2:])}".removesuffix(": ")
    return _dotted(path)


def _dotted(path: Path) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).removeprefix(".")


def _model(path: Path) -> str | None:
    return str(path[1]) if path[:1] == ("models",) and len(path) > 1 else None


def _place(path: Path, summary: str, where: Where, hint: str | None) -> Diagnostic:
    """Something about a whole mapping."""
    owner = named(path)
    return error(f"{owner}: {summary}" if owner else summary, where, hint, _model(path))


def _subject(path: Path, summary: str, where: Where, hint: str | None) -> Diagnostic:
    """Something about one value."""
    owner = named(path) or "the file"
    return error(f"{owner} {summary}", where, hint, _model(path))


def written(loc: Loc) -> Path:
    """The place as the user wrote it: without the tags that pydantic puts into it."""
    return tuple(part for part in loc if part != "[key]" and not str(part).startswith("="))


def _size(path: Path, found: Json) -> tuple[str, str] | None:
    """A bare number is never asked to be quoted where a size is meant."""
    return lacks_unit(found) if path[-1:] == ("memory",) else None


def _rule(kind: str, ctx: Mapping[str, Any], found: Json, word: str) -> tuple[str, str | None]:
    """What a value must be."""
    if kind == "mp":
        return str(ctx["summary"]), str(ctx["hint"])
    if kind == "string_type":
        return _not_text(found, word)
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(str(ctx["pattern"]), (f"{_shown(found)} is not of the right form", None))
    if kind == "literal_error":
        expected = [part.strip("' ") for part in str(ctx["expected"]).replace(" or ", ", ").split(", ")]
        words = " or ".join(expected)
        return f"must be {words}, not {_shown(found)}", did_you_mean(str(found), expected) if len(
            expected
        ) > 1 else None
    if kind in ("int_type", "float_type", "bool_type") and isinstance(found, str):
        return f"{_KINDS[kind]}, not text", f"write {found} without quotes" if _is_bare(found) else None
    if kind in _KINDS:
        return _KINDS[kind].format(**ctx), None
    return f"{_shown(found)} is not valid", None


_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping: lines of key: value",
    "model_type": "must be a mapping: lines of key: value",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}


def _is_bare(text: str) -> bool:
    """Without its quotes it would be a number or a truth value."""
    return isinstance(resolve(text), bool | int | float)


def _not_text(found: Json, word: str) -> tuple[str, str | None]:
    if isinstance(found, bool | int | float):
        seen = json.dumps(found)
        what = f"{word} is read as {seen}" if word and word != seen else f"{seen} is a {_type(found)}"
        return f"must be text; {what}", f'quote it: "{word or seen}"'
    return f"must be text, not {_shown(found)}", None


def _type(found: Json) -> str:
    match found:
        case bool():
            return "truth value"
        case int() | float():
            return "number"
        case None:
            return "nothing"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a mapping"


def _shown(found: Json) -> str:
    return (
        f'"{found}"'
        if isinstance(found, str)
        else json.dumps(found)
        if isinstance(found, bool | int | float)
        else _type(found)
    )


def keys_at(known: Known, loc: Loc) -> frozenset[str]:
    """The keys that may stand at a place given by pydantic's own path."""
    schema, rest = known(loc)
    node = schema
    for part in rest:
        node = _step(schema, _object(schema, node), part)
    return frozenset(_object(schema, node).get("properties", {}))


def _step(schema: Schema, node: Schema, part: int | str) -> Schema:
    if part in (tags := node.get("discriminator", {}).get("mapping", {})):
        return _object(schema, {"$ref": tags[part]})
    if part in (properties := node.get("properties", {})):
        return dict(properties[part])
    for inner in (
        node.get("additionalProperties"),
        *node.get("patternProperties", {}).values(),
        node.get("items"),
    ):
        if isinstance(inner, dict):
            return inner
    return node


def _object(schema: Schema, node: Schema) -> Schema:
    """The node behind references, and the alternative that has keys."""
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if "discriminator" in node:
        return node
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        inner = _object(schema, choice)
        if "properties" in inner or "additionalProperties" in inner or "items" in inner:
            return inner
    return node
