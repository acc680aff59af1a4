"""Free GPUs of a cluster, and the pods that find none: from nodes and pods as a server gives them."""

from fractions import Fraction
from typing import Any

import pytest

from pipeline.resources.cluster.capacity import Ask, counted, free_by_product, gpus_of, unplaced, usable
from pipeline.resources.cluster.quantities import amount, shown

L40S, H100 = "NVIDIA-L40S", "NVIDIA-H100-80GB-HBM3"
READY = [{"type": "Ready", "status": "True"}]


def node(name: str, gpus: int = 8, product: str = L40S, **spec: Any) -> dict[str, Any]:  # Any: of the API
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": spec,
        "status": {"conditions": READY, "allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


def pod(on: str, gpus: int) -> dict[str, Any]:
    return {"metadata": {"name": f"p-{on}"}, "spec": {"nodeName": on, **spec(gpus, ())}}


def spec(gpus: int, products: tuple[str, ...] = (L40S,), **more: Any) -> dict[str, Any]:
    container = {"name": "server", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    rule = {"key": "nvidia.com/gpu.product", "operator": "In", "values": list(products)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {"containers": [container], **({"affinity": affinity} if products else {}), **more}


def ask(gpus: int, pods: int = 1, products: tuple[str, ...] = (L40S,), name: str = "qwen") -> Ask:
    return Ask(name, gpus, pods, spec(gpus, products))


def test_pods_hold_what_their_node_has() -> None:
    found = counted([node("a"), node("b", 4, H100)], [pod("a", 2), pod("a", 3), pod("b", 4)])
    assert [(one.name, one.gpus, one.free) for one in found] == [("a", 8, 3), ("b", 4, 0)]
    assert free_by_product(found) == {L40S: 3, H100: 0}


def test_node_that_is_cordoned_or_not_ready_has_nothing_free() -> None:
    away = node("b")
    away["status"]["conditions"] = [{"type": "Ready", "status": "Unknown"}]
    found = counted([node("a", unschedulable=True), away], [])
    assert free_by_product(found) == {L40S: 0}
    assert unplaced(found, [ask(1)]) == {"qwen": 1}


def test_gpus_of_one_pod_are_all_on_one_node() -> None:
    found = counted([node("a", 2), node("b", 2)], [])
    assert unplaced(found, [ask(2, pods=2)]) == {}
    assert unplaced(found, [ask(4)]) == {"qwen": 1}


def test_large_pods_are_placed_before_small_ones_fill_their_nodes() -> None:
    found = counted([node("a", 8), node("b", 8)], [pod("a", 4)])
    assert unplaced(found, [ask(1, pods=4, name="small"), ask(8, name="large")]) == {}


def test_other_product_is_no_room() -> None:
    found = counted([node("a", 8, H100), node("b", 1)], [])
    assert unplaced(found, [ask(2)]) == {"qwen": 1}
    assert unplaced(found, [ask(2, products=(H100, L40S))]) == {}


@pytest.mark.parametrize(
    ("taint", "tolerations", "room"),
    [
        ({"key": "nvidia.com/gpu", "value": "present"}, [{"key": "nvidia.com/gpu", "operator": "Exists"}], 1),
        ({"key": "team", "value": "red"}, [{"key": "nvidia.com/gpu", "operator": "Exists"}], 0),
        ({"key": "team", "value": "red"}, [{"key": "team", "value": "blue"}], 0),
        ({"key": "team", "value": "red"}, [{"key": "team", "value": "red", "effect": "NoSchedule"}], 1),
        ({"key": "team", "value": "red"}, [{"operator": "Exists"}], 1),
    ],
)
def test_taint_keeps_away_who_does_not_tolerate_it(
    taint: dict[str, str], tolerations: list[dict[str, str]], room: int
) -> None:
    found = counted([node("a", taints=[{**taint, "effect": "NoSchedule"}])], [])
    assert len(usable(found, spec(1, tolerations=tolerations))) == room


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", Fraction(1, 2)),
        ("2Gi", 2 * 2**30),
        ("1500M", 1_500_000_000),
        (3, 3),
        ("1e3", 1000),
        ("1.5", 1.5),
    ],
)
def test_quantities_are_numbers(text: object, number: Fraction) -> None:
    assert amount(text) == number


def test_quantity_that_is_none_is_said() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        amount("2 Gi")


def test_amounts_are_shown_in_their_unit() -> None:
    assert shown("limits.memory", amount("1536Mi")) == "1.5Gi"
    assert shown("requests.cpu", amount("500m")) == "0.5"


@pytest.mark.parametrize(
    ("first", "gpus"),
    [
        ([], 2),
        ([(1, None)], 2),  # it has ended before the others start
        ([(4, None)], 4),
        ([(1, "Always")], 3),  # it stays beside them
        ([(1, "Always"), (4, None)], 5),
        ([(4, None), (1, "Always")], 4),
    ],
)
def test_what_runs_before_the_others_uses_the_same_gpus(
    first: list[tuple[int, str | None]], gpus: int
) -> None:
    before = [
        {"resources": {"limits": {"nvidia.com/gpu": str(count)}}} | ({"restartPolicy": word} if word else {})
        for count, word in first
    ]
    assert gpus_of(spec(2, initContainers=before)) == gpus
