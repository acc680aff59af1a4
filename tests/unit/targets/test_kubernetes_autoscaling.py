"""Replicas that follow the load: the autoscaler a model gets, and what mp leaves to whoever sets them."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.resources.cluster.scalers import Scalers, freed, left_alone, obsolete, remark
from pipeline.resources.cluster.sending import ordered
from tests.parts.deployments import H100X16, L40S, a_model, deployment

Object = dict[str, Any]  # Any: an object of the API
GPUS = a_model("vllm", L40S)
KEDA = {"by": "keda", "max": 4, "prometheus": "http://prometheus.monitoring:9090"}
STRANGER = Scalers({"Deployment/qwen": "HorizontalPodAutoscaler/by-hand"})


def objects(**options: Any) -> dict[str, Object]:
    return {str(one["kind"]): one for one in ordered(deployment(GPUS, **options).desired.objects)}


def ignored(**options: Any) -> tuple[str, ...]:
    recipe = deployment(GPUS, **options).desired.recipe
    assert recipe is not None
    return recipe.ignored


def test_a_pod_autoscaler_goes_by_requests_that_wait_and_comes_after_what_it_scales() -> None:
    found = objects(autoscale={"min": 2, "max": 4})
    assert next(reversed(found)) == "HorizontalPodAutoscaler"
    spec = found["HorizontalPodAutoscaler"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "qwen"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 4)
    assert spec["metrics"][0]["pods"]["metric"]["name"] == "vllm:num_requests_waiting"
    assert spec["metrics"][0]["pods"]["target"] == {"type": "AverageValue", "averageValue": "5"}


def test_groups_of_several_nodes_are_scaled_as_a_whole() -> None:
    made = deployment(a_model("vllm", H100X16), autoscale={"max": 3})
    scaler = {str(one["kind"]): one for one in ordered(made.desired.objects)}["HorizontalPodAutoscaler"]
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "LeaderWorkerSet"


def test_keda_asks_prometheus_for_the_pods_of_this_model() -> None:
    spec = objects(autoscale=KEDA)["ScaledObject"]["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["serverAddress"] == KEDA["prometheus"]
    assert trigger["metadata"]["query"] == (
        'sum(vllm:num_requests_waiting{namespace="models",model_name="qwen"})'
    )
    own = objects(autoscale={**KEDA, "min": 0, "query": "sum(rate(gateway_requests[1m]))"})["ScaledObject"]
    assert own["spec"]["minReplicaCount"] == 0
    assert own["spec"]["triggers"][0]["metadata"]["query"] == "sum(rate(gateway_requests[1m]))"


def test_replicas_are_written_once_and_then_left_alone() -> None:
    assert objects(autoscale={"min": 2, "max": 4})["Deployment"]["spec"]["replicas"] == 2
    assert objects(autoscale={"max": 4}, replicas=3)["Deployment"]["spec"]["replicas"] == 3
    for scale in ({"max": 4}, KEDA, {"by": "other"}):
        assert ignored(autoscale=scale) == ("/spec/replicas",)
    assert ignored() == ()


def test_somebody_elses_autoscaler_gets_none_beside_it() -> None:
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & objects(autoscale={"by": "other"}).keys()


def test_several_replicas_have_a_budget_from_the_start() -> None:
    assert "PodDisruptionBudget" in objects(autoscale={"max": 4})


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({}, "max"),
        ({"min": 3, "max": 2}, "min is 3"),
        ({"min": 0, "max": 2}, "only keda wakes"),
        ({**KEDA, "min": 0}, "only keda wakes"),
        ({"by": "keda", "max": 2}, "prometheus"),
        ({"max": 2, "query": "up"}, "for keda"),
    ],
)
def test_words_that_do_not_fit_together_are_refused(scale: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        deployment(GPUS, autoscale=scale)


def test_an_autoscaler_made_by_somebody_else_is_left_its_replicas_and_that_is_said() -> None:
    declared = deployment(GPUS)
    recipe = left_alone(declared, STRANGER).desired.recipe
    assert recipe is not None and recipe.ignored == ("/spec/replicas",)
    assert (
        remark(declared, STRANGER) == "HorizontalPodAutoscaler/by-hand sets its replicas: they are left alone"
    )
    assert remark(deployment(GPUS, autoscale={"by": "other"}), STRANGER) == ""
    assert left_alone(declared, Scalers({})) == declared


def test_replicas_are_taken_back_from_an_autoscaler_only_when_it_is_known_to_be_gone() -> None:
    assert freed(deployment(GPUS), Scalers({})) == {"kube-controller-manager"}
    assert freed(deployment(GPUS), Scalers({}, known=False)) == frozenset()
    assert freed(left_alone(deployment(GPUS), STRANGER), STRANGER) == frozenset()


def test_our_own_autoscaler_goes_when_it_is_not_wanted_any_more() -> None:
    before = {f"{kind}/qwen": one for kind, one in objects(autoscale={"max": 4}).items()}
    assert list(obsolete(before, deployment(GPUS).desired.objects)) == ["HorizontalPodAutoscaler/qwen"]
    assert obsolete(before, before) == {}
