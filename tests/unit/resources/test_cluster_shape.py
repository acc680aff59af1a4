"""Of a live object what mp writes: what others own and what the server fills in is not seen, what mp wrote before is."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.shape import shaped
from tests.parts.deployments import DEPLOYMENTS, deployment

Object = dict[str, Any]  # Any: an object of the API
MAP_KEYS = {
    "containers": ("name",),
    "imagePullSecrets": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
}


def fields(value: Any, name: str = "") -> Object:
    """FieldsV1 of what is written, as server-side apply keeps it."""
    if isinstance(value, dict):
        return {f"f:{key}": fields(item, key) for key, item in value.items()}
    if isinstance(value, list) and name in MAP_KEYS:
        return {
            f'k:{{"{MAP_KEYS[name][0]}":"{item[MAP_KEYS[name][0]]}"}}': {".": {}, **fields(item)}
            for item in value
        }
    return {}


def live(sent: Object, owned: Object | None = None) -> Object:
    """What a server makes of what was sent: some defaults, a status, and who owns what."""
    made = copy.deepcopy(sent)
    body = {key: value for key, value in (owned or sent).items() if key not in ("apiVersion", "kind")}
    ours = {"manager": "mp", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields(body)}
    made["metadata"] |= {"uid": "1", "resourceVersion": "7", "generation": 1, "managedFields": [ours]}
    made["status"] = {"observedGeneration": 1}
    return made


def sent(name: str = "small", kind: str = "Deployment") -> tuple[Object, Object]:
    """An object as the state has it, and as it is sent."""
    recipe = (made := deployment(**DEPLOYMENTS[name])).desired.recipe
    assert recipe is not None
    one = next(one for one in ordered(made.desired.objects) if one["kind"] == kind)
    return one, written(one, dict.fromkeys(recipe.images, f"sha256:{'c' * 64}"))


def container(one: Object) -> Object:
    found: Object = one["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_was_applied_and_not_touched_is_as_desired(name: str) -> None:
    made = deployment(**DEPLOYMENTS[name])
    for one in ordered(made.desired.objects):
        assert shaped(live(written(one, {})), one) == one


def test_digests_and_the_fingerprint_are_not_compared() -> None:
    wanted, full = sent("weights-volume")
    assert "@sha256:" in container(full)["image"]
    assert shaped(live(full), wanted) == wanted


def test_fields_of_the_server_and_of_others_are_not_seen() -> None:
    wanted, full = sent()
    there = live(full)
    there["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    there["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    container(there)["terminationMessagePath"] = "/dev/termination-log"
    container(there)["env"] = [{"name": "SIDECAR", "value": "1"}]
    there["spec"]["template"]["spec"]["containers"].insert(0, {"name": "mesh", "image": "mesh:1"})
    assert shaped(there, wanted) == wanted


def test_field_that_somebody_changed_is_seen() -> None:
    wanted, full = sent()
    there = live(full)
    there["spec"]["replicas"] = 5
    container(there)["image"] = "evil:latest"
    seen = shaped(there, wanted)
    assert isinstance(seen, dict)
    assert seen["spec"]["replicas"] == 5  # type: ignore[call-overload,index]
    assert container(seen)["image"] == "evil:latest"


def test_field_that_somebody_removed_is_seen() -> None:
    wanted, full = sent()
    there = live(full)
    del there["spec"]["progressDeadlineSeconds"]
    assert shaped(there, wanted) != wanted


def test_field_that_mp_wrote_and_does_not_want_any_more_is_seen() -> None:
    before, full = sent("pull-secret")
    wanted = copy.deepcopy(before)
    del wanted["spec"]["template"]["spec"]["imagePullSecrets"]
    del container(wanted)["resources"]
    assert shaped(live(full), wanted) == before != wanted


def test_same_field_of_another_manager_is_left_alone() -> None:
    wanted, full = sent()
    there = live(full)
    there["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": "injected"}]
    assert shaped(there, wanted) == wanted


def test_order_in_which_a_server_keeps_items_does_not_count() -> None:
    wanted, full = sent("secrets")
    there = live(full)
    there["spec"]["template"]["spec"]["volumes"].reverse()
    container(there)["volumeMounts"].reverse()
    assert shaped(there, wanted) == wanted


def test_of_what_nothing_stands_for_the_fields_of_mp_are_left() -> None:
    before, full = sent("replicas", "PodDisruptionBudget")
    there = live(full)
    there["spec"]["minAvailable"] = 1  # by somebody else
    assert shaped(there, {}) == before


@given(some.integers(0, 50), some.permutations(range(3)))
def test_shape_of_a_shape_is_itself(replicas: int, order: list[int]) -> None:
    wanted, full = sent("secrets")
    there = live(full)
    there["spec"]["replicas"] = replicas
    volumes = there["spec"]["template"]["spec"]["volumes"]
    there["spec"]["template"]["spec"]["volumes"] = [volumes[each] for each in order if each < len(volumes)]
    once = shaped(there, wanted)
    assert isinstance(once, dict)
    assert shaped(once, wanted) == once
