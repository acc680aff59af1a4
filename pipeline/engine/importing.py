"""What runs in a cluster and nobody declares, as parts of models.yaml: entries, and the classes and secrets they name. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from pipeline.manifest.places import HardwareSpec, SecretSpec
from pipeline.manifest.spec import Manifest
from pipeline.resources.cluster.products import products_of
from pipeline.targets.described import Described, Gpus

Written = dict[str, Any]  # Any: parts of models.yaml as a user writes them

LONGEST = 63  # letters of a name in models.yaml


@dataclass
class Imported:
    """New entries of each section, and what is said above an entry of models."""

    secrets: dict[str, Written] = field(default_factory=dict)
    hardware: dict[str, Written] = field(default_factory=dict)
    models: dict[str, Written] = field(default_factory=dict)
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)


def declared_names(manifest: Manifest, target: str, environment: str) -> frozenset[str]:
    """Names of the objects that entries stand for at a target."""
    before = "" if environment == "default" else f"{environment}-"
    return frozenset(
        spec.targets[target].name or f"{before}{name}"
        for name, spec in manifest.models.items()
        if target in spec.targets
    )


def imported(manifest: Manifest, target: str, found: Iterable[Described]) -> Imported:
    """Each as an entry that only observes: nothing is changed by it."""
    made = Imported()
    for one in found:
        name = one.name if one.name not in manifest.models else f"{one.name}-{target}"[:LONGEST].strip("-")
        entry: Written = {}
        if one.source is not None:
            entry["source"] = one.source
        if one.version is not None:
            entry["version"] = one.version
        remarks = list(one.remarks)
        if one.gpus.count:
            if (hardware := _hardware(manifest, made, one.gpus)) is not None:
                entry["hardware"] = hardware
            else:
                remarks.append(f"{one.gpus.count} GPUs of a product that it does not say: no hardware class")
        if one.env:
            entry["env"] = {key: _value(manifest, made, value) for key, value in one.env.items()}
        if one.ignored:
            entry["lifecycle"] = {"ignore_drift": list(one.ignored)}
        first, *others = one.options.items()
        entry["targets"] = {target: dict((first, ("manage", "observe"), *others))}
        name = _free(name, entry, manifest.models, made.models)
        made.models[name], made.remarks[name] = entry, tuple(remarks)
    return made


def _hardware(manifest: Manifest, made: Imported, gpus: Gpus) -> str | None:
    """A class with so many GPUs of that product: a declared one, or a new one."""
    if gpus.product is None:
        return None
    for name, spec in manifest.hardware.items():
        if _fits(spec, gpus):
            return name
    many = f"-x{gpus.nodes}" if gpus.nodes > 1 else ""
    first = f"{gpus.instance_type}{many}" if gpus.instance_type else f"{gpus.product}-x{gpus.count}{many}"
    name = re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-")[:LONGEST]
    content: Written = {
        "gpu": gpus.product,
        "gpus": gpus.count,
        **({"nodes": gpus.nodes} if gpus.nodes > 1 else {}),
        **({"instance_type": gpus.instance_type} if gpus.instance_type else {}),
    }
    name = _free(name, content, manifest.hardware, made.hardware)
    made.hardware[name] = content
    return name


def _fits(spec: HardwareSpec, gpus: Gpus) -> bool:
    """Whether a declared class says the same, in other words perhaps: "L4" and "NVIDIA-L4" are one product."""
    same = gpus.product == spec.gpu or gpus.product in products_of(spec.gpu or "")
    same = same or bool(set(products_of(gpus.product or "")) & set(products_of(spec.gpu or "")))
    machine = gpus.instance_type is None or gpus.instance_type == (spec.instance_type or "")
    return same and machine and (spec.gpus, spec.nodes) == (gpus.count, gpus.nodes)


def _value(manifest: Manifest, made: Imported, value: str | tuple[str, str]) -> str | Written:
    """A text, or a reference to a secret: a declared one, or a new one."""
    if isinstance(value, str):
        return value
    known: Mapping[str, SecretSpec] = manifest.secrets
    for name, spec in known.items():
        if spec.kubernetes and (spec.kubernetes.name, spec.kubernetes.key) == value:
            return {"secret": name}
    first = "-".join(value).lower().replace("_", "-").replace(".", "-")[:LONGEST].strip("-")
    content: Written = {"kubernetes": {"name": value[0], "key": value[1]}}
    name = _free(first, content, manifest.secrets, made.secrets)
    made.secrets[name] = content
    return {"secret": name}


def _free(first: str, content: Written, declared: Iterable[str], made: Mapping[str, Written]) -> str:
    """A name that stands for nothing else: the first, or that with a number."""
    taken = frozenset(declared)
    numbered = (f"{first[: LONGEST - len(end)].rstrip('-')}{end}" for end in (f"-{n}" for n in count(2)))
    return next(
        name for name in chain((first,), numbered) if name not in taken and made.get(name, content) == content
    )
