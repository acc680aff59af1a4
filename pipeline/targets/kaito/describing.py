"""A Workspace or InferenceSet that mp did not make, told as an entry of models.yaml; what an entry cannot say is said as a remark. Pure.

Fields are those of kaito.sh/v1beta1 (KAITO 0.12, config/crd/bases).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from pipeline.core.frozen import frozen
from pipeline.resources.cluster.capacity import gpus_of_node
from pipeline.resources.cluster.fields import labels_in, record
from pipeline.resources.cluster.health import Object
from pipeline.resources.cluster.products import PRODUCT
from pipeline.resources.cluster.scalers import REPLICAS
from pipeline.targets.described import Described, Gpus, appliers, is_scaled
from pipeline.targets.describing import describe as described_pod
from pipeline.targets.kaito.objects import SCALED
from pipeline.targets.kaito.preset import CONFIG_FILE, HUB, TOKEN, TOKEN_KEY

NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
SWITCH = re.compile(r"(scaledobject\.)?kaito\.sh/[A-Za-z0-9._-]+")
IMAGE = re.compile(r"[^\s@]+/[^\s:/@]+(:[^\s:/@]+|@sha256:[0-9a-f]{64})")
DNS = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")


@frozen
class Around:
    """What the cluster says of things that a Workspace names."""

    nodes: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # {} where they may not be seen
    configs: Mapping[str, Object] = field(default_factory=dict)  # ConfigMaps of the namespace, by name
    pull_secret: str | None = None  # of the target


def describe(one: Object, around: Around) -> Described | None:
    """The entry of a Workspace or an InferenceSet; None where its name can be none of an entry's."""
    name, spec = str(one["metadata"]["name"]), record(one.get("spec"))
    if not NAME.fullmatch(name):
        return None
    template = record(spec.get("template")) if one["kind"] == "InferenceSet" else one
    resource, inference = record(template.get("resource")), record(template.get("inference"))
    selector = record(spec.get("labelSelector") or resource.get("labelSelector"))
    served = _served(name, inference, around)
    gpus, unsure = _gpus(one, resource, around)
    adapters, odd = _adapters(inference, around)
    switches = _switches(one)
    scaled = any(key.startswith(SCALED) for key in switches)
    labels = record(selector.get("matchLabels"))
    options: dict[str, Any] = {"name": name, "object": one["kind"]}
    if one["kind"] == "InferenceSet" and not scaled:
        options["replicas"] = spec.get("replicas", 1)
    options |= {
        **({"node_labels": dict(labels)} if labels and not selector.get("matchExpressions") else {}),
        **({"preferred_nodes": list(found)} if (found := resource.get("preferredNodes")) else {}),
        **({"partition": dict(resource["partition"])} if resource.get("partition") else {}),
        **({"annotations": switches} if switches else {}),
        **({"adapters": adapters} if adapters else {}),
        **({"runs": served.runs} if served.runs else {}),
    }
    return Described(
        name,
        served.source,
        served.version,
        gpus,
        served.env,
        options,
        (REPLICAS,) if is_scaled(one) and not scaled else (),
        (*served.remarks, *unsure, *odd, *_others(one, spec, selector, inference), *appliers(one)),
    )


@frozen
class _Served:
    """What an object serves."""

    runs: dict[str, Any]
    source: str | None
    version: str | None
    env: Mapping[str, str | tuple[str, str]]
    remarks: tuple[str, ...]


def _served(name: str, inference: Object, around: Around) -> _Served:
    if "preset" in inference:
        return _of_preset(inference, around)
    pod = record(record(inference.get("template")).get("spec"))
    if not pod.get("containers"):
        return _Served({}, None, None, {}, ("it says nothing of what it serves",))
    like = {"metadata": {"name": name}, "spec": {"template": {"spec": pod}}}
    found = described_pod(like)
    assert found is not None, "its name is one of an entry's"
    return _Served(found.options["runs"], found.source, found.version, found.env, found.remarks)


def _of_preset(inference: Object, around: Around) -> _Served:
    preset = record(inference["preset"])
    name, settings = str(preset.get("name")), record(preset.get("presetOptions"))
    config = inference.get("config")
    said = _settings(around.configs.get(str(config)))
    runs = {
        "preset": name,
        **({"image": settings["image"]} if settings.get("image") else {}),
        **({"config": config} if config else {}),
    }
    secret = settings.get("modelAccessSecret")
    source = f"{HUB}{name}" if "/" in name else None
    return _Served(
        runs,
        source,
        str(said.get("revision") or "main") if source else None,
        {TOKEN: (str(secret), TOKEN_KEY)} if secret else {},
        tuple(_remarks_of_preset(name, config, said, settings, around)),
    )


