"""Every object that mp writes is one that a real server takes: strictly, as it is written, and without a trace of it afterwards."""

from collections.abc import Iterator

import pytest

from pipeline.clients.kube import Cluster, Conflict, address_of
from pipeline.targets.kubernetes.objects import Object, ordered, written
from pipeline.targets.kubernetes.shape import shaped
from tests.parts.cluster import RealCluster
from tests.parts.deployments import DEPLOYMENTS, deployment

pytestmark = pytest.mark.cluster

DIGEST = f"sha256:{'c' * 64}"


@pytest.fixture(scope="module")
def server(cluster: RealCluster) -> Cluster:
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
