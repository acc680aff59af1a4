"""What a plan says of volumes whose set goes or gets smaller: they go with it where it says so, and stay otherwise."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.clients.kube import Kind
from pipeline.core.errors import Denied
from pipeline.resources.cluster.sending import ordered
from pipeline.resources.cluster.volumes import volumes_lost
from tests.parts.deployments import FAR, deployment

KEY = "StatefulSet/qwen"
TWO = ("weights-qwen-1", "weights-qwen-0", "weights-qwen-x", "other-qwen-0")

Object = dict[str, Any]  # Any: an object of the API


@dataclass
class Namespace:
    """The claims of one deployment; None where nobody may list them."""

    claims: tuple[str, ...] | None

    def list(self, kind: Kind, namespace: str, selector: str) -> tuple[Object, ...]:
        assert "app.kubernetes.io/instance=qwen" in selector
        if self.claims is None:
            raise Denied("kubernetes prod", "no right to list")
        return tuple({"metadata": {"name": name}} for name in self.claims)


def a_set(replicas: int = 2, policy: Object | None = None, **claim: str) -> Object:
    """As it is wanted; with `policy` as a server has it, {} of one that does not know the field."""
    made = deployment(weights="pvc", registry=FAR, replicas=replicas, claim={"per": "replica", **claim})
    (one,) = (copy.deepcopy(one) for one in ordered(made.desired.objects) if one["kind"] == "StatefulSet")
    if policy is not None:
        del one["spec"]["persistentVolumeClaimRetentionPolicy"]
        one["spec"] |= {"persistentVolumeClaimRetentionPolicy": policy} if policy else {}
    return one


def said(live: Object, wanted: Object | None, claims: tuple[str, ...] | None = TWO) -> str:
    objects = {} if wanted is None else {KEY: wanted}
    return volumes_lost(Namespace(claims), "models", {KEY: live}, objects)  # type: ignore[arg-type]


KEPT = {"whenDeleted": "Retain", "whenScaled": "Retain"}
BOTH = "weights-qwen-0, weights-qwen-1"


@pytest.mark.parametrize(
    ("live", "wanted", "words"),
    [
        pytest.param(a_set(), None, f"2 volumes go with what is in it: {BOTH}", id="deleted"),
        pytest.param(
            a_set(),
            a_set(size="9Gi"),
            f"2 volumes go with what is in it: {BOTH}: the model does not answer until new ones are filled",
            id="made anew",
        ),
        pytest.param(a_set(), a_set(1), "1 volume goes with what is in it: weights-qwen-1", id="scaled"),
        pytest.param(a_set(1), a_set(2), "", id="scaled up"),
        pytest.param(a_set(), a_set(), "", id="as it was"),
        pytest.param(a_set(policy=KEPT), None, f"2 volumes stay: {BOTH}", id="deleted and kept"),
        pytest.param(a_set(policy={}), None, f"2 volumes stay: {BOTH}", id="deleted by an old server"),
        pytest.param(
            a_set(policy=KEPT), a_set(size="9Gi"), f"2 volumes stay: {BOTH}", id="made anew and kept"
        ),
        pytest.param(
            a_set(policy=KEPT),
            a_set(1),
            "1 volume goes with what is in it: weights-qwen-1",
            id="policy put back",
        ),
        pytest.param(a_set(policy={}), a_set(1, policy={}), "", id="scaled by an old server"),
    ],
)
def test_volumes_that_go_and_those_that_stay_are_named(
    live: Object, wanted: Object | None, words: str
) -> None:
    text = said(live, wanted)
    assert text.startswith(words)
    assert bool(text) == bool(words)


def test_volumes_that_may_not_be_seen_are_not_counted() -> None:
    assert said(a_set(), None, claims=None) == f"volumes of {KEY} go with it"
    assert said(a_set(policy=KEPT), None, claims=None).startswith(f"volumes of {KEY} stay: ")


def test_where_no_volume_is_there_nothing_is_said() -> None:
    assert said(a_set(), None, claims=()) == ""
    assert said(a_set(policy=KEPT), None, claims=()) == ""


def test_what_has_no_volumes_of_its_own_is_not_asked_about() -> None:
    one = {"kind": "Deployment", "metadata": {"name": "qwen"}, "spec": {}}
    assert volumes_lost(Namespace(None), "models", {"Deployment/qwen": one}, {}) == ""  # type: ignore[arg-type]
