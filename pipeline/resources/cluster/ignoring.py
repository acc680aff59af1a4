"""Fields that an entry leaves to others (`lifecycle.ignore_drift`): not compared, and sent as they are. Pure.

They cannot just be left out of what is sent: server-side apply takes away what its manager sent before and does not send
any more. So the value that is there goes along, which is nobody's conflict and changes nothing.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.digest import Json
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.cluster.workloads import workload_in

NOTHING = object()
Objects = Mapping[str, Any]  # Any: objects of the API, by key: "Deployment/qwen"


def unknown(objects: Objects, pointers: Sequence[str]) -> tuple[str, ...]:
    """Pointers into the workload at which mp writes nothing."""
    key = workload_in(objects)
    one = objects[key] if key else {}
    return tuple(pointer for pointer in pointers if _at(one, pointer) is NOTHING)


def without(objects: Objects, pointers: Sequence[str]) -> dict[str, Json]:
    """The objects but for those fields of the workload."""
    return _changed(objects, dict.fromkeys(pointers, NOTHING))


def settled(objects: Objects, full: Objects, live: Objects, pointers: Sequence[str]) -> dict[str, Json]:
    """The objects with those fields as they are; `full`, the objects as declared, says what they are at first."""
    key = workload_in(full)
    if key is None or not pointers:
        return dict(objects)
    one = shaped(live[key], full[key]) if key in live else full[key]
    return _changed(objects, {pointer: _at(one, pointer) for pointer in pointers})


def _changed(objects: Objects, values: Mapping[str, Any]) -> dict[str, Json]:
    key = workload_in(objects)
    if key is None or not values:
        return dict(objects)
    one = copy.deepcopy(objects[key])
    for pointer, value in values.items():
        _put(one, _parts(pointer), value)
    return {**objects, key: one}


def _put(one: Any, parts: Sequence[str], value: Any) -> None:
    *way, last = parts
    for part in way:
        below = _item(one, part)
        if below is NOTHING:
            if value is NOTHING or not isinstance(one, dict):
                return
            below = one[part] = {}
        one = below
    if isinstance(one, dict):
        one.pop(last, None)
        if value is not NOTHING:
            one[last] = value
    elif isinstance(one, list) and _item(one, last) is not NOTHING and value is not NOTHING:
        one[int(last)] = value


def _at(one: Any, pointer: str) -> Any:
    for part in _parts(pointer):
        one = _item(one, part)
    return one


def _item(one: Any, part: str) -> Any:
    if isinstance(one, Mapping):
        return one.get(part, NOTHING)
    if isinstance(one, list) and part.isdecimal() and int(part) < len(one):
        return one[int(part)]
    return NOTHING


def _parts(pointer: str) -> list[str]:
    """Of a JSON pointer, RFC 6901."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
