"""Fields that others set in a workload of mp's are named with who set them; mp's own and what controllers write are not."""

from typing import Any

from pipeline.resources.cluster.added import added

OURS = {
    "f:metadata": {"f:labels": {"f:app": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:template": {
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:containers": {
                    'k:{"name":"qwen"}': {
                        ".": {},
                        "f:name": {},
                        "f:image": {},
                        "f:env": {'k:{"name":"MP_LAUNCH"}': {".": {}, "f:name": {}, "f:value": {}}},
                    }
                }
            },
        },
    },
}


def deployment(*others: dict[str, Any]) -> dict[str, Any]:
    entries = [{"manager": "mp", "operation": "Apply", "fieldsV1": OURS}, *others]
    return {"Deployment/qwen": {"kind": "Deployment", "metadata": {"managedFields": entries}, "spec": {}}}


def by_hand(pod: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields = {"f:spec": {"f:template": {"f:spec": pod}}}
    return {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields, **more}


def test_nothing_is_said_of_what_mp_applied_alone() -> None:
    assert added(deployment()) == ""


def test_a_variable_a_sidecar_and_a_selector_are_named_each_as_a_whole() -> None:
    pod: dict[str, Any] = {
        "f:nodeSelector": {".": {}, "f:disk": {}},
        "f:containers": {
            'k:{"name":"qwen"}': {"f:env": {'k:{"name":"DEBUG"}': {".": {}, "f:name": {}, "f:value": {}}}},
            'k:{"name":"sidecar"}': {".": {}, "f:name": {}, "f:image": {}},
        },
    }
    assert added(deployment(by_hand(pod))) == (
        "kubectl-edit added spec.template.spec.nodeSelector, spec.template.spec.containers[qwen].env[DEBUG], "
        "spec.template.spec.containers[sidecar] to Deployment/qwen"
    )


def test_a_list_that_mp_does_not_have_is_named_by_its_items() -> None:
    items: dict[str, Any] = {f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}} for name in ("one", "two")}
    said = added(deployment(by_hand({"f:initContainers": items})))
    assert "spec.initContainers[one], spec.template.spec.initContainers[two] to" in said


def test_a_field_that_mp_manages_too_is_compared_and_not_told_here() -> None:
    pod: dict[str, Any] = {"f:containers": {'k:{"name":"qwen"}': {"f:image": {}}}}
    assert added(deployment(by_hand(pod))) == ""


def test_many_fields_are_counted() -> None:
    pod: dict[str, Any] = {f"f:{name}": {} for name in ("one", "two", "three", "four", "five")}
    assert added(deployment(by_hand(pod))).endswith("spec.template.spec.three and 2 more to Deployment/qwen")


def test_restarts_scaling_and_statuses_are_left_out() -> None:
    restart: dict[str, Any] = {
        "f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:restartedAt": {}}}}}
    }
    others = (
        {"manager": "kubectl-rollout", "operation": "Update", "fieldsV1": restart},
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        by_hand({"f:hostname": {}}, subresource="status"),
        {
            "manager": "autoscaler",
            "operation": "Update",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:x": {}}}},
        },
    )
    assert added(deployment(*others)) == ""
