"""Whether a namespace's quotas and limits have room for what is added. Used by preflight.

Names of resources are those of ResourceQuota and LimitRange in Kubernetes 1.36. Both are listed once for a namespace.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from pipeline.clients.kube import CLAIM, KINDS, LIMIT_RANGE, REPLICA_SET, RESOURCE_QUOTA, Cluster, Object
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.resources.cluster.preflight.steps import Pods, Step, pods_of, returns, stays
from pipeline.resources.cluster.quantities import Amounts, amount, of_pod, shown, together

COUNTED = ("services", "configmaps", "secrets", "persistentvolumeclaims", "pods")  # without "count/" as well
CLAIMS = ("persistentvolumeclaims", "count/persistentvolumeclaims")
STORAGE = "requests.storage"  # of all claims together
BARE = ("cpu", "memory", "ephemeral-storage")  # these names mean requests, too
# Scopes of quotas that count what serves; the others are for other pods.
OURS: tuple[frozenset[str], ...] = (frozenset(), frozenset({"NotTerminating"}))


def quota(cluster: Cluster, namespace: str, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """A refusal for every amount that would pass a quota, and for every container outside the limits."""
    ranges = cluster.list(LIMIT_RANGE, namespace)
    yield from _limits(namespace, ranges, steps)
    quotas = [one for one in cluster.list(RESOURCE_QUOTA, namespace) if _counts(one)]
    if not quotas:
        return
    sets = cluster.list(REPLICA_SET, namespace)
    added = [(step, _added(step, sets)) for step in steps]
    needed = together(amounts for _, amounts in added)
    for one in quotas:
        status = one.get("status") or {}
        hard, used = status.get("hard") or one["spec"].get("hard") or {}, status.get("used") or {}
        for resource, most in sorted(hard.items()):
            left = amount(most) - amount(used.get(resource, 0))
            if needed.get(resource, Fraction(0)) <= max(left, Fraction(0)):
                continue
            step = _largest(added, resource)
            yield error(
                f'{step.model}: quota "{one["metadata"]["name"]}" of namespace {namespace}: {resource}: '
                f"{shown(resource, needed[resource])} more is needed, "
                f"{shown(resource, max(left, Fraction(0)))} of {shown(resource, amount(most))} is left",
                step.where,
                "ask for a larger quota, or take fewer replicas or a smaller hardware class",
                step.model,
            )
        yield from _undeclared(one, hard, namespace, ranges, steps)


def _largest(added: Iterable[tuple[Step, Amounts]], resource: str) -> Step:
    return max(added, key=lambda pair: pair[1].get(resource, Fraction(0)))[0]


def _counts(one: Object) -> bool:
    spec = one["spec"]
    return not spec.get("scopeSelector") and frozenset(spec.get("scopes") or ()) in OURS


def _added(step: Step, sets: Sequence[Object]) -> dict[str, Fraction]:
    """What a step needs more than it has; what goes frees something only once it is gone, and counts where it goes first."""
    found: list[Amounts] = []
    for key, one in step.wanted.items():
        live = list(pods_of(step.live[key])) if key in step.live else []
        found += [] if key in step.live else [_objects(key)]
        found.append(_storage(one, step.live.get(key)))
        rolls = bool(live) and not stays(step, key) and not returns(step, key, sets)
        found += [_amounts(pods, pods.count + (pods.surge if rolls else 0)) for pods in pods_of(one)]
        found += [_amounts(pods, -pods.count) for pods in live]
    return together(found)


def _objects(key: str) -> dict[str, Fraction]:
    kind = KINDS[key.partition("/")[0]]
    names = {f"count/{kind.plural}" + (f".{kind.group}" if kind.group else "")}
    return dict.fromkeys(names | ({kind.plural} & set(COUNTED)), Fraction(1))


def _storage(wanted: Object, live: Object | None) -> dict[str, Fraction]:
    """What claims ask for more than now: a claim of its own, and those that replicas get from a template.

    Volumes that get larger are made anew once the old ones went.
    """
    now = _volumes(live) if live else {}
    return {name: max(value - now.get(name, 0), Fraction(0)) for name, value in _volumes(wanted).items()}


def _volumes(one: Object) -> dict[str, Fraction]:
    """What its claims take of a quota."""
    if one["kind"] == CLAIM.name:
        return {STORAGE: _asked(one)}
    spec = one.get("spec") or {}
    replicas, each = int(spec.get("replicas", 1)), spec.get("volumeClaimTemplates") or ()
    return {
        **dict.fromkeys(CLAIMS if each else (), Fraction(replicas * len(each))),
        STORAGE: sum(map(_asked, each), Fraction(0)) * replicas,
    }


def _asked(claim: Object) -> Fraction:
    resources = (claim.get("spec") or {}).get("resources") or {}
    return amount((resources.get("requests") or {}).get("storage", 0))


def _amounts(pods: Pods, count: int) -> dict[str, Fraction]:
    """What so many pods take of a quota."""
    found = {"pods": Fraction(count), "count/pods": Fraction(count)}
    for field in ("requests", "limits"):
        for resource, value in _total(pods.spec, field).items():
            found[f"{field}.{resource}"] = value * count
            if field == "requests" and resource in BARE:
                found[resource] = value * count
    return found


def _total(spec: Mapping[str, Any], field: str) -> dict[str, Fraction]:
    """Of a pod; a request that is not written is the limit (defaults of the API)."""
    return of_pod(spec, lambda container: _of(container, field))


def _of(container: Mapping[str, Any], field: str) -> dict[str, Fraction]:
    resources = container.get("resources") or {}
    texts = {**(resources.get("limits") or {}), **(resources.get(field) or {})}
    if field == "limits":
        texts = resources.get("limits") or {}
    return {name: amount(text) for name, text in texts.items()}


def _containers(spec: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Each of which a limit range and a quota of CPU or memory look at by itself."""
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _undeclared(
    one: Object, hard: Iterable[str], namespace: str, ranges: Sequence[Object], steps: Iterable[Step]
) -> Iterator[Diagnostic]:
    """A quota of CPU or memory takes only pods that say how much of it they take."""
    for resource in sorted(set(hard) & {f"{f}.{r}" for f in ("requests", "limits") for r in BARE[:2]}):
        field, _, name = resource.partition(".")
        if _defaults(ranges, name):
            continue
        for step in steps:
            silent = any(
                name not in _of(container, field)
                for workload in step.wanted.values()
                for pods in pods_of(workload)
                for container in _containers(pods.spec)
            )
            if silent:
                text = f'{step.model}: quota "{one["metadata"]["name"]}" of namespace {namespace} takes only pods with {resource}'
                yield error(text, step.where, f"declare {name} in its hardware class", step.model)


