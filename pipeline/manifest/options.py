"""What is said of targets, under `targets:` and by each model: checked by the records of the target's kind. Part of Manifest.

A kind's records are loaded when the manifest names it. The JSON schema, which nobody needs at run time, shows all of them.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import (
    CoreSchema,
    InitErrorDetails,
    PydanticCustomError,
    PydanticKnownError,
    core_schema,
)

from pipeline.targets import KINDS


class SpecByKind:
    """Annotation of one of `targets:`: its `kind` tells which record checks it."""

    def __get_pydantic_core_schema__(self, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_spec)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        specs = {name: kind.spec.__pydantic_core_schema__ for name, kind in KINDS.items()}
        return handler(core_schema.tagged_union_schema(specs, discriminator="kind"))


class OptionsByKind:
    """Annotation of `targets:` of a model. The validation context says which kind each target is: {"kinds": {…}}."""

    def __get_pydantic_core_schema__(self, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(_options)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        union = core_schema.union_schema([kind.options.__pydantic_core_schema__ for kind in KINDS.values()])
        return handler(core_schema.dict_schema(core_schema.str_schema(), core_schema.nullable_schema(union)))


def _spec(value: object) -> BaseModel:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "not a mapping")
    if "kind" not in value:
        raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        tags = ", ".join(f"'{name}'" for name in KINDS)
        raise PydanticKnownError(
            "union_tag_invalid", {"discriminator": "'kind'", "tag": str(kind), "expected_tags": tags}
        )
    return KINDS[kind].spec.model_validate_json(json.dumps(value), strict=True)


def _options(value: object, info: ValidationInfo) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "not a mapping")
    kinds: Mapping[str, str] = (info.context or {}).get("kinds", {})
    found: dict[str, BaseModel] = {}
    problems: list[InitErrorDetails] = []
    for name, written in value.items():
        kind = kinds.get(name, "")
        if kind not in KINDS:
            continue  # no such target, or of a kind that is reported where it is declared
        try:
            found[name] = KINDS[kind].options.model_validate_json(json.dumps(written or {}), strict=True)
        except ValidationError as problem:
            problems.extend(_moved(problem, name))
    if problems:
        raise ValidationError.from_exception_data("options", problems)
    return found


def _moved(problem: ValidationError, name: str) -> Iterator[InitErrorDetails]:
    """The same errors, one level deeper."""
    for one in problem.errors(include_url=False):
        kind = PydanticCustomError(one["type"], one["msg"], one.get("ctx"))
        yield InitErrorDetails(type=kind, loc=(name, *one["loc"]), input=one["input"])
