"""A live object in the fields that mp writes: what is compared. Pure.

A field counts when mp writes it now, or when it is mp's because it wrote it before (`metadata.managedFields`, as
server-side apply keeps it): so a field that is no longer wanted is seen to go. What others own or the server fills in does not.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.clients.kube import MANAGER
from pipeline.core.digest import Json
from pipeline.resources.cluster.marks import FINGERPRINT, REVISIONS
from pipeline.resources.cluster.sending import IMAGE_FIELDS

_IDENTITY = ("apiVersion", "kind", "metadata")
_NAMES = ("name", "namespace")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}\Z")

# Lists that server-side apply merges by a key of their items (x-kubernetes-list-map-keys of the OpenAPI schema, 1.36);
# every other list is one value.
_KEYS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "env": (("name",),),
    "imagePullSecrets": (("name",),),
    "initContainers": (("name",),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
    "volumeMounts": (("mountPath",),),
    "volumes": (("name",),),
}


def shaped(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> Json:
    """The live object in the fields of `wanted` and in those that mp owns; without digests of images and our fingerprint.

    `wanted` may be {}: of an object that nothing stands for any more, what mp owns is left.
    """
    owned = _owned(live)
    found = _record(live, wanted, owned, top=True)
    metadata = dict(found.get("metadata") or {})
    annotations = {key: v for key, v in (metadata.get("annotations") or {}).items() if key != FINGERPRINT}
    if annotations or "annotations" in metadata:
        metadata["annotations"] = annotations
    metadata |= {key: live["metadata"][key] for key in _NAMES if key in live["metadata"]}
    return {**found, "metadata": metadata}


def _owned(live: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that mp applied, in the form of FieldsV1; {} where it applied none."""
    for entry in live.get("metadata", {}).get("managedFields") or ():
        ours = entry.get("manager") == MANAGER and entry.get("operation") == "Apply"
        if ours and not entry.get("subresource"):
            return dict(entry.get("fieldsV1") or {})
    return {}


def _record(
    live: Mapping[str, Any], wanted: Mapping[str, Any], owned: Mapping[str, Any], *, top: bool = False
) -> dict[str, Any]:
    found = {}
    for key, value in live.items():
        ours = f"f:{key}" in owned
        if key == "annotations" and isinstance(value, dict) and REVISIONS in value:
            value = {name: text for name, text in value.items() if name != REVISIONS}  # a field of its own
            ours = ours and bool(value)
        if key in wanted or ours or (top and key in _IDENTITY):
            found[key] = _value(key, value, wanted.get(key), owned.get(f"f:{key}"))
    return found


def _value(key: str, live: Any, wanted: Any, owned: Mapping[str, Any] | None) -> Any:
    if isinstance(live, dict):
        if not owned and not isinstance(wanted, dict):
            return live if key != "metadata" else {}  # owned as one value
        return _record(live, wanted if isinstance(wanted, dict) else {}, owned or {})
    if isinstance(live, list):
        keys = _keys(key, live)
        if (
            keys and owned == {}
        ):  # ours as one value: its schema says nothing of the list (KAITO's pod templates)
            return _undigested(live, wanted)
        return _merged(live, wanted, owned or {}, keys) if keys else _whole(live, wanted)
    if live == wanted or key not in IMAGE_FIELDS or not isinstance(live, str):
        return live
    return _DIGEST.sub("", live)


def _undigested(value: Any, wanted: Any) -> Any:
    """All of a value; images without digests, but for those that are wanted with one."""
    if value == wanted:
        return value
    if isinstance(value, list):
        others = wanted if isinstance(wanted, list) and len(wanted) == len(value) else [None] * len(value)
        return [_undigested(item, other) for item, other in zip(value, others, strict=True)]
    if not isinstance(value, dict):
        return value
    same = wanted if isinstance(wanted, dict) else {}
    return {
        key: _DIGEST.sub("", item)
        if key in IMAGE_FIELDS and isinstance(item, str) and item != same.get(key)
        else _undigested(item, same.get(key))
        for key, item in value.items()
    }


def _keys(name: str, items: list[Any]) -> tuple[str, ...]:
    """The keys by which the items of a list are told apart; () of a list that is one value."""
    for keys in _KEYS.get(name, ()):
        if all(isinstance(item, dict) and keys[0] in item for item in items):
            return keys
    return ()


def _merged(live: list[Any], wanted: Any, owned: Mapping[str, Any], keys: tuple[str, ...]) -> list[Any]:
    """Items that are wanted or ours, the wanted first and in their order: the server may keep another one."""
    asked = {_identity(item, keys): item for item in wanted if isinstance(item, dict)} if wanted else {}
    ours = {_of_field(name, keys): fields for name, fields in owned.items() if name.startswith("k:")}
    found = {_identity(item, keys): item for item in live}
    order = [*(each for each in asked if each in found), *(each for each in found if each not in asked)]
    return [
        _record(found[each], asked.get(each, {}), ours.get(each, {}))
        for each in order
        if each in asked or each in ours
    ]


def _whole(live: list[Any], wanted: Any) -> list[Any]:
    """A list that is one value: all of it; of its records, where there are as many as wanted, the fields that are wanted."""
    if not isinstance(wanted, list) or len(wanted) != len(live):
        return live
    return [
        _record(item, other, {}) if isinstance(item, dict) and isinstance(other, dict) else item
        for item, other in zip(live, wanted, strict=True)
    ]


def _identity(item: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _of_field(name: str, keys: tuple[str, ...]) -> tuple[Any, ...]:
    """The same of a FieldsV1 name: k:{"containerPort":8000,"protocol":"TCP"}."""
    return _identity(json.loads(name.removeprefix("k:")), keys)
