"""Fields that others set in a workload of mp's are named with who set them; mp's own and what controllers write are not."""

from typing import Any

from pipeline.resources.cluster.added import added

SENT: dict[str, Any] = {
    "Deployment/qwen": {
        "kind": "Deployment",
        "spec": {
            "replicas": 1,
            "template": {
                "metadata": {"labels": {"app": "qwen"}},
                "spec": {
                    "containers": [
                        {
                            "name": "qwen",
                            "image": "acme/qwen:one",
                            "env": [{"name": "MP_LAUNCH", "value": "{}"}],
                            "ports": [{"containerPort": 8000}],
                        }
                    ]
                },
            },
        },
    }
}


def said(*others: dict[str, Any]) -> str:
    ours = {"manager": "mp", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    live = {"kind": "Deployment", "metadata": {"managedFields": [ours, *others]}, "spec": {}}
    return added({"Deployment/qwen": live}, SENT)


def by_hand(pod: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields = {"f:spec": {"f:template": {"f:spec": pod}}}
    return {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": fields, **more}


def test_nothing_is_said_of_what_mp_applied_alone() -> None:
    assert said() == ""


def test_a_variable_a_sidecar_and_a_selector_are_named_each_as_a_whole() -> None:
    pod: dict[str, Any] = {
        "f:nodeSelector": {".": {}, "f:disk": {}},
        "f:containers": {
            'k:{"name":"qwen"}': {"f:env": {'k:{"name":"DEBUG"}': {".": {}, "f:name": {}, "f:value": {}}}},
            'k:{"name":"sidecar"}': {".": {}, "f:name": {}, "f:image": {}},
        },
    }
    assert said(by_hand(pod)) == (
        "kubectl-edit added spec.template.spec.nodeSelector, spec.template.spec.containers[qwen].env[DEBUG], "
        "spec.template.spec.containers[sidecar] to Deployment/qwen"
    )


def test_a_list_that_mp_does_not_have_is_named_by_its_items() -> None:
    items: dict[str, Any] = {f'k:{{"name":"{name}"}}': {".": {}, "f:name": {}} for name in ("one", "two")}
    told = said(by_hand({"f:initContainers": items}))
    assert "spec.initContainers[one], spec.template.spec.initContainers[two] to" in told


def test_a_value_of_mps_own_that_somebody_changed_is_drift_and_not_told_here() -> None:
    one: dict[str, Any] = {
        "f:image": {},
        "f:env": {'k:{"name":"MP_LAUNCH"}': {".": {}, "f:name": {}, "f:value": {}}},
        "f:ports": {'k:{"containerPort":8000,"protocol":"TCP"}': {"f:containerPort": {}}},
    }
    pod: dict[str, Any] = {"f:containers": {'k:{"name":"qwen"}': one}}
    assert said(by_hand(pod)) == ""


def test_many_fields_are_counted() -> None:
    pod: dict[str, Any] = {f"f:{name}": {} for name in ("one", "two", "three", "four", "five")}
    assert said(by_hand(pod)).endswith("spec.template.spec.three and 2 more to Deployment/qwen")


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
    assert said(*others) == ""
