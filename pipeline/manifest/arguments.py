"""`serve.args` against the flags of the engine, as far as models.yaml says which one it is. Used by check."""

import re
from collections.abc import Iterator, Mapping

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.manifest.marks import Tree
from pipeline.manifest.scalars import FLAG_NAME
from pipeline.templates import TEMPLATES
from pipeline.templates.flags import mistakes
from pipeline.templates.release import releases


def check_arguments(
    name: str, model: Mapping[str, Json], sections: Mapping[str, Json], tree: Tree
) -> Iterator[Diagnostic]:
    """Flags that mp writes itself or that no meant version of the engine has: without a version, any may be locked."""
    template = model.get("template") or _mapping(sections.get("defaults")).get("template")
    args = _mapping(_mapping(model.get("serve")).get("args"))
    if not args or not isinstance(template, str) or template not in TEMPLATES:
        return
    own, shared = _mapping(model.get("engine")), _mapping(_mapping(sections.get("engines")).get(template))
    version = own.get("version") or shared.get("version")
    engine = f"{template} {version}" if version else template
    flags = [flag for flag in args if re.fullmatch(FLAG_NAME, flag)]  # others are reported by their form
    answers = [
        {written: (summary, hint) for written, summary, hint in mistakes(flags, each.own, each.flags, engine)}
        for each in releases(template)
        if version in (None, each.version)
    ]
    for written, (summary, hint) in answers[0].items() if answers else ():
        if all(written in other for other in answers):
            where = tree.where("models", name, "serve", "args", written)
            yield error(f"{name}: serve.args: {summary}", where, hint, name)


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
