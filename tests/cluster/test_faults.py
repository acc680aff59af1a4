"""What goes wrong on the way to a cluster: it is away in the middle, the login has ended, two apply at once, one is killed.

A small fleet on simulated nodes. Whatever happens, the next apply finishes, and nothing is there twice or left over.
"""

import base64
import copy
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.parts.certificates import signed
from tests.parts.cluster import RealCluster
from tests.parts.fleet import OBJECTS, Fleet, fleet_of, model_name
from tests.parts.gate import Gate, gate
from tests.parts.project import Manifest, Project, flat
from tests.parts.registry import RealRegistry

pytestmark = [pytest.mark.cluster, pytest.mark.registry]

MODELS = 12
ERROR, CHANGES, REFUSED, PARTLY, LOCKED = 1, 2, 4, 5, 6
BEGUN_S = 60  # until an apply that was started has changed something


@pytest.fixture(scope="module")
def written(
    simulated: RealCluster, registry: RealRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    with fleet_of(MODELS, simulated, registry, tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def fleet(written: Fleet) -> Iterator[Fleet]:
    """The fleet as it is declared, whatever the test before left."""
    manifest = written.project.manifest
    written.project.applied("--max-deletes", "99")
    yield written
    written.project.write(manifest)


@pytest.fixture
def door(written: Fleet) -> Iterator[Gate]:
    server = config_of(written.cluster)["clusters"][0]["cluster"]["server"]
    with gate(server.removeprefix("https://")) as made:
        yield made


def config_of(cluster: RealCluster) -> Any:  # Any: a kubeconfig
    return json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))


def config_at(file: Path, config: Any) -> dict[str, str]:
    """What names it."""
    file.touch(mode=0o600)
    file.write_text(json.dumps(config))
    return {"KUBECONFIG": str(file)}


def through(door: Gate, fleet: Fleet, folder: Path) -> dict[str, str]:
    config = config_of(fleet.cluster)
    config["clusters"][0]["cluster"]["server"] = f"https://{door.host}"
    return config_at(folder / "door.kubeconfig", config)


def coloured(manifest: Manifest, colour: str) -> Manifest:
    """Every model with another launch: a new ConfigMap, and new pods."""
    changed = copy.deepcopy(manifest)
    for entry in changed["models"].values():
        entry["env"] = {"COLOUR": colour}
    return changed


def has_begun(fleet: Fleet, before: dict[str, tuple[str, int]], changes: int) -> None:
    """Wait until some of the Deployments are others than before."""
    deadline = time.monotonic() + BEGUN_S
    while len(set(fleet.generations().items()) ^ set(before.items())) < changes:
        assert time.monotonic() < deadline, "the apply has begun nothing"
        time.sleep(0.05)


def whole(fleet: Fleet) -> None:
    """Everything is there, once, and nothing else is."""
    fleet.nothing_to_do()
    names = fleet.names()
    assert len(names) == MODELS * OBJECTS, names
    assert len(fleet.get("configmaps")) == MODELS, names


def test_api_that_goes_away_in_the_middle_loses_nothing_and_the_next_apply_goes_on(
    fleet: Fleet, door: Gate, tmp_path: Path
) -> None:
    environ = through(door, fleet, tmp_path)
    before, names = fleet.generations(), set(fleet.names("deployments,services"))
    manifest = coloured(fleet.project.manifest, "blue")
    del manifest["models"][model_name(0)]
    fleet.project.write(manifest)
    running = fleet.start("apply", "--yes", environ=environ)
    has_begun(fleet, before, 2)
    door.shut()
    said = running.communicate(timeout=120)[0]
    assert running.returncode in (ERROR, PARTLY), said
    assert "connection" in flat(said), said
    planned = fleet.project.mp("plan", environ=environ)
    assert planned.code == ERROR, planned.text
    assert "connection refused" in flat(planned.text), planned.text
    gone = names - set(fleet.names("deployments,services"))
    assert all(name.endswith(model_name(0)) for name in gone), gone
    door.open()
    fleet.project.applied(environ=environ)
    fleet.nothing_to_do()
    assert len(fleet.names()) == (MODELS - 1) * OBJECTS


def token_of(cluster: RealCluster, namespace: str, account: str, ends_in_s: int) -> str:
    """A token of a service account, as the API server makes them; it ended when `ends_in_s` is below zero."""
    issuer, now = "https://kubernetes.default.svc", int(time.time())
    uid = cluster.get(namespace, "serviceaccount", account)["metadata"]["uid"]
    header = {"alg": "RS256", "typ": "JWT"}
    claims = {
        "iss": issuer,
        "aud": [issuer],
        "sub": f"system:serviceaccount:{namespace}:{account}",
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": uid}},
        "iat": now - 7200,
        "nbf": now - 7200,
        "exp": now + ends_in_s,
    }
    parts = [_text(json.dumps(one).encode()) for one in (header, claims)]
    return ".".join((*parts, _text(signed(cluster.folder / "sa.key", ".".join(parts).encode()))))


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def account(fleet: Fleet, role: str) -> Iterator[Callable[[Path, int], dict[str, str]]]:
    """A service account with a role everywhere: what gives a kubeconfig of it, with a login that ends in so many seconds."""
    cluster, namespace = fleet.cluster, fleet.namespaces[0]
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "robot")
    words = (f"--clusterrole={role}", f"--serviceaccount={namespace}:robot")
    cluster.kubectl("create", "clusterrolebinding", namespace, *words)
    config = config_of(cluster)

    def login(folder: Path, ends_in_s: int) -> dict[str, str]:
        config["users"][0]["user"] = {"token": token_of(cluster, namespace, "robot", ends_in_s)}
        return config_at(folder / "robot.kubeconfig", config)

    try:
        yield login
    finally:
        cluster.kubectl("delete", "clusterrolebinding", namespace)
        cluster.kubectl("-n", namespace, "delete", "serviceaccount", "robot")


