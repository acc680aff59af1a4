"""`serve.args` and `serve.faces` against the template, as far as models.yaml says which engine it is. Used by check."""

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
    template = _template(model, sections)
    args = _mapping(_mapping(model.get("serve")).get("args"))
    if not args or template is None:
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


def check_faces(
    name: str, model: Mapping[str, Json], sections: Mapping[str, Json], tree: Tree
) -> Iterator[Diagnostic]:
    """Faces that this template does not serve and another one does; unknown ones are reported by their form."""
    template = _template(model, sections)
    faces = _mapping(model.get("serve")).get("faces")
    if template is None or not isinstance(faces, list):
        return
    for index, face in enumerate(faces):
        able = [other for other in sorted(TEMPLATES) if face in TEMPLATES[other].faces()]
        if able and template not in able:
            where = tree.where_value("models", name, "serve", "faces", index)
            hint = f"write template: {' or '.join(able)}, or leave the face out"
            yield error(
                f'{name}: serve.faces: template "{template}" does not serve "{face}"', where, hint, name
            )


def _template(model: Mapping[str, Json], sections: Mapping[str, Json]) -> str | None:
    """The model's template, where it is a known one."""
    template = model.get("template") or _mapping(sections.get("defaults")).get("template")
    return template if isinstance(template, str) and template in TEMPLATES else None


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
