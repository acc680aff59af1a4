"""What a model says about each of its targets: checked by the options class of the target's kind. Part of ModelSpec."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from pipeline.targets import ENTRIES


class OptionsByKind:
    """Annotation of `targets:` of a model. The validation context says which kind each target is: {"kinds": {…}}."""

    def __get_pydantic_core_schema__(self, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        # the union serves the JSON schema; at run time the kind decides
        union = core_schema.union_schema([handler.generate_schema(options) for options in ENTRIES.values()])
        anything = core_schema.dict_schema(core_schema.str_schema(), core_schema.nullable_schema(union))
        return core_schema.with_info_wrap_validator_function(_options, anything)


def _options(value: object, _: ValidatorFunctionWrapHandler, info: ValidationInfo) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "not a mapping")
    kinds: Mapping[str, str] = (info.context or {}).get("kinds", {})
    found: dict[str, BaseModel] = {}
    problems: list[InitErrorDetails] = []
    for name, written in value.items():
        options = ENTRIES.get(kinds.get(name, ""))
        if options is None:
            continue  # no such target, or of a kind that is reported where it is declared
        try:
            found[name] = options.model_validate_json(json.dumps(written or {}), strict=True)
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
