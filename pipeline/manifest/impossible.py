"""What targets and templates refuse of the entries, from the file alone, each at the key that is to blame. Used by read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as Folder
from typing import Any

from pipeline.core.diagnostic import Diagnostic, Mistake, error
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.model import Hardware, Stated
from pipeline.core.protocols import Place, Refuses
from pipeline.manifest.marks import Path, Tree
from pipeline.manifest.spec import Manifest
from pipeline.manifest.stated import (
    OWN_REGISTRY,
    declared_registries,
    registry_name,
    registry_of,
    stands,
    stands_everywhere,
    stated,
)
from pipeline.targets import KINDS
from pipeline.templates import TEMPLATES

# What else is right when one of its entries is not; a broken registry may be what another one's absence means.
SEPARATE = ("models", "targets", "hardware", "secrets", "engines", "aliases")


@frozen
class Setting:
    """Where a manifest is read, and for which environment."""

    folder: Folder
    environment: str


def impossible(manifest: Manifest, tree: Tree, setting: Setting) -> Iterator[Diagnostic]:
    """An error for everything that no target or no template can do as it is written."""
    registries = declared_registries(manifest, setting.folder)
    for name in manifest.models:
        if not _is_whole(manifest, name):
            continue
        entry = stated(manifest, name, setting.folder)
        of_server = _of_standing if stands_everywhere(manifest.models[name]) else _of_template
        places = _places(manifest, name, registries, setting)
        for one in (*of_server(manifest, entry), *_of_places(entry, places)):
            if one.path not in tree.reported:
                where = tree.where(*one.path)
                yield error(f"{name}: {one.summary}", where, one.hint, name)


def without_mistakes(sections: Mapping[str, Json], paths: Iterable[Path]) -> dict[str, Json] | None:
    """The sections but for the entries that hold these places; None where such a place holds for all of them."""
    left = dict(sections)
    for path in paths:
        if path[0] in left and path[0] not in Manifest.model_fields:
            del left[str(path[0])]  # no key of ours
        elif len(path) < 2 or path[0] not in SEPARATE:
            return None
        else:
            depth = 4 if path[0] == "models" and path[2:3] == ("targets",) and len(path) > 3 else 2
            left = _without(left, [str(part) for part in path[:depth]])
    return left


def _without(mapping: Mapping[str, Json], path: Sequence[str]) -> dict[str, Json]:
    first, *rest = path
    inner = mapping.get(first)
    if not rest or not isinstance(inner, dict):
        return {key: value for key, value in mapping.items() if key != first}
    return {**mapping, first: _without(inner, rest)}


def _is_whole(manifest: Manifest, name: str) -> bool:
    """What an entry refers to is there; what is not is reported where it is named."""
    spec, defaults = manifest.models[name], manifest.defaults
    hardware = spec.hardware or defaults.hardware
    secrets = [value.secret for value in spec.env.values() if not isinstance(value, str)]
    secrets += [spec.serve.api_key.secret] if spec.serve.api_key else []
    return hardware in (None, *manifest.hardware) and all(one in manifest.secrets for one in secrets)


def _places(
    manifest: Manifest, name: str, registries: Mapping[str, Registry], setting: Setting
) -> Iterator[Place[Any]]:
    for target, options in manifest.models[name].targets.items():
        spec = manifest.targets[target]
        if _is_known(registry_name(manifest, spec), registries):
            registry = registry_of(manifest, spec, registries, setting.folder / ".mp")
            yield Place(target, spec, options, registry, manifest.project, setting.environment)


def _is_known(registry: str, registries: Mapping[str, Registry]) -> bool:
    """Which registry is meant is clear; where it is not, that is reported where it is named."""
    return registry in registries or (registry == OWN_REGISTRY and not registries)


def _of_places(entry: Stated, places: Iterable[Place[Any]]) -> Iterator[Mistake]:
    for place in places:
        target = KINDS[place.spec.kind].target
        if isinstance(target, Refuses) and (entry.template or stands(place.options)):
            yield from target.mistakes(place, entry)


def _of_standing(manifest: Manifest, entry: Stated) -> Iterator[Mistake]:
    """Faces are made by mp's own server alone."""
    if manifest.models[entry.name].serve.faces:
        text = "serve.faces: others made what runs at all of its targets, and mp makes no server with faces"
        yield Mistake((*entry.path, "serve", "faces"), text, "remove faces, or the words runs and manage")


def _of_template(_: Manifest, entry: Stated) -> Iterator[Mistake]:
    template = TEMPLATES.get(entry.template)
    if template is None:
        return
    try:
        template.variant(entry.engine_version, entry.hardware)
    except LookupError as problem:
        yield Mistake((*entry.path, "engine", "version"), str(problem), _versions(entry.hardware))
    yield from template.mistakes(entry)


def _versions(hardware: Hardware) -> str:
    return f'name one that serves hardware "{hardware.name}", or leave the version out'
