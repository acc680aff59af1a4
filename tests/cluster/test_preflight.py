"""What a real server says of changes before they are made, on nodes that only seem to have GPUs. Nothing is ever written."""

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.kube import Cluster
from pipeline.core.change import Action, Change
from pipeline.core.model import Hardware
from pipeline.core.protocols import Findings
from pipeline.core.resource import Absent, Address, Mark, Observed, Resource
from pipeline.resources.cluster.canary import beside
from pipeline.resources.cluster.driver import ClusterDriver
from pipeline.resources.cluster.preflight import preflight
from pipeline.resources.cluster.state import ClusterState
from tests.parts.cluster import RealCluster
from tests.parts.deployments import KEY, a_model, deployment
from tests.parts.fleet import fleet_of
from tests.parts.project import Manifest
from tests.parts.registry import RealRegistry

pytestmark = pytest.mark.cluster

H200 = "NVIDIA-H200"
REFUSED = 4
ASKING = ("reviews", "/nodes", "/pods", "resourcequotas", "limitranges", "/secrets/", "/version")
FEW = 16  # requests for a namespace and its cluster, whatever changes

Said = Callable[..., Findings]


def gpus(count: int) -> Hardware:
    return Hardware("h200", count, "H200", cpus=1, memory_bytes=2**30)


@pytest.fixture
def namespace(simulated: RealCluster) -> Iterator[str]:
    with simulated.namespace() as name:
        yield name


@pytest.fixture
def said(simulated: RealCluster, namespace: str) -> Said:
    """What the cluster says of deployments, one dictionary of options each, in a namespace of its own."""

    def ask(*options: dict[str, Any], kubeconfig: Path = simulated.kubeconfig, **target: Any) -> Findings:
        spec = {"namespace": namespace, **target}
        wanted = [deployment(**{**one, "spec": {**spec, **one.get("spec", {})}}) for one in options]
        return asked(kubeconfig, simulated.context, *map(creation, wanted))

    return ask


def creation(resource: Resource[ClusterState]) -> Change[ClusterState]:
    return Change(resource.address, resource.kind, Action.CREATE, resource, None, None)


def asked(kubeconfig: Path, context: str, *changes: Change[ClusterState]) -> Findings:
    return preflight(lambda _: Cluster(context, {"KUBECONFIG": str(kubeconfig)}), changes)


@pytest.fixture
def h200(simulated: RealCluster) -> Iterator[str]:
    """Two nodes with four H200 each: "…-1" and "…-2"; what their names begin with, which no other test's do."""
    name = f"h200-{uuid.uuid4().hex[:6]}"
    resources = {"cpu": "96", "memory": "1Ti", "pods": "250", "nvidia.com/gpu": "4"}
    for number in (1, 2):
        metadata = {
            "name": f"{name}-{number}",
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"nvidia.com/gpu.product": H200},
        }
        status = {"allocatable": resources, "capacity": resources}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}
        simulated.kubectl("create", "-f", "-", stdin=json.dumps(node))
    simulated.kubectl("wait", "--for=condition=Ready", f"node/{name}-1", f"node/{name}-2", "--timeout=60s")
    yield name
    simulated.kubectl("delete", "node", f"{name}-1", f"{name}-2")


def holding(simulated: RealCluster, namespace: str, node: str, count: int) -> None:
    """A pod of somebody else's that has GPUs of a node."""
    container = {"name": "c", "image": "none", "resources": {"limits": {"nvidia.com/gpu": str(count)}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"on-{node}"},
        "spec": {"nodeName": node, "containers": [container]},
    }
    simulated.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(pod))


def texts(found: Findings) -> list[str]:
    return [one.summary for one in found.refusals]


def test_cluster_that_has_everything_says_nothing(said: Said, h200: str) -> None:
    assert said({}, {"model": a_model("vllm", gpus(4)), "replicas": 2, "name": "large"}) == Findings()


def test_namespace_that_is_not_there_is_all_that_is_said(said: Said) -> None:
    found = said({"spec": {"namespace": "nowhere", "pull_secret": "ghcr"}})
    (text,) = texts(found)
    assert 'namespace "nowhere" is not in' in text
    assert found.refusals[0].hint == "kubectl create namespace nowhere makes it"


def test_gpus_that_others_hold_are_not_free(
    said: Said, simulated: RealCluster, namespace: str, h200: str
) -> None:
    large = {"model": a_model("vllm", gpus(4))}
    holding(simulated, namespace, f"{h200}-1", 2)
    assert said(large) == Findings()
    holding(simulated, namespace, f"{h200}-2", 1)
    (text,) = texts(said(large))
    assert f"needs 4 × {H200}, and 5 are free, on one node at most 3" in text
    (text,) = texts(said({"model": a_model("vllm", gpus(1)), "replicas": 7}))
    assert f"needs 1 × {H200} for each of 7 pods, and 5 are free: 2 find none" in text


