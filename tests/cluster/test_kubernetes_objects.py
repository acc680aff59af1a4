"""Every object that mp writes is one that a real server takes: strictly, as it is written, and without a trace of it afterwards."""

import json
import time
from collections.abc import Iterator

import pytest

from pipeline.clients.kube import Cluster, Conflict, Object, address_of
from pipeline.core.image import Registry
from pipeline.resources.cluster.sending import ordered, written
from pipeline.resources.cluster.shape import shaped
from pipeline.resources.image.recipe import engine_name
from tests.parts.cluster import RealCluster
from tests.parts.deployments import DEPLOYMENTS, TOKEN, a_model, deployment
from tests.parts.registry import RealRegistry
from tests.parts.tiny_image import push_tiny_engine, tiny_engine

pytestmark = pytest.mark.cluster

DIGEST = f"sha256:{'c' * 64}"


@pytest.fixture(scope="module")
def server(cluster: RealCluster) -> Cluster:
    for kind in ("LeaderWorkerSet", "ScaledObject"):
        cluster.install(kind)
    return Cluster(cluster.context, {"KUBECONFIG": str(cluster.kubeconfig)})


@pytest.fixture(scope="module")
def namespace(cluster: RealCluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


def wanted_of(name: str, namespace: str) -> tuple[tuple[Object, Object], ...]:
    """Each object as the state has it, and as it is sent. No pod is started: nobody has such images."""
    options = {**DEPLOYMENTS[name], "spec": {"namespace": namespace, **DEPLOYMENTS[name].get("spec", {})}}
    made = deployment(**options)
    assert made.desired.recipe is not None
    digests = dict.fromkeys(made.desired.recipe.images, DIGEST)
    return tuple((one, written(one, digests)) for one in ordered(made.desired.objects))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_server_takes_every_object_strictly_and_would_change_nothing_of_it(
    name: str, server: Cluster, namespace: str
) -> None:
    for wanted, sent in wanted_of(name, namespace):
        assert shaped(server.apply(sent, dry_run=True), wanted) == wanted


def test_what_is_applied_reads_as_it_was_written_whatever_was_there_before(
    server: Cluster, namespace: str
) -> None:
    """One deployment through all its forms and back: rolling and recreated, with and without GPUs, secrets and volumes."""
    for name in (*DEPLOYMENTS, *reversed(tuple(DEPLOYMENTS))):
        for wanted, sent in wanted_of(name, namespace):
            would_be = shaped(server.apply(sent, dry_run=True), wanted)
            server.apply(sent)
            found = server.get(*address_of(sent))
            assert found is not None
            assert shaped(found, wanted) == would_be == wanted, name


def test_edit_by_hand_is_seen_and_its_editor_is_named(
    cluster: RealCluster, server: Cluster, namespace: str
) -> None:
    wanted, sent = wanted_of("none-running", namespace)[-1]
    server.apply(sent)
    cluster.kubectl("-n", namespace, "label", "deployment", "qwen", "team=blue")
    cluster.kubectl("-n", namespace, "scale", "deployment", "qwen", "--replicas=0")
    found = server.get(*address_of(sent))
    assert found is not None
    assert shaped(found, wanted) == wanted  # a label of somebody else's, and a scale to what is wanted

    cluster.kubectl(
        "-n", namespace, "patch", "deployment", "qwen", "-p", '{"spec":{"progressDeadlineSeconds":77}}'
    )
    found = server.get(*address_of(sent))
    assert found is not None
    assert shaped(found, wanted) == {**wanted, "spec": {**wanted["spec"], "progressDeadlineSeconds": 77}}
    with pytest.raises(Conflict, match=r"kubectl-patch.*progressDeadlineSeconds"):
        server.apply(sent, dry_run=True)


LOOK = """
import json, os
secret = "/run/secrets/mp/HF_TOKEN"
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "secret": open(secret).read(),
    "mode": oct(os.stat(secret).st_mode & 0o777),
    "user": os.getuid(),
    "launch": json.load(open("/etc/mp/launch.json"))["served_name"],
    "writable": [folder for folder in ("/etc/mp", "/run/secrets/mp") if os.access(folder, os.W_OK)],
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "services": sorted(name for name in os.environ if name.startswith("QWEN_")),
    "capabilities": int(status["CapEff"], 16),
}))
"""


@pytest.mark.registry
def test_pod_reads_its_secret_and_its_launch_and_may_nothing_else(
    cluster: RealCluster, server: Cluster, registry: RealRegistry
) -> None:
    """The pod as it is written, on a real node; only what it runs is another command."""
    place = Registry("main", url=f"{registry.host}/acme")
    image = str(engine_name(push_tiny_engine(place, tiny_engine()), place))
    with cluster.namespace() as namespace:
        cluster.kubectl(
            "-n", namespace, "create", "secret", "generic", "hf", "--from-literal=token=swordfish"
        )
        made = deployment(a_model(secret_env={"HF_TOKEN": TOKEN}), spec={"namespace": namespace})
        each = {str(one["kind"]): one for one in ordered(made.desired.objects)}
        for kind in ("ServiceAccount", "ConfigMap", "Service"):
            server.apply(written(each[kind], {}))
        spec = each["Deployment"]["spec"]["template"]["spec"]
        kept = {name: spec["containers"][0][name] for name in ("name", "securityContext", "volumeMounts")}
        looking = {**kept, "image": image, "command": ["python3", "-c", LOOK]}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "look", "namespace": namespace},
            "spec": {**spec, "containers": [looking], "restartPolicy": "Never"},
        }
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
        end = time.monotonic() + 60
        while cluster.get(namespace, "pod", "look")["status"]["phase"] not in ("Succeeded", "Failed"):
            assert time.monotonic() < end, cluster.kubectl("-n", namespace, "describe", "pod", "look")
            time.sleep(0.5)
        seen = json.loads(cluster.kubectl("-n", namespace, "logs", "look"))
    assert seen == {
        "secret": "swordfish",
        "mode": "0o440",
        "user": 10001,
        "launch": "qwen",
        "writable": [],
        "token": False,
        "services": [],
        "capabilities": 0,
    }
