"""What models.yaml says of sources: aliases, references, versions. Used by check."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path as Folder

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.reference import TAGGED, Reference, alias_of, parse
from pipeline.manifest.marks import Path, Tree
from pipeline.manifest.spec import ModelSpec
from pipeline.manifest.wording import named, nearest

MISSING = {
    "hf": 'add version: main, or a tag or a commit, quoted: "4e1a6b0"',
    "oci": "add version: and a tag, or write it behind the source: host/name:tag",
}


def check_sources(sections: Mapping[str, Json], tree: Tree, folder: Folder) -> Iterator[Diagnostic]:
    """Every alias and every source of every model; what a damaged alias stands for is reported at the alias alone."""
    written = _mapping(sections.get("aliases"))
    aliases = {name: text for name, text in written.items() if isinstance(text, str) and text}
    damaged = set(written) - set(aliases)
    for name in aliases:
        try:
            parse(name, folder, aliases)
        except UserError as problem:
            damaged.add(name)
            for one in problem.diagnostics:
                yield replace(one, where=tree.where_value("aliases", name))
    for path, entry in _entries(sections):
        source = entry.get("source")
        if isinstance(source, str) and source and alias_of(source, written) not in damaged:
            yield from _source(path, entry, source, aliases, tree, folder)


def lacks(entry: Mapping[str, Json], key: str) -> bool:
    """The key is not there, nor misspelt: that is reported already."""
    return key not in entry and not any(
        nearest(word, [key]) for word in entry if word not in ModelSpec.model_fields
    )


def _entries(sections: Mapping[str, Json]) -> Iterator[tuple[Path, Mapping[str, Json]]]:
    """Whatever has a source: models, and what they take from elsewhere."""
    for name, model in _mapping(sections.get("models")).items():
        path: Path = ("models", name)
        parts = _mapping(model)
        yield path, parts
        for role in ("tokenizer", "config"):
            yield (*path, role), _mapping(parts.get(role))
        for adapter, part in _mapping(parts.get("adapters")).items():
            yield (*path, "adapters", adapter), _mapping(part)


def _source(
    path: Path,
    entry: Mapping[str, Json],
    source: str,
    aliases: Mapping[str, str],
    tree: Tree,
    folder: Folder,
) -> Iterator[Diagnostic]:
    owner, where = named(path), tree.where_value(*path, "source")
    model = str(path[1])
    try:
        reference = parse(source, folder, aliases)
    except UserError as problem:
        for one in problem.diagnostics:
            yield replace(one, summary=f"{owner}: {one.summary}", where=where, model=model)
        return
    if found := _version(reference, entry):
        place = tree.where(*path, "version") if "version" in entry else where
        yield error(f"{owner}: {found[0]}", place, found[1], model)


def _version(reference: Reference, entry: Mapping[str, Json]) -> tuple[str, str] | None:
    """What is wrong with `version:` beside this reference, and the hint."""
    version = entry.get("version")
    if reference.scheme == "file" and "version" in entry:
        return "a folder has no version", "remove it: its content is the version"
    if reference.scheme in TAGGED and not reference.version and lacks(entry, "version"):
        return '"version" is missing', MISSING[reference.scheme]
    if not isinstance(version, str) or version in (reference.tag, reference.digest):
        return None
    if reference.scheme in ("https", "http") and not re.fullmatch(r"sha256:[0-9a-f]{64}", version):
        return (
            f"{reference.scheme}:// has no versions",
            'write version: "sha256:<64 hex>" of the file, or remove it',
        )
    if reference.version:
        return f'the source says "{reference.version}", its version says "{version}"', "keep one of the two"
    return None


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
