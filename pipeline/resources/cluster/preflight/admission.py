"""Whether a namespace is there, and whether its pod security level takes our pods. Used by preflight.

The level is judged by the server: each kind of pod is created as a dry-run, which nothing keeps.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.clients.kube import NAMESPACE, POD, Cluster, Object
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import fingerprint
from pipeline.core.errors import Denied
from pipeline.resources.cluster.preflight.steps import Step, pods_of

ENFORCE = "pod-security.kubernetes.io/enforce"  # label of a namespace
OPEN = "privileged"
VIOLATES = "violates PodSecurity"  # what the server's refusal says (k8s.io/pod-security-admission 0.36)
SECURITY = ("securityContext", "hostNetwork", "hostPID", "hostIPC", "hostUsers")


def namespace_in(cluster: Cluster, namespace: str) -> Object | None:
    """The namespace; None where it is clearly not there. Raises Denied when it may not be looked at."""
    return cluster.get(NAMESPACE, "", namespace)


def lacking(cluster: Cluster, namespace: str, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    targets = ", ".join(sorted({step.target for step in steps}))
    yield error(
        f'{targets}: namespace "{namespace}" is not in {cluster.system}',
        steps[0].where,
        f"kubectl create namespace {namespace} makes it",
    )


def admission(cluster: Cluster, namespace: str, level: str, steps: Sequence[Step]) -> Iterable[Diagnostic]:
    """A refusal for every kind of pod that the level does not take. Raises Denied when pods may not be created."""
    if level in ("", OPEN):
        return
    shapes: dict[str, tuple[Step, Mapping[str, Any]]] = {}
    for step in steps:
        for one in step.wanted.values():
            for pods in pods_of(one):
                shapes.setdefault(fingerprint(_shape(pods.spec)), (step, pods.spec))
    for step, spec in shapes.values():
        try:
            cluster.rehearse(POD, namespace, _pod(namespace, spec))
        except Denied as problem:
            if VIOLATES not in problem.message:
                raise
            text = (
                f'{step.model}: namespace {namespace} of {cluster.system} takes only pods of level "{level}"'
            )
            hint = "use another namespace, or ask for another level: " + _after(problem.message)
            yield error(text, step.where, hint, step.model)


def _pod(namespace: str, spec: Mapping[str, Any]) -> Object:
    """As a controller would make it, of an account that every namespace has: ours may not be there yet."""
    metadata = {"generateName": "mp-", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**spec, "serviceAccountName": "default"},
    }


def _shape(spec: Mapping[str, Any]) -> Any:
    """What pod security looks at."""
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return {
        "pod": {key: spec[key] for key in SECURITY if key in spec},
        "containers": [[one.get("securityContext") or {}, one.get("ports") or []] for one in containers],
        "volumes": sorted({kind for one in spec.get("volumes") or () for kind in one if kind != "name"}),
    }


def _after(message: str) -> str:
    """The server's own words, without which pod it is."""
    return VIOLATES + message.partition(VIOLATES)[2]
