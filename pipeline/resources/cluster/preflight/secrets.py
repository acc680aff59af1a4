"""Whether the Secrets that pods name are there, with their keys. Their values are never looked at. Used by preflight.

Each is asked for by its name: the right to list Secrets is the right to read all of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.clients.kube import SECRET, Cluster, Object
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.frozen import frozen
from pipeline.resources.cluster.preflight.steps import Step, pods_of

PULL = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


@frozen
class Named:
    """A Secret that a pod names."""

    name: str
    key: str  # "" where all of it is taken
    pulls: bool = False  # nodes pull images with it


def secrets(cluster: Cluster, namespace: str, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """A refusal for every Secret and every key that is not there. Raises Denied when Secrets may not be read."""
    users: dict[Named, list[Step]] = {}
    for step in steps:
        for named in {each for one in step.wanted.values() for each in _named(one)}:
            users.setdefault(named, []).append(step)
    found: dict[str, tuple[str, frozenset[str]] | None] = {}
    for named, using in sorted(users.items(), key=lambda pair: (pair[0].name, pair[0].key)):
        if named.name not in found:
            found[named.name] = _facts(cluster, namespace, named.name)
        if problem := _problem(named, found[named.name], namespace):
            more = f" and {len(using) - 1} more" if len(using) > 1 else ""
            text = f"{using[0].model}{more}: {problem[0]} of {cluster.system}"
            yield error(text, using[0].where, problem[1], using[0].model)


def _facts(cluster: Cluster, namespace: str, name: str) -> tuple[str, frozenset[str]] | None:
    """Type and keys of a Secret; None where it is not there."""
    one = cluster.get(SECRET, namespace, name)
    return None if one is None else (str(one.get("type")), frozenset(one.get("data") or ()))


def _problem(
    named: Named, facts: tuple[str, frozenset[str]] | None, namespace: str
) -> tuple[str, str] | None:
    """What is wrong, and what to do."""
    make = f"kubectl -n {namespace} create secret "
    kind = "docker-registry" if named.pulls else "generic"
    if facts is None:
        what = "pull secret" if named.pulls else "secret"
        return f'{what} "{named.name}" is not in namespace {namespace}', f"{make}{kind} {named.name} makes it"
    name, keys = facts
    if named.pulls and PULL.get(name) not in keys:
        text = f'secret "{named.name}" in namespace {namespace} is no pull secret: its type is {name}'
        return text, f"{make}{kind} makes one"
    if named.key and named.key not in keys:
        text = f'secret "{named.name}" in namespace {namespace} has no key "{named.key}"'
        return text, f"its keys are: {', '.join(sorted(keys)) or 'none'}"
    return None


def _named(one: Object) -> Iterator[Named]:
    """Every Secret that a workload's pods cannot do without."""
    for pods in pods_of(one):
        spec = pods.spec
        yield from (Named(str(each["name"]), "", pulls=True) for each in spec.get("imagePullSecrets") or ())
        for volume in spec.get("volumes") or ():
            yield from _of_volume(volume)
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
            yield from _of_container(container)


def _of_volume(volume: Mapping[str, Any]) -> Iterator[Named]:
    whole = volume.get("secret") or {}
    parts = [
        each["secret"] for each in (volume.get("projected") or {}).get("sources") or () if "secret" in each
    ]
    for each in (*([{**whole, "name": whole["secretName"]}] if whole else ()), *parts):
        if not each.get("optional"):
            keys = [str(item["key"]) for item in each.get("items") or ()] or [""]
            yield from (Named(str(each["name"]), key) for key in keys)


def _of_container(container: Mapping[str, Any]) -> Iterator[Named]:
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef") or {}
        if reference and not reference.get("optional"):
            yield Named(str(reference["name"]), str(reference["key"]))
    for each in container.get("envFrom") or ():
        reference = each.get("secretRef") or {}
        if reference and not reference.get("optional"):
            yield Named(str(reference["name"]), "")
