"""Quotas of storage: claims that are made, and those that each replica gets from a template."""

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.clients.kube import RESOURCE_QUOTA, Kind
from pipeline.core.change import Action, Change
from pipeline.core.resource import Observed
from pipeline.resources.cluster.preflight.quota import quota
from pipeline.resources.cluster.preflight.steps import Step, steps_in
from tests.parts.deployments import FAR, deployment


@dataclass
class Namespace:
    """Nothing but one quota."""

    hard: dict[str, str]

    def list(self, kind: Kind, namespace: str) -> tuple[dict[str, Any], ...]:
        if kind != RESOURCE_QUOTA:
            return ()
        return ({"metadata": {"name": "team"}, "spec": {}, "status": {"hard": self.hard}},)


def steps(replicas: int, before: int = 0, **claim: str) -> list[Step]:
    def made(count: int) -> Any:  # Any: a resource
        return deployment(weights="pvc", registry=FAR, replicas=count, claim=claim)

    wanted = made(replicas)
    seen = Observed(made(before).desired) if before else None
    (found,) = steps_in([Change(wanted.address, wanted.kind, Action.CREATE, wanted, seen, None)]).values()
    return found


@pytest.mark.parametrize(
    ("found", "hard", "words"),
    [
        (steps(3, size="10Gi"), {"requests.storage": "29Gi"}, "30Gi more is needed, 29Gi of 29Gi is left"),
        (steps(3, size="10Gi"), {"requests.storage": "30Gi"}, ""),
        (steps(3, 2, size="10Gi"), {"requests.storage": "9Gi"}, "10Gi more is needed"),
        (steps(2, 3, size="10Gi"), {"requests.storage": "0"}, ""),
        (steps(3), {"persistentvolumeclaims": "2"}, "persistentvolumeclaims: 3 more is needed"),
        (steps(1, size="10Gi"), {"requests.storage": "9Gi"}, "10Gi more is needed"),
        (steps(1, 1, size="10Gi"), {"requests.storage": "9Gi"}, ""),
    ],
)
def test_storage_that_is_not_left_is_refused(found: list[Step], hard: dict[str, str], words: str) -> None:
    said = [one.summary for one in quota(Namespace(hard), "models", found)]  # type: ignore[arg-type]
    assert len(said) == bool(words)
    assert all(words in text for text in said)
