"""What one part of the manifest says of another: references, ports, sources. Works on what is written, so that a
wrong key elsewhere hides nothing. Used by read."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as Folder

from pipeline.core.diagnostic import Diagnostic, error, warning
from pipeline.core.digest import Json
from pipeline.core.size import PATTERN as SIZE
from pipeline.core.size import size_bytes
from pipeline.manifest.arguments import check_arguments, check_faces
from pipeline.manifest.marks import Path, Tree
from pipeline.manifest.source import check_sources, lacks
from pipeline.manifest.trust import check_trust
from pipeline.manifest.wording import did_you_mean, named
from pipeline.targets.deployment import others_made
from pipeline.templates import TEMPLATES

KEY = "="  # in a pattern: the keys themselves are the references

REFERENCES: tuple[tuple[tuple[str, ...], str, str], ...] = (  # pattern, section it points into, what it is
    (("defaults", "template"), "", "template"),
    (("defaults", "hardware"), "hardware", "hardware class"),
    (("defaults", "registry"), "registries", "registry"),
    (("engines", KEY), "", "template"),
    (("targets", "*", "registry"), "registries", "registry"),
    (("sign", "cosign", "key", "secret"), "secrets", "secret"),
    (("sign", "cosign", "password", "secret"), "secrets", "secret"),
    (("models", "*", "template"), "", "template"),
    (("models", "*", "hardware"), "hardware", "hardware class"),
    (("models", "*", "env", "*", "secret"), "secrets", "secret"),
    (("models", "*", "serve", "api_key", "secret"), "secrets", "secret"),
    (("models", "*", "targets", KEY), "targets", "target"),
)


def check(sections: dict[str, Json], tree: Tree, folder: Folder) -> list[Diagnostic]:
    """Everything that takes two places of the file, or the folder it is in, to see."""
    found = list(_references(sections, tree))
    for name, model in _mapping(sections.get("models")).items():
        if isinstance(model, dict):
            found += _model(name, model, sections, tree)
            found += _chat(name, model, tree, folder)
            found += _sizes(name, model, tree)
            found += check_arguments(name, model, sections, tree)
            found += check_faces(name, model, sections, tree)
    found += check_sources(sections, tree, folder)
    found += check_trust(sections, tree, folder)
    found += _registry(sections, tree)
    found += _collisions(sections, tree)
    return found


def _references(sections: dict[str, Json], tree: Tree) -> Iterator[Diagnostic]:
    for pattern, section, what in REFERENCES:
        known = _mapping(sections.get(section)) if section else TEMPLATES
        for path, name in _matches(sections, pattern, ()):
            if isinstance(name, str) and name not in known:
                hint = did_you_mean(name, known) or (f"declare it under `{section}:`" if section else None)
                where = tree.where(*path) if pattern[-1] == KEY else tree.where_value(*path)
                owner = named(path[:1] if pattern[-1] == KEY and path[0] != "models" else path[:-1])
                yield error(f'{owner}: {what} "{name}" is not known', where, hint, _owner(path))


def _matches(value: Json, pattern: tuple[str, ...], path: Path) -> Iterator[tuple[Path, Json]]:
    """Places of the file that a pattern names, with their values."""
    if not pattern:
        yield path, value
    elif isinstance(value, dict):
        first, rest = pattern[0], pattern[1:]
        for key in value if first in ("*", KEY) else [first] if first in value else []:
            if first == KEY:
                yield (*path, key), key
            else:
                yield from _matches(value[key], rest, (*path, key))


def _model(
    name: str, model: Mapping[str, Json], sections: Mapping[str, Json], tree: Tree
) -> Iterator[Diagnostic]:
    where = tree.where("models", name)
    if _stands_everywhere(model):
        return
    if lacks(model, "source"):
        yield error(f'{name}: "source" is missing', where, 'add "source:"', name)
    if lacks(model, "template") and "template" not in _mapping(sections.get("defaults")):
        hint = f"add template: {' or '.join(sorted(TEMPLATES))}, here or under `defaults:`"
        yield error(f"{name}: no template", where, hint, name)
    if model.get("targets") == {} or lacks(model, "targets"):
        yield warning(
            f"{name}: no target, nothing is done for it", where, "add one under its `targets:`", name
        )


def _stands_everywhere(model: Mapping[str, Json]) -> bool:
    """Others made what runs at all of its targets: nothing is made of its source."""
    options = [_mapping(one) for one in _mapping(model.get("targets")).values()]
    return bool(options) and all(others_made(one.get("manage"), one.get("runs")) for one in options)


def _chat(name: str, model: Mapping[str, Json], tree: Tree, folder: Folder) -> Iterator[Diagnostic]:
    template = _mapping(model.get("chat")).get("template")
    if isinstance(template, str) and template and not _is_file(folder, template):
        where = tree.where_value("models", name, "chat", "template")
        hint = f"the path is relative to the folder of {tree.file}"
        yield error(f'{name}: chat template "{template}" is not there', where, hint, name)


def _sizes(name: str, model: Mapping[str, Json], tree: Tree) -> Iterator[Diagnostic]:
    """A pattern tells what a size looks like, not how large it is."""
    for target, options in _mapping(model.get("targets")).items():
        memory = _mapping(options).get("memory")
        if not isinstance(memory, str) or not re.fullmatch(SIZE, memory):
            continue
        try:
            size_bytes(memory)
        except ValueError as problem:
            path = ("models", name, "targets", target, "memory")
            where = tree.where_value(*path)
            yield error(f"{named(path)} {problem}", where, "write a smaller size", name)


def _is_file(folder: Folder, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, a NUL: no file has such a name
        return False


def _registry(sections: Mapping[str, Json], tree: Tree) -> Iterator[Diagnostic]:
    """Of several registries, one must be meant."""
    registries = _mapping(sections.get("registries"))
    if len(registries) < 2 or "registry" in _mapping(sections.get("defaults")):
        return
    targets = _mapping(sections.get("targets"))
    open_ones = [name for name, target in targets.items() if not _mapping(target).get("registry")]
    if open_ones:
        hint = f"add defaults: {{registry: {next(iter(registries))}}}"
        summary = f"which of {len(registries)} registries does target {open_ones[0]} use?"
        yield error(summary, tree.where("registries"), hint)


def _collisions(sections: Mapping[str, Json], tree: Tree) -> Iterator[Diagnostic]:
    """Two models on one port of one machine, or under one name at one target."""
    targets = _mapping(sections.get("targets"))
    taken: dict[tuple[str, str, str], Path] = {}
    for model, entry in _mapping(sections.get("models")).items():
        for name, options in _mapping(_mapping(entry).get("targets")).items():
            target = _mapping(targets.get(name))
            for key, claim in _claims(name, target, _mapping(options)):
                path: Path = ("models", model, "targets", name, key)
                if first := taken.get(claim):
                    line = tree.where(*first).line
                    summary = f"{model}: {key} {claim[2]} at {name} is taken by {first[1]} on line {line}"
                    hint = "choose another, or leave it out: a free one is chosen" if key == "port" else None
                    yield error(summary, tree.where_value(*path), hint or "choose another", model)
                else:
                    taken[claim] = path


def _claims(
    name: str, target: Mapping[str, Json], options: Mapping[str, Json]
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """What options take for themselves: (option, what nobody else may take)."""
    if isinstance(port := options.get("port"), int):
        host = target.get("host") if target.get("kind") == "docker" else None
        yield "port", (str(host or "this machine"), "port", str(port))
    if isinstance(own := options.get("name"), str):
        yield "name", (name, "name", own)


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _owner(path: Path) -> str | None:
    return str(path[1]) if path[0] == "models" else None
