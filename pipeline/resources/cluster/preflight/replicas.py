"""Replicas that mp leaves to an autoscaler: preflight counts as many as there are, not as many as the first ones were."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipeline.clients.kube import KINDS, Cluster, Object
from pipeline.core.errors import BackendError
from pipeline.resources.cluster.marks import key_of
from pipeline.resources.cluster.preflight.steps import Step
from pipeline.resources.cluster.workloads import workloads_in


def with_replicas(cluster: Cluster, namespace: str, steps: Sequence[Step]) -> list[Step]:
    """The same steps. One list a kind, none where all replicas are mp's; what may not be listed counts as declared."""
    kinds = {key.partition("/")[0] for step in steps for key in _left(step)}
    live: dict[str, Object] = {}
    for name in sorted(kinds):
        try:
            live |= {key_of(one): one for one in cluster.list(KINDS[name], namespace)}
        except BackendError:
            continue
    return [_counted(step, live) for step in steps]


def _left(step: Step) -> list[str]:
    """Workloads whose live replicas are not compared: every server fills in a number where mp writes one."""
    return [
        key
        for key in workloads_in(step.wanted)
        if key in step.live and _says(step.wanted[key]) and not _says(step.live[key])
    ]


def _counted(step: Step, live: dict[str, Object]) -> Step:
    found: defaultdict[str, dict[str, Object]] = defaultdict(dict)
    for key in _left(step):
        if key in live and _says(live[key]):
            for side, objects in (("wanted", step.wanted), ("live", step.live)):
                spec = {**(objects[key].get("spec") or {}), "replicas": live[key]["spec"]["replicas"]}
                found[side][key] = {**objects[key], "spec": spec}
    return replace(step, wanted={**step.wanted, **found["wanted"]}, live={**step.live, **found["live"]})


def _says(one: Object) -> bool:
    return "replicas" in (one.get("spec") or {})
