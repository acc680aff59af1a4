"""What a roll-out says of a pod that does not start, whenever the kubelet tries it again."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.clients.kube import DEPLOYMENT, POD, REPLICA_SET, Kind
from pipeline.core.errors import StartFailed
from pipeline.resources.cluster.rollout import Rollout
from pipeline.resources.cluster.state import ClusterRecipe

Object = dict[str, Any]  # Any: an object of the API

OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "qwen-1", "uid": "2", "controller": True}
REVISION = {"deployment.kubernetes.io/revision": "1"}
TEMPLATE = {"spec": {"containers": [{"name": "server", "image": "engine"}]}}
LIVE: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "qwen",
        "namespace": "models",
        "uid": "1",
        "generation": 1,
        "annotations": REVISION,
    },
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "qwen"}}, "template": TEMPLATE},
    "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1},
}
SET: Object = {
    "metadata": {
        "name": "qwen-1",
        "uid": "2",
        "annotations": REVISION,
        "ownerReferences": [{"kind": "Deployment", "name": "qwen", "uid": "1", "controller": True}],
    },
    "spec": {"replicas": 1, "template": TEMPLATE},
}
ENDED = {"name": "server", "ready": False, "state": {"terminated": {"reason": "Error", "exitCode": 1}}}
CRASHED: Object = {
    "metadata": {
        "name": "qwen-1-a",
        "uid": "3",
        "creationTimestamp": "2026-11-22T00:00:00Z",
        "ownerReferences": [OWNER],
    },
    "status": {"phase": "Running", "containerStatuses": [ENDED]},
}


class Server:
    """An API server with one pod that crashed; the kubelet started it again before its log was asked for."""

    def __init__(self, logs: Mapping[bool, str]) -> None:
        self.logs = logs

    def apply(self, wanted: Object, *, dry_run: bool = False, force: bool = False) -> Object:
        return LIVE

    def get(self, kind: Kind, _: str, name: str) -> Object | None:
        return LIVE if kind == DEPLOYMENT else None

    def list(self, kind: Kind, *_: str, **__: str) -> tuple[Object, ...]:
        return {POD: (CRASHED,), REPLICA_SET: (SET,)}.get(kind, ())

    def delete(self, *_: object) -> None:
        """The pod that ended before is made anew, and crashes again."""

    def log(self, *_: object, lines: int, previous: bool = False) -> str:
        return self.logs[previous]


@pytest.mark.parametrize(
    "logs", [{False: "", True: "RuntimeError: boom\n"}, {False: "RuntimeError: boom\n", True: ""}]
)
def test_the_first_error_is_told_also_when_the_container_runs_again(logs: Mapping[bool, str]) -> None:
    server: Any = Server(logs)
    recipe = ClusterRecipe({}, "models", None, "qwen", "qwen", None, (), None, "skip", "rollback", 60)
    with pytest.raises(StartFailed, match="ended with exit code 1; first error: RuntimeError: boom"):
        Rollout(server, "qwen/kubernetes:prod", recipe, lambda _: None).bring(
            {"Deployment/qwen": LIVE}, {}, 60
        )
