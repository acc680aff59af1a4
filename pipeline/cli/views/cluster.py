"""Objects of a cluster as a reader thinks of them: replicas, memory, the engine's flags. Used by changes."""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.core.change import FieldDiff, differences
from pipeline.core.digest import Json
from pipeline.core.size import size_bytes
from pipeline.resources.cluster.marks import FILLED
from pipeline.resources.cluster.products import GPU

Readable = dict[str, Any]  # Any: fields of objects, heterogeneous

_DOCUMENT, _FILLING = "launch.json", "fill.json"
_REVISIONS = "revisions/"
_WORKLOADS = ("Deployment/", "StatefulSet/")
_TOLD = ("argv", "env", "secrets")  # of the launch document, by their own names


def is_cluster(state: Json) -> bool:
    """A state that is made of objects."""
    return isinstance(state, Mapping) and isinstance(state.get("objects"), Mapping)


def readable_differences(before: Json, after: Json) -> Iterator[FieldDiff | str]:
    """What differs between two such states; a whole object that comes or goes is said by its name."""
    old, new = _objects(before), _objects(after)
    if any(key.startswith(_WORKLOADS) for key in old.keys() ^ new.keys()):  # its fields say nothing then
        yield from (f"{key} removed" for key in sorted(old.keys() - new.keys()))
        yield from (f"{key} added" for key in sorted(new.keys() - old.keys()))
        before, after = (
            _with_objects(before, old.keys() & new.keys()),
            _with_objects(after, old.keys() & new.keys()),
        )
    for diff in differences(readable(before), readable(after)):
        if diff.path.startswith(_REVISIONS):
            yield f"restart: secret {_named(diff.path.removeprefix(_REVISIONS))} changed"
        elif diff.before is None and isinstance(diff.after, dict):
            yield f"{_named(diff.path)} added"
        elif diff.after is None and isinstance(diff.before, dict):
            yield f"{_named(diff.path)} removed"
        else:
            yield diff


def running(state: Json) -> Readable:
    """What is readable of what runs: a ConfigMap that none of its pods reads is no part of it. A plan says that it goes."""
    return {key: value for key, value in readable(state).items() if not key.startswith("ConfigMap/")}


def readable(state: Json) -> Readable:
    """The state with one name for each thing that people declare; the rest under its object's kind."""
    if not is_cluster(state):
        return {}
    assert isinstance(state, dict)
    objects = state["objects"]
    assert isinstance(objects, dict)
    found: Readable = {name: value for name, value in state.items() if name != "objects"}
    used = _config_name(objects)
    for key, one in objects.items():
        kind, _, name = key.partition("/")
        if not isinstance(one, dict):
            continue
        match kind:
            case "Deployment" | "StatefulSet":
                found |= _workload(one)
            case "ConfigMap" if name == used:
                found |= _launch(one)
            case "ConfigMap":
                found |= _filling(one) or {key: one}
            case "PersistentVolumeClaim":
                found["claim"] = _claim(one)
            case _:
                found[key if kind in found else kind] = _body(one)
    return found


def _objects(state: Json) -> Readable:
    objects = state.get("objects") if isinstance(state, dict) else None
    return objects if isinstance(objects, dict) else {}


def _with_objects(state: Json, keys: Collection[str]) -> Json:
    """The state with some of its objects."""
    kept = {key: one for key, one in _objects(state).items() if key in keys}
    return {**state, "objects": kept} if isinstance(state, dict) else state


def amounts(state: Json) -> Mapping[str, Any]:
    """What a deployment takes: replicas, gpus, cpus, memory_bytes."""
    found = readable(state)
    memory, cpu = found.get("memory"), str(found.get("cpu") or "")
    return {
        "replicas": found.get("replicas"),
        "gpus": int(found.get(GPU) or 0),
        "cpus": float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu or 0),
        "memory_bytes": size_bytes(memory if memory[-1:].isalpha() else f"{memory}B") if memory else None,
    }


def _workload(one: Readable) -> Readable:
    spec = dict(one.get("spec") or {})
    claims = [_claim(each) for each in spec.pop("volumeClaimTemplates", None) or ()]
    template = spec.pop("template", None) or {}
    pod = dict(template.get("spec") or {})
    containers = [dict(each) for each in pod.pop("containers", None) or ()]
    first = containers.pop(0) if containers else {}
    resources = first.pop("resources", None) or {}
    same = resources.get("requests") == resources.get("limits")
    first_run = {each.get("name"): each for each in pod.pop("initContainers", None) or ()}
    listed: Readable = {
        "volumes": {each.get("name"): _without_config(each) for each in pod.pop("volumes", None) or ()},
        "mounts": {each.get("mountPath"): each for each in first.pop("volumeMounts", None) or ()},
    }
    secrets = [each.get("name") for each in pod.pop("imagePullSecrets", None) or ()]
    return {
        **spec,
        **pod,
        **first,
        **(resources.get("limits") or {} if same else {"resources": resources}),
        **({"containers": containers} if containers else {}),
        **({"before": first_run} if first_run else {}),
        **({"claim of each": claims[0]} if claims else {}),
        **{name: held for name, held in listed.items() if held},
        **({"pull_secret": ", ".join(map(str, secrets))} if secrets else {}),
        **({"labels": labels} if (labels := (template.get("metadata") or {}).get("labels")) else {}),
    }


def _without_config(volume: Readable) -> Readable:
    """The name of the launch's ConfigMap says nothing that the launch does not say."""
    return {"name": volume["name"]} if "configMap" in volume else volume


def _launch(one: Readable) -> Readable:
    try:
        document = json.loads((one.get("data") or {})[_DOCUMENT])
        told = {name: document.pop(name) for name in _TOLD if name in document}
    except (ValueError, KeyError, AttributeError, TypeError):
        return {"ConfigMap": one}
    return {**told, "launch": document}


def _filling(one: Readable) -> Readable:
    """What each replica fills its volume with; {} of another ConfigMap. Its files are those of the weights image."""
    try:
        document = json.loads((one.get("data") or {})[_FILLING])
        return {"weights of each": f"{document['registry']}/{document['repository']}:{document['tag']}"}
    except (ValueError, KeyError, AttributeError, TypeError):
        return {}


def _claim(one: Readable) -> Readable:
    """Whether it is filled is an annotation: an empty one is filled before any pod mounts it."""
    spec = dict(one.get("spec") or {})
    storage = ((spec.pop("resources", None) or {}).get("requests") or {}).get("storage")
    annotations = (one.get("metadata") or {}).get("annotations")
    if annotations is None:  # a template, whose claims are filled by their pods
        return {**spec, "size": storage}
    return {**spec, "size": storage, "content": "verified" if FILLED in annotations else "empty"}


def _config_name(objects: Mapping[str, Any]) -> str:
    """The ConfigMap that pods of the workload read; what fills their volumes reads another one."""
    for key, one in objects.items():
        if key.startswith(_WORKLOADS) and isinstance(one, dict):
            pod = ((one.get("spec") or {}).get("template") or {}).get("spec") or {}
            for volume in pod.get("volumes") or ():
                if "configMap" in volume:
                    return str(volume["configMap"].get("name"))
    return ""


def _body(one: Readable) -> Readable:
    """An object but for its name and mark."""
    metadata = dict(one.get("metadata") or {})
    return {**one, "metadata": {key: metadata[key] for key in ("labels",) if key in metadata}}


def _named(path: str) -> str:
    return " ".join(part.replace("~1", "/").replace("~0", "~") for part in path.split("/"))