def test_product_that_no_node_has_is_named(said: Said) -> None:
    (text,) = texts(said({"model": a_model("vllm", gpus(1))}))
    assert f"needs 1 × {H200}" in text
    assert "no node that it may go to has any" in text


def test_cordoned_node_has_none_free(said: Said, simulated: RealCluster, h200: str) -> None:
    simulated.kubectl("cordon", f"{h200}-1")
    (text,) = texts(said({"model": a_model("vllm", gpus(4)), "replicas": 2}))
    assert "4 are free" in text


def test_new_pod_beside_the_old_one_needs_gpus_of_its_own_unless_the_old_one_goes_first(
    simulated: RealCluster, namespace: str, h200: str
) -> None:
    for number in (1, 2):
        holding(simulated, namespace, f"{h200}-{number}", 4)
        own = "app.kubernetes.io/instance=qwen"
        simulated.kubectl("-n", namespace, "label", "pod", f"on-{h200}-{number}", own)
    found = asked(simulated.kubeconfig, simulated.context, update(namespace, replicas=2))
    assert "needs 4 × NVIDIA-H200 beside its old pod, and 0 are free" in texts(found)[0]
    assert "when_no_spare: recreate" in str(found.refusals[0].hint)
    first = update(namespace, replicas=2, rollout={"when_no_spare": "recreate"})
    found = asked(simulated.kubeconfig, simulated.context, first)
    assert not found.refusals
    assert "it does not answer while its old pod goes first" in found.remarks[0].summary
    more = creation(deployment(model=a_model("vllm", gpus(4)), replicas=3, spec={"namespace": namespace}))
    found = asked(simulated.kubeconfig, simulated.context, replace(more, observed=seen(2, namespace)))
    assert texts(found) == ["qwen: needs 4 × NVIDIA-H200, and 0 are free in kubernetes mp-test"]


def test_spare_gpus_are_used_by_one_roll_out_after_the_other(
    simulated: RealCluster, namespace: str, h200: str
) -> None:
    holding(simulated, namespace, f"{h200}-1", 4)
    changes = [update(namespace, f"m{number}") for number in range(3)]
    assert asked(simulated.kubeconfig, simulated.context, *changes) == Findings()
    holding(simulated, namespace, f"{h200}-2", 1)
    assert len(asked(simulated.kubeconfig, simulated.context, *changes).refusals) == 3


def test_canary_needs_gpus_of_its_own_which_are_free_when_it_is_promoted_or_replaced(
    simulated: RealCluster, namespace: str, h200: str
) -> None:
    def version(colour: str) -> Resource[ClusterState]:
        model, said = a_model("vllm", gpus(4), env={"COLOUR": colour}), {"strategy": "canary"}
        return deployment(model=model, spec={"namespace": namespace}, rollout=said)

    def refused(wanted: Resource[ClusterState], now: Resource[ClusterState]) -> list[str]:
        change = replace(creation(wanted), action=Action.UPDATE, observed=Observed(now.desired))
        return texts(asked(simulated.kubeconfig, simulated.context, change))

    old, new = version("blue"), version("green")
    canary, other = beside(new, old), beside(version("red"), old)
    assert canary is not None and other is not None
    for number, owner in ((1, "qwen"), (2, "another")):
        holding(simulated, namespace, f"{h200}-{number}", 4)
        label = f"app.kubernetes.io/instance={owner}"
        simulated.kubectl("-n", namespace, "label", "pod", f"on-{h200}-{number}", label)
    assert refused(canary, old) == ["qwen: needs 4 × NVIDIA-H200, and 0 are free in kubernetes mp-test"]
    mine = ("--overwrite", f"on-{h200}-2", "app.kubernetes.io/instance=qwen-canary")
    simulated.kubectl("-n", namespace, "label", "pod", *mine)
    assert refused(canary, canary) == []
    assert refused(new, canary) == []
    assert refused(other, canary) == []


def update(namespace: str, name: str = "qwen", **options: Any) -> Change[ClusterState]:
    """Another launch of a model that has four GPUs."""
    new = a_model("vllm", gpus(4), name=name, env={"COLOUR": "blue"})
    wanted = deployment(model=new, spec={"namespace": namespace}, **options)
    before = seen(int(options.get("replicas", 1)), namespace, name)
    return replace(creation(wanted), action=Action.UPDATE, observed=before)


def seen(replicas: int, namespace: str, name: str = "qwen") -> Observed[ClusterState]:
    wanted = deployment(
        model=a_model("vllm", gpus(4), name=name), replicas=replicas, spec={"namespace": namespace}
    )
    return Observed(wanted.desired)


