"""What the JSON Schemas of machine output are put together from. Used by views/schema and views/holdings."""

from pipeline.core.digest import Json

TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
WHETHER: Json = {"type": "boolean"}
COUNT: Json = {"type": "integer", "minimum": 0}
COUNT_OR_NULL: Json = {"type": ["integer", "null"], "minimum": 0}
SECONDS: Json = {"type": "number", "minimum": 0}
FORMAT: Json = {"const": 1}


def record(**fields: Json) -> dict[str, Json]:
    """An object with exactly these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def list_of(of: Json) -> Json:
    return {"type": "array", "items": of}


def or_null(of: Json) -> Json:
    return {"anyOf": [of, {"type": "null"}]}


TRANSFER = record(download_bytes=COUNT, push_bytes=COUNT, reused_bytes=COUNT, exact=WHETHER)
DIFFS = list_of(record(path=TEXT, before={}, after={}))


def document(title: str, description: str, body: dict[str, Json]) -> dict[str, Json]:
    head: dict[str, Json] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
    }
    return head | body