def _remarks_of_preset(
    name: str, config: Any, said: Object, settings: Object, around: Around
) -> Iterator[str]:
    if "/" not in name:
        yield f'source: preset "{name}" is KAITO\'s own, its repository is not known'
    elif not said.get("revision"):
        yield "source: the preset's repository, its version is not known: KAITO takes what main is"
    if config and str(config) in around.configs:
        flags = ", ".join(sorted(map(str, said))) or "nothing of vLLM"
        yield f"ConfigMap {config} is left as it is, and says {flags}"
    elif config:
        yield f"ConfigMap {config} is left as it is, and could not be read"
    if settings.get("imagePullSecrets"):
        yield f"its image is pulled with {', '.join(settings['imagePullSecrets'])}, which is left as it is"


def _settings(config: Object | None) -> Object:
    """The settings of vLLM in a ConfigMap; {} where there are none."""
    try:
        return record(
            record(yaml.safe_load(str(record((config or {}).get("data")).get(CONFIG_FILE, "")))).get("vllm")
        )
    except yaml.YAMLError:
        return {}


def _gpus(one: Object, resource: Object, around: Around) -> tuple[Gpus, list[str]]:
    """What each node has: as its nodes say, else as its instance type is known."""
    instance = str(resource.get("instanceType") or "")
    count = int(resource.get("count") or record(one.get("status")).get("targetNodeCount") or 1)
    nodes = [
        around.nodes[each]
        for each in record(one.get("status")).get("workerNodes") or ()
        if each in around.nodes
    ]
    of_nodes = [(gpus_of_node(node), labels_in(node).get(PRODUCT)) for node in nodes]
    gpus, product = next(
        (each for each in of_nodes if each[0] and each[1]), _instances().get(instance, (0, None))
    )
    if not gpus:
        what = f'instance type "{instance}"' if instance else "nodes that have its labels"
        return Gpus(0, None), [
            f"no hardware class: the GPUs of {what} are not known, and it is left as it is"
        ]
    return Gpus(gpus, product, count, instance), []


@cache
def _instances() -> Mapping[str, tuple[int, str]]:
    text = resources.files("pipeline.targets.kaito").joinpath("data/instances.json").read_text("utf-8")
    return {name: (gpus, gpu) for name, (gpus, gpu) in json.loads(text)["instances"].items()}


def _adapters(inference: Object, around: Around) -> tuple[list[dict[str, Any]], list[str]]:
    """All of them or none: the list is one value to the server."""
    listed = inference.get("adapters") or ()
    found = [_adapter(one, around) for one in listed]
    told = [one for one in found if one is not None]
    if len(told) == len(found):
        return told, []
    names = ", ".join(str(record(one.get("source")).get("name")) for one in listed)
    why = "their images, their strength or the secret that pulls them are not as the target's entry can say"
    return [], [f"not in this entry, and left as it is: adapters {names}: {why}"]


def _adapter(one: Object, around: Around) -> dict[str, Any] | None:
    source, pulled = record(one.get("source")), [around.pull_secret] if around.pull_secret else []
    known = set(source) <= {"name", "image", "imagePullSecrets"} and set(one) <= {"source", "strength"}
    image, name, strength = str(source.get("image")), str(source.get("name")), one.get("strength")
    if not known or not IMAGE.fullmatch(image) or not DNS.fullmatch(name):
        return None
    if list(source.get("imagePullSecrets") or ()) != pulled:
        return None
    if strength is not None and not _is_factor(str(strength)):
        return None
    return {"name": name, "image": image, **({} if strength is None else {"strength": float(strength)})}


def _is_factor(text: str) -> bool:
    """A number that is written back as it was: "0.5", never "0.50"."""
    try:
        return str(float(text)) == text and 0 <= float(text) <= 1
    except ValueError:
        return False


def _switches(one: Object) -> dict[str, str]:
    found = one["metadata"].get("annotations") or {}
    return {key: str(value) for key, value in found.items() if SWITCH.fullmatch(key)}


def _others(one: Object, spec: Object, selector: Object, inference: Object) -> Iterator[str]:
    """What stays as it is because an entry has no word for it."""
    labels = sorted(key for key in labels_in(one) if "toolkit.fluxcd.io/" not in key)
    found = [*(["labelSelector"] if selector.get("matchExpressions") else [])]
    found += [f"labels {', '.join(labels)}"] if labels else []
    found += [
        key
        for key in ("autoUpgrade", "nodeCountLimit")
        if record(spec.get(key)).get("enabled") or (key == "nodeCountLimit" and spec.get(key))
    ]
    found += [key for key in inference if key not in ("preset", "template", "config", "adapters")]
    if found:
        yield f"not in this entry, and left as it is: {', '.join(found)}"