def test_driver_that_is_too_old_everywhere_is_refused_and_somewhere_is_a_warning(
    said: Said, simulated: RealCluster, namespace: str, h200: str
) -> None:
    simulated.kubectl(
        "label", "node", f"{h200}-1", "nvidia.com/cuda.driver.major=535", "nvidia.com/cuda.driver.minor=104"
    )
    change = creation(deployment(model=a_model("vllm", gpus(1)), spec={"namespace": namespace}))
    (text,) = texts(asked(simulated.kubeconfig, simulated.context, change))
    assert "needs GPU driver 580" in text
    assert f"{h200}-1: 535.104" in text
    newer = "nvidia.com/cuda.driver-version.major=580"
    simulated.kubectl("label", "node", f"{h200}-2", newer, "nvidia.com/cuda.driver-version.minor=95")
    found = asked(simulated.kubeconfig, simulated.context, change)
    assert not found.refusals
    assert "1 of 2 nodes" in found.remarks[0].summary


def test_kind_that_is_not_installed_is_named_and_is_not_unreadable(
    simulated: RealCluster, namespace: str, h200: str
) -> None:
    simulated.uninstall("LeaderWorkerSet")  # other tests bring it
    across = Hardware("h200", 4, "H200", cpus=1, memory_bytes=2**30, nodes=2)
    wanted = deployment(model=a_model("vllm", across), spec={"namespace": namespace})
    (text,) = texts(asked(simulated.kubeconfig, simulated.context, creation(wanted)))
    assert "has no LeaderWorkerSet of leaderworkerset.x-k8s.io/v1" in text
    environ = {"KUBECONFIG": str(simulated.kubeconfig)}
    driver = ClusterDriver(
        lambda _: Cluster(simulated.context, environ), Mark("acme", "default", Address("")), str
    )
    assert isinstance(driver.observe([wanted], [])[wanted.address], Absent)


def test_secrets_and_keys_that_are_missing_are_named_all_at_once(
    said: Said, simulated: RealCluster, namespace: str
) -> None:
    wanted = {"model": a_model(api_key=KEY)}
    found = said(wanted, pull_secret="ghcr")
    assert len(found.refusals) == 2
    assert 'pull secret "ghcr" is not in namespace' in texts(found)[0]
    assert 'secret "qwen" is not in namespace' in texts(found)[1]
    own = ("-n", namespace, "create", "secret")
    simulated.kubectl(*own, "generic", "ghcr", "--from-literal=token=hush")
    simulated.kubectl(*own, "generic", "qwen", "--from-literal=apikey=hush-hush")
    found = said(wanted, pull_secret="ghcr")
    assert "is no pull secret: its type is Opaque" in texts(found)[0]
    assert 'has no key "api-key"' in texts(found)[1]
    assert found.refusals[1].hint == "its keys are: apikey"
    assert "hush" not in repr(found)
    simulated.kubectl("-n", namespace, "delete", "secret", "ghcr", "qwen")
    login = ("--docker-server=ghcr.io", "--docker-username=a", "--docker-password=b")
    simulated.kubectl(*own, "docker-registry", "ghcr", *login)
    simulated.kubectl(*own, "generic", "qwen", "--from-literal=api-key=hush")
    assert said(wanted, pull_secret="ghcr") == Findings()


def test_quota_that_would_be_passed_says_what_is_left(
    said: Said, simulated: RealCluster, namespace: str
) -> None:
    simulated.kubectl(
        "-n",
        namespace,
        "create",
        "quota",
        "team",
        "--hard=requests.cpu=5,limits.memory=100Gi,count/deployments.apps=1",
    )
    simulated.kubectl("-n", namespace, "wait", "quota/team", "--for=jsonpath={.status.hard}", "--timeout=30s")
    assert said({"replicas": 2}) == Findings()
    found = said({"replicas": 2}, {"name": "second"})
    assert any("count/deployments.apps: 2 more is needed, 1 of 1 is left" in one for one in texts(found))
    assert any("requests.cpu: 6 more is needed, 5 of 5 is left" in one for one in texts(found))
    (text,) = [
        one
        for one in texts(said({"model": a_model(hardware=Hardware("c", 0, cpus=1))}))
        if "takes only" in one
    ]
    assert "takes only pods with limits.memory" in text


def test_container_that_is_larger_than_the_limit_is_refused(
    said: Said, simulated: RealCluster, namespace: str
) -> None:
    bound = {"type": "Container", "max": {"memory": "1Gi"}}
    limits = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "small"},
        "spec": {"limits": [bound]},
    }
    simulated.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(limits))
    (text,) = texts(said({}))
    assert "memory: 2Gi is more than 1Gi for one container" in text
    assert said({"memory": "512Mi"}) == Findings()


