"""The schemas of tests/cluster/schemas: an object as strictly as a server takes it, and definitions to install."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).resolve().parents[1] / "cluster" / "schemas"
KUBERNETES = tuple(sorted(file.stem.removeprefix("kubernetes-") for file in FOLDER.glob("kubernetes-*.json")))
REFERENCE = "#/components/schemas/"

Object = Mapping[str, Any]  # Any: an object of the API


def mistakes(one: Object, version: str) -> list[str]:
    """What a strict server of that version would say of an object: unknown fields, wrong types, missing fields."""
    return [
        f"{error.json_path}: {error.message}"
        for error in _validator(str(one["apiVersion"]), str(one["kind"]), version).iter_errors(one)
    ]


def definition(kind: str) -> dict[str, Any]:
    """A CustomResourceDefinition: of "LeaderWorkerSet"."""
    found: dict[str, Any] = _definitions()[kind]
    return found


@cache
def _definitions() -> Mapping[str, Any]:
    files = (file for file in FOLDER.glob("*.json") if not file.stem.startswith("kubernetes-"))
    each = (json.loads(file.read_text(encoding="utf-8"))["definition"] for file in files)
    return {one["spec"]["names"]["kind"]: one for one in each}


@cache
def _validator(api: str, kind: str, version: str) -> jsonschema.protocols.Validator:
    core = _core(version)
    if (name := core["kinds"].get(f"{api}/{kind}")) is not None:
        schemas = {key: strict(value) for key, value in core["schemas"].items()}
        return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schemas})
    versions = definition(kind)["spec"]["versions"]
    schema = next(one for one in versions if one["name"] == api.rpartition("/")[2])["schema"][
        "openAPIV3Schema"
    ]
    return jsonschema.Draft202012Validator(strict(schema))


@cache
def _core(version: str) -> Any:
    return json.loads((FOLDER / f"kubernetes-{version}.json").read_text(encoding="utf-8"))


def strict(schema: Any) -> Any:
    """The same where fields that are not named are errors, in the words of JSON Schema 2020-12."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict_value(key, value) for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def _strict_value(key: str, value: Any) -> Any:
    if key == "$ref":
        return value.replace(REFERENCE, "#/$defs/")
    if key == "properties":
        return {name: strict(each) for name, each in value.items()}
    return strict(value) if key not in ("default", "enum", "required") else value
