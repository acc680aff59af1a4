"""The words for roll-outs that kinds of targets share: how a target changes many models, how one model is changed."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError, PydanticKnownError

PART = r"^([1-9][0-9]?|100)%$"


def _wave(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str) and re.fullmatch(PART, value):
        return value
    said = {"summary": "is no size of a wave", "hint": 'write a number from 1 on, or a part such as "10%"'}
    raise PydanticCustomError("mp", "{summary}", said)


def _some(waves: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Asked once each is a size: a rule of the field would count those alone that are, and call a list with a slip empty."""
    if not waves:
        raise PydanticKnownError("too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0})
    return waves


# How large a wave is: so many deployments, or that part of those that change.
Wave: TypeAlias = Annotated[
    int | str,
    PlainValidator(_wave),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": PART}]}),
]


class WavesSpec(BaseModel):
    """How the deployments of a target are changed when a plan changes several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    waves: Annotated[tuple[Wave, ...], AfterValidator(_some)] = Field(
        default=("100%",),
        json_schema_extra={"minItems": 1},
        description="Sizes of the waves, a number or a part of the deployments that change, such as "
        '`[1, "10%", "100%"]`; the last is repeated until all are changed. A wave begins when the one before has ended',
    )
    max_parallel: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Deployments of this target that are changed at one time; what suits the kind when left out",
    )
    max_failures: int = Field(
        default=1,
        ge=1,
        description="After so many failures for one cause (the same new engine, else the model itself) nothing more is changed for it",
    )


class RolloutOptions(BaseModel):
    """How one model is brought to a new version at a target."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when_no_spare: Literal["refuse", "recreate"] = Field(
        default="refuse",
        description="Where a new pod finds no free GPU beside the old one: `refuse` the plan, or `recreate`: the old pod goes first",
    )
    on_failure: Literal["rollback", "hold"] = Field(
        default="rollback",
        description="After a failed roll-out: `rollback` brings the last good version back, `hold` leaves it to be looked at",
    )