def test_namespace_of_level_restricted_takes_our_pods_and_not_those_that_break_it(
    said: Said, simulated: RealCluster, namespace: str
) -> None:
    level = "pod-security.kubernetes.io/enforce=restricted"
    simulated.kubectl("label", "namespace", namespace, level)
    assert said({}, {"name": "mounted", "weights": "volume"}) == Findings()
    loose = deployment(spec={"namespace": namespace})
    objects = json.loads(json.dumps(loose.desired.objects))
    objects["Deployment/qwen"]["spec"]["template"]["spec"]["hostNetwork"] = True
    change = creation(replace(loose, desired=replace(loose.desired, objects=objects)))
    found = asked(simulated.kubeconfig, simulated.context, change)
    assert 'takes only pods of level "restricted"' in texts(found)[0]
    assert "host namespaces" in str(found.refusals[0].hint)
    assert simulated.get(namespace, "pods")["items"] == []


def test_account_that_may_only_read_is_barred_and_what_it_may_not_see_is_said(
    said: Said, simulated: RealCluster, namespace: str, tmp_path: Path
) -> None:
    reader = simulated.as_account(namespace, "reader", "get,list", tmp_path)
    found = said({"spec": {"pull_secret": "ghcr"}, "model": a_model("vllm", gpus(1))}, kubeconfig=reader)
    assert not found.refusals
    (barred,) = found.barred
    assert "may not create, delete, patch configmaps" in barred.summary
    assert "create pods/portforward" in barred.summary
    assert "create, delete, patch deployments.apps" in barred.summary
    said_of = " ".join(one.summary for one in found.remarks)
    assert "quotas, secrets (no right to read them)" in said_of
    assert "nodes (no right to read them)" in said_of


def test_account_that_may_write_is_not_barred(
    said: Said, simulated: RealCluster, namespace: str, tmp_path: Path
) -> None:
    verbs = "get,list,create,patch,delete"
    writer = simulated.as_account(namespace, "writer", verbs, tmp_path)
    assert said({"prove": "skip"}, kubeconfig=writer).barred == ()


def test_requests_do_not_grow_with_the_number_of_models(
    said: Said, simulated: RealCluster, h200: str
) -> None:
    many: list[dict[str, Any]] = [
        {"model": a_model("vllm", gpus(1), name=f"m{number}"), "replicas": 0} for number in range(40)
    ]
    before = len(simulated.requests("mp"))
    assert said(*many) == Findings()
    requests = simulated.requests("mp")[before:]
    assert len(requests) <= FEW, requests
    assert {one.partition(" ")[0] for one in requests} <= {"get", "list", "create"}
    assert all("reviews" in one for one in requests if one.startswith("create")), requests


def broken(good: Manifest) -> Manifest:
    """Another GPU and a pull secret for the first model, another namespace for the second."""
    manifest = copy.deepcopy(good)
    manifest["hardware"]["gpu"]["gpu"] = "T4"
    manifest["targets"]["east"]["pull_secret"] = "ghcr"
    manifest["targets"]["west"]["namespace"] = "nowhere"
    return manifest


@pytest.mark.registry
def test_everything_is_said_at_once_nothing_is_moved_and_a_plan_without_changes_asks_nothing(
    simulated: RealCluster, registry: RealRegistry, tmp_path: Path
) -> None:
    with fleet_of(2, simulated, registry, tmp_path / "fleet") as fleet:
        (fleet.project.folder / "weights" / "own.txt").write_text("nobody published these weights before")
        good = copy.deepcopy(fleet.project.manifest)
        fleet.project.write(broken(good))
        fleet.kubectl(0, "create", "quota", "team", "--hard=pods=0")
        fleet.kubectl(0, "wait", "quota/team", "--for=jsonpath={.status.hard}", "--timeout=30s")
        before = len(registry.requests())
        result = fleet.project.mp("apply", "--yes")
        assert result.code == REFUSED, result.text
        said = " ".join(result.out.split())
        for words in (
            'pull secret "ghcr" is not in namespace',
            "needs 1 × Tesla-T4, and no node that it may go to has any",
            "pods: 1 more is needed, 0 of 0 is left",
            'namespace "nowhere" is not in',
        ):
            assert words in said, result.text
        assert "models.yaml:" in said
        assert not [one for one in registry.requests()[before:] if not one.startswith(("GET", "HEAD"))]
        assert fleet.get() == []
        fleet.kubectl(0, "delete", "quota", "team")
        fleet.project.write(good)
        fleet.project.applied()
        asked_before = len(simulated.requests("mp"))
        fleet.nothing_to_do()
        requests = simulated.requests("mp")[asked_before:]
        assert not [one for one in requests if any(word in one for word in ASKING)], requests
