"""Which pods come beside old ones and need GPUs of their own, and how old ones go first."""

import copy
from typing import Any

from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.turns import beside, giving_way, restarts
from pipeline.resources.cluster.workloads import workload_in
from tests.parts.deployments import H100X16, L40S, a_model, deployment

Object = dict[str, Any]  # Any: an object of the API
DIGEST, OTHER = f"sha256:{'c' * 64}", f"sha256:{'d' * 64}"
GPUS = a_model("vllm", L40S)


def objects(**options: Any) -> dict[str, Object]:
    return {f"{one['kind']}/qwen": one for one in ordered(deployment(**options).desired.objects)}


def live(**options: Any) -> dict[str, Object]:
    """As a server has it: with digests and values of its own."""
    recipe = deployment(**options).desired.recipe
    assert recipe is not None
    found = {
        key: written(one, dict.fromkeys(recipe.images, DIGEST)) for key, one in objects(**options).items()
    }
    found["Deployment/qwen"]["spec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
    return found


def digests(value: str = DIGEST) -> dict[str, str]:
    recipe = deployment(GPUS).desired.recipe
    assert recipe is not None
    return dict.fromkeys(recipe.images, value)


def test_a_new_version_of_a_gpu_model_needs_gpus_for_one_pod_more() -> None:
    (ask,) = beside(objects(model=a_model("vllm", L40S, env={"A": "1"})), live(model=GPUS), digests())
    assert (ask.gpus, ask.pods) == (2, 1)


def test_what_restarts_no_pod_needs_none() -> None:
    assert beside(objects(model=GPUS, replicas=3), live(model=GPUS), digests()) == ()
    assert beside(objects(model=GPUS), {}, digests()) == ()
    assert beside(objects(model=a_model(env={"A": "1"})), live(), {}) == ()  # it has no GPUs


def test_a_canary_needs_gpus_of_its_own_once() -> None:
    wanted = objects(model=GPUS)
    canary = copy.deepcopy(wanted["Deployment/qwen"])
    canary["metadata"]["name"] = "qwen-canary"
    wanted["Deployment/qwen-canary"] = canary
    (ask,) = beside(wanted, live(model=GPUS), digests())
    assert (ask.gpus, ask.pods) == (2, 1)
    assert beside(wanted, {**live(model=GPUS), "Deployment/qwen-canary": canary}, digests()) == ()


def test_an_image_that_is_another_under_its_name_restarts_pods() -> None:
    key = "Deployment/qwen"
    wanted, there = objects(model=GPUS)[key], live(model=GPUS)[key]
    assert not restarts(wanted, there, digests())
    assert restarts(wanted, there, digests(OTHER))


def test_a_model_that_is_stopped_has_no_old_pod() -> None:
    before = live(model=GPUS)
    before["Deployment/qwen"]["spec"]["replicas"] = 0
    assert beside(objects(model=a_model("vllm", L40S, env={"A": "1"})), before, digests()) == ()


def test_a_model_that_moves_to_several_nodes_comes_beside_all_it_had() -> None:
    wanted = objects(model=a_model("vllm", H100X16))
    asks = beside(wanted, live(model=GPUS), digests())
    assert [(ask.gpus, ask.pods) for ask in asks] == [(8, 1), (8, 1)]  # a leader and a worker


def test_the_old_pod_goes_first_and_nothing_else_is_written() -> None:
    for options, expected in (
        ({"model": GPUS}, {"type": "Recreate"}),
        (
            {"model": GPUS, "replicas": 2},
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        ),
    ):
        wanted = objects(**options)
        kept = copy.deepcopy(wanted)
        changed = giving_way(wanted)
        assert changed["Deployment/qwen"]["spec"]["strategy"] == expected
        assert wanted == kept
        for one in (wanted, changed):
            key = workload_in(one)
            assert key is not None
            one[key]["spec"].pop("strategy")
        assert changed == wanted


def test_groups_give_way_one_after_the_other() -> None:
    changed = giving_way(objects(model=a_model("vllm", H100X16), replicas=2))
    rolling = changed["LeaderWorkerSet/qwen"]["spec"]["rolloutStrategy"]["rollingUpdateConfiguration"]
    assert rolling == {"partition": 0, "maxSurge": 0, "maxUnavailable": 1}
