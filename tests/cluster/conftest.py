"""What tests of clusters share beside the node that runs pods: many nodes that only seem to."""

from collections.abc import Iterator

import pytest

from tests.parts.cluster import RealCluster, simulated_cluster


@pytest.fixture(scope="session")
def simulated() -> Iterator[RealCluster]:
    """50 nodes with 8 GPUs each; use namespaces of your own."""
    with simulated_cluster(nodes=50, gpus=8) as started:
        yield started
