"""What restarts pods and what does not: secrets that change, and registries that move. On nodes that only seem to run pods."""

import base64
import copy
import json
from collections.abc import Iterator

import pytest

from tests.parts.cluster import RealCluster
from tests.parts.fleet import Fleet, fleet_of, model_name
from tests.parts.project import Manifest
from tests.parts.registry import RealRegistry

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

CHANGES = 2
FIRST, SECOND = model_name(0), model_name(1)


@pytest.fixture(scope="module")
def applied(
    simulated: RealCluster, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """Two models; the first has a secret that restarts it."""
    with fleet_of(2, simulated, registry, tmp_path_factory.mktemp("rotation")) as fleet:
        fleet.kubectl(
            0, "create", "secret", "generic", "door", "--from-literal=key=hush", "--from-literal=other=a"
        )
        fleet.project.write(with_secret(fleet.project.manifest))
        fleet.project.applied()
        yield fleet


@pytest.fixture
def fleet(applied: Fleet) -> Iterator[Fleet]:
    """The fleet as it was first declared, also after a test that changed it."""
    manifest = applied.project.manifest
    yield applied
    applied.project.write(manifest)
    applied.project.applied()


def with_secret(manifest: Manifest) -> Manifest:
    changed = copy.deepcopy(manifest)
    place = {"name": "door", "key": "key"}
    changed["secrets"] = {"door": {"env": "DOOR", "kubernetes": place, "on_rotate": "restart"}}
    changed["models"][FIRST]["env"] = {"DOOR": {"secret": "door"}}
    return changed


def patch(fleet: Fleet, **data: str) -> None:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    fleet.kubectl(0, "patch", "secret", "door", "-p", json.dumps({"data": encoded}))


def generations(fleet: Fleet) -> dict[str, int]:
    """How often the spec of each Deployment changed."""
    return {name: number for name, (_, number) in fleet.generations().items()}


def test_secret_with_another_value_restarts_what_uses_it_and_nothing_else(fleet: Fleet) -> None:
    before = generations(fleet)
    fleet.kubectl(0, "label", "secret", "door", "seen=yes", "--overwrite")
    patch(fleet, other="b")
    fleet.nothing_to_do()
    patch(fleet, key="quiet")
    planned = fleet.project.mp("plan", "--detailed-exitcode")
    assert planned.code == CHANGES, planned.text
    assert "restart: secret door changed" in planned.out
    assert "1 to update" in planned.out
    result = fleet.project.applied()
    assert not {"quiet", base64.b64encode(b"quiet").decode()} & set((planned.text + result.text).split())
    assert generations(fleet) == {**before, FIRST: before[FIRST] + 1}
    fleet.nothing_to_do()
    assert fleet.project.mp("drift").code == 0


def test_without_on_rotate_nothing_happens_and_nothing_drifts(fleet: Fleet) -> None:
    before = generations(fleet)
    manifest = copy.deepcopy(fleet.project.manifest)
    del manifest["secrets"]["door"]["on_rotate"]
    fleet.project.write(manifest)
    patch(fleet, key="silence")
    fleet.nothing_to_do()
    assert fleet.project.mp("drift").code == 0
    assert generations(fleet) == before


def test_registry_that_moved_restarts_nothing_until_the_next_change(
    fleet: Fleet, registry: RealRegistry
) -> None:
    """It is the same registry under another name, so the digests are equal."""
    before = generations(fleet)
    manifest = copy.deepcopy(fleet.project.manifest)
    manifest["registries"]["main"]["url"] = f"localhost:{registry.port}/fleet"
    fleet.project.write(manifest)
    planned = fleet.project.mp("plan", "--detailed-exitcode")
    assert planned.code == 0, planned.text
    said = " ".join(planned.out.split())
    assert f"pulls from 127.0.0.1:{registry.port}/fleet until its next change" in said
    fleet.project.applied()
    assert generations(fleet) == before
    manifest["models"][SECOND]["env"] = {"COLOUR": "blue"}
    fleet.project.write(manifest)
    planned = fleet.project.mp("plan", "--detailed-exitcode")
    assert planned.code == CHANGES, planned.text
    fleet.project.applied()
    assert generations(fleet) == {**before, SECOND: before[SECOND] + 1}
    images = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in fleet.get("deployments")
    }
    assert images[FIRST].startswith("127.0.0.1:")
    assert images[SECOND].startswith("localhost:")
    fleet.nothing_to_do()