def _defaults(ranges: Iterable[Object], resource: str) -> bool:
    return any(
        resource in (each.get("default") or each.get("max") or {})
        for one in ranges
        for each in one["spec"]["limits"]
        if each["type"] == "Container"
    )


def _limits(namespace: str, ranges: Iterable[Object], steps: Sequence[Step]) -> Iterator[Diagnostic]:
    """Containers and pods that are larger or smaller than a LimitRange allows."""
    bounds = [(one["metadata"]["name"], each) for one in ranges for each in one["spec"]["limits"]]
    for step in steps:
        said = {
            f'limit range "{name}" of namespace {namespace}: {problem}'
            for workload in step.wanted.values()
            for pods in pods_of(workload)
            for name, bound in bounds
            for problem in _outside(pods.spec, bound)
        }
        for text in sorted(said):
            hint = "use another hardware class, or ask for another limit"
            yield error(f"{step.model}: {text}", step.where, hint, step.model)


def _outside(spec: Mapping[str, Any], bound: Mapping[str, Any]) -> Iterator[str]:
    match bound["type"]:
        case "Container":
            sizes = [_of(container, "limits") for container in _containers(spec)]
        case "Pod":
            sizes = [_total(spec, "limits")]
        case _:  # claims are what the storage class says
            return
    for resource, value in ((r, v) for size in sizes for r, v in size.items()):
        most, least = (bound.get("max") or {}).get(resource), (bound.get("min") or {}).get(resource)
        if most is not None and value > amount(most):
            yield f"{resource}: {shown(resource, value)} is more than {most} for one {bound['type'].lower()}"
        if least is not None and value < amount(least):
            yield f"{resource}: {shown(resource, value)} is less than {least} for one {bound['type'].lower()}"
