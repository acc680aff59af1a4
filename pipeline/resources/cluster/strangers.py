"""What a namespace has that nobody's mp made or took over, for `mp import`: it only reads."""

import contextlib
from collections.abc import Mapping

from pipeline.clients.kube import (
    CONFIG_MAP,
    DEPLOYMENT,
    INFERENCE_SET,
    NODE,
    WORKSPACE,
    Cluster,
    Kind,
    Object,
)
from pipeline.core.errors import Denied
from pipeline.resources.cluster.fields import is_leaving
from pipeline.resources.cluster.live import known_in
from pipeline.resources.cluster.marks import key_of, mark_of


def deployments(cluster: Cluster, namespace: str) -> Mapping[str, Object]:
    """What runs pods, by key: "Deployment/qwen". Raises Denied, Unreachable."""
    return _strangers(cluster, namespace, DEPLOYMENT)


def workspaces(cluster: Cluster, namespace: str) -> Mapping[str, Object]:
    """Workspaces and InferenceSets of KAITO, by key; {} where it is not installed. Raises Denied, Unreachable."""
    return _strangers(cluster, namespace, WORKSPACE, INFERENCE_SET)


def surroundings(cluster: Cluster, namespace: str) -> tuple[Mapping[str, Object], Mapping[str, Object]]:
    """Nodes and the namespace's ConfigMaps, by name; {} of what this account may not read. Raises Unreachable."""
    return _by_name(cluster, NODE, ""), _by_name(cluster, CONFIG_MAP, namespace)


def _by_name(cluster: Cluster, kind: Kind, namespace: str) -> Mapping[str, Object]:
    with contextlib.suppress(Denied):
        return {str(one["metadata"]["name"]): one for one in cluster.list(kind, namespace)}
    return {}


def _strangers(cluster: Cluster, namespace: str, *kinds: Kind) -> Mapping[str, Object]:
    found = (one for kind in kinds for one in known_in(cluster, kind, namespace))
    return {key_of(one): one for one in found if mark_of(one) is None and not is_leaving(one)}
