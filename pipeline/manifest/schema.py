"""JSON Schemas of models.yaml and models.lock: for editors, other programs and the reference. Used by `mp schema`."""

from typing import Any

from pydantic import BaseModel

from pipeline.core.digest import Json
from pipeline.manifest.pins import LockFile
from pipeline.manifest.spec import Manifest

DRAFT = "http://json-schema.org/draft-07/schema#"  # editors warn of newer ones


def models_schema() -> dict[str, Json]:
    """Schema of models.yaml. What takes two places to see (does this target exist?) is checked by read alone."""
    return _schema(Manifest, "models.yaml")


def lock_schema() -> dict[str, Json]:
    return _schema(LockFile, "models.lock")


def _schema(spec: type[BaseModel], title: str) -> dict[str, Json]:
    made = _tidy(spec.model_json_schema())
    definitions = made.pop("$defs", {})
    return {"$schema": DRAFT, **made, "title": title, "definitions": definitions}


def _tidy(node: Any, *, names: bool = False) -> Any:  # Any: a schema is as heterogeneous as JSON
    """Without what pydantic says only to itself, in the words of draft 7; `names`: keys of `node` are the user's."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node.replace("#/$defs/", "#/definitions/") if isinstance(node, str) else node
    if names:
        return {key: _tidy(value) for key, value in node.items()}
    tidy = {
        key: _tidy(value, names=key in ("properties", "$defs"))
        for key, value in node.items()
        if key not in ("title", "discriminator", "patternProperties")
        and not (key == "default" and (value in (None, []) or isinstance(value, dict)))
    }
    for pattern, value in node.get("patternProperties", {}).items():  # other names are mistakes too
        tidy["additionalProperties"] = _tidy(value)
        tidy["propertyNames"] = {"pattern": pattern, **tidy.get("propertyNames", {})}
    return tidy