def test_login_that_has_ended_is_called_that_and_nothing_is_changed(fleet: Fleet, tmp_path: Path) -> None:
    with account(fleet, "cluster-admin") as login:
        for ends_in_s, code in ((600, 0), (-60, ERROR)):
            environ = login(tmp_path, ends_in_s)
            planned = fleet.project.mp("plan", "--detailed-exitcode", environ=environ)
            assert planned.code == code, planned.text
        assert "the login has ended: log in again" in flat(planned.text)
        before = fleet.names()
        fleet.project.write({**fleet.project.manifest, "models": {}})
        assert fleet.project.mp("destroy", "--all", "--yes", environ=environ).code == ERROR
        assert fleet.names() == before


def test_account_that_may_only_read_sees_the_plan_and_its_apply_begins_nothing(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Kubernetes' own role "view", which lists neither Secrets nor nodes."""
    with account(fleet, "view") as login:
        environ = login(tmp_path, 600)
        assert fleet.project.mp("plan", "--detailed-exitcode", environ=environ).code == 0
        manifest = coloured(fleet.project.manifest, "violet")
        del manifest["models"][model_name(0)]
        fleet.project.write(manifest)
        before, asked = fleet.get(), len(fleet.cluster.requests("mp"))
        planned = fleet.project.mp("plan", "--detailed-exitcode", environ=environ)
        assert planned.code == CHANGES, planned.text
        refused = fleet.project.mp("apply", "--yes", environ=environ)
    assert refused.code == REFUSED, refused.text
    for namespace in fleet.namespaces:
        assert f"in namespace {namespace}" in flat(refused.text), refused.text
    assert "may not create, delete, patch configmaps" in flat(refused.text), refused.text
    assert "create, delete, patch deployments.apps" in flat(refused.text), refused.text
    kept = [one for one in fleet.cluster.requests("mp")[asked:] if is_write(one)]
    assert not kept
    assert fleet.get() == before


def is_write(request: str) -> bool:
    """Whether a request asks for something to be kept: reviews and rehearsals do not."""
    read = request.startswith(("get ", "list ")) or "/authorization.k8s.io/" in request
    return not read and "dryRun=All" not in request


def test_api_that_never_answers_is_an_error_and_nothing_is_deleted(
    fleet: Fleet, door: Gate, tmp_path: Path
) -> None:
    environ = through(door, fleet, tmp_path)
    door.shut()
    before = fleet.names()
    manifest = copy.deepcopy(fleet.project.manifest)
    del manifest["models"][model_name(0)]
    for written, words in (
        (manifest, ("apply", "--yes")),
        ({**manifest, "models": {}}, ("destroy", "--all", "--yes")),
    ):
        fleet.project.write(written)
        result = fleet.project.mp(*words, environ=environ)
        assert result.code == ERROR, result.text
        assert "connection refused" in flat(result.text), result.text
    assert fleet.names() == before


def test_second_apply_at_once_names_the_first_and_begins_nothing(fleet: Fleet) -> None:
    before = fleet.generations()
    fleet.project.write(coloured(fleet.project.manifest, "green"))
    running = fleet.start("apply", "--yes")
    has_begun(fleet, before, 1)
    second = fleet.project.mp("apply", "--yes")
    said = running.communicate(timeout=300)[0]
    assert second.code == LOCKED, second.text
    assert f"process {running.pid}" in second.text, second.text
    assert running.returncode == 0, said
    whole(fleet)


@pytest.mark.slow
def test_second_machine_is_not_kept_apart_and_the_later_apply_of_one_manifest_finishes(fleet: Fleet) -> None:
    """Two folders stand for two machines: each has an inventory and a lease of its own."""
    away = fleet.project.folder.with_name("second-machine")
    shutil.copytree(fleet.project.folder, away, ignore=shutil.ignore_patterns("cache"))
    other = Project(away, fleet.project.cache, fleet.project.environ, fleet.project.manifest)
    wanted = coloured(fleet.project.manifest, "red")
    before = fleet.generations()
    for each in (fleet.project, other):
        each.write(wanted)
    running = fleet.start("apply", "--yes")
    has_begun(fleet, before, 1)
    other.mp("apply", "--yes")
    running.communicate(timeout=300)
    for each in (fleet.project, other):
        each.applied()
        assert each.mp("plan", "--detailed-exitcode").code == 0
    whole(fleet)
    shutil.rmtree(away)


@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_anywhere_the_next_apply_finishes_and_nothing_is_left_over(fleet: Fleet, kills: int) -> None:
    chance = random.Random(7)
    manifest = fleet.project.manifest
    for number in range(kills):
        before = fleet.generations()
        wanted = coloured(manifest, f"kill-{number}")
        if number % 2:  # some go, and come back with the next
            for gone in range(3):
                del wanted["models"][model_name(gone)]
        fleet.project.write(wanted)
        running = fleet.start("apply", "--yes")
        has_begun(fleet, before, chance.randint(1, MODELS))
        time.sleep(chance.random() * 0.2)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        fleet.project.applied()
        fleet.nothing_to_do()
        assert len(fleet.names()) == len(wanted["models"]) * OBJECTS, fleet.names()
        assert len(fleet.get("configmaps")) == len(wanted["models"])
