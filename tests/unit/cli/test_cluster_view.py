"""Objects of a cluster in words: what comes and goes whole is said by its name."""

from pipeline.cli.views.cluster import readable, readable_differences
from pipeline.cli.views.details import Details, Live, details
from pipeline.core.digest import Json
from tests.parts.deployments import FAR, deployment

DEPLOYMENT: Json = {
    "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "engine", "image": "a"}]}}}
}
SERVICE: Json = {"spec": {"ports": [{"port": 80}]}, "metadata": {"name": "tiny"}}


def test_deployment_that_is_gone_is_named_and_its_fields_are_not() -> None:
    whole: Json = {"objects": {"Deployment/tiny": DEPLOYMENT, "Service/tiny": SERVICE}, "health": "Healthy"}
    left: Json = {"objects": {"Service/tiny": SERVICE}, "health": "Missing"}
    assert [str(getattr(d, "path", d)) for d in readable_differences(whole, left)] == [
        "Deployment/tiny removed",
        "health",
    ]
    assert next(iter(readable_differences(left, whole))) == "Deployment/tiny added"


def test_show_says_fields_by_the_names_that_people_declare() -> None:
    fields: dict[str, Json] = {"objects": {"Deployment/tiny": DEPLOYMENT}, "health": "Healthy"}
    live = Live("tiny/kubernetes:prod", "kubernetes", "running", fields=fields)
    lines = [line.split() for line in details(Details("tiny", None, (), (live,)), ".").splitlines()]
    assert ["replicas", "1"] in lines and ["image", "a"] in lines and ["health", "Healthy"] in lines


def test_what_targets_write_into_config_maps_is_read_by_its_name() -> None:
    """The names of both documents are in targets and here: a file that is called otherwise is shown as an object."""
    made = deployment(weights="pvc", registry=FAR, claim={"per": "replica"}).desired.objects
    found = readable({"objects": dict(made)})
    assert found["weights of each"].startswith("registry.acme.example/models/qwen.weights:mp-")
    assert found["launch"] and "argv" in found
    assert not [name for name in found if name.startswith("ConfigMap")]
