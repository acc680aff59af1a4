"""Containers on a real Docker engine: drift by hand, failures of many kinds, and what a failure leaves behind."""

import contextlib
import functools
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from pipeline.clients.docker import DockerHost
from pipeline.clients.oci.layout import LayoutRepository
from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, Repository, contents
from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.digest import Digest
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, StartFailed, Unreachable
from pipeline.core.image import ImageName, Registry
from pipeline.core.model import Secret
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Observed,
    Unreadable,
    fields_of,
    previous_of,
)
from pipeline.resources.cache.store import Cache
from pipeline.resources.image.index import index
from pipeline.targets.docker.driver import DockerDriver
from pipeline.targets.docker.spec import DockerState
from tests.contract.benches import OWNER, no_secret
from tests.fakes import engine
from tests.parts.base_image import BaseImage
from tests.parts.box import ADDRESS, Box
from tests.parts.registry import RealRegistry

pytestmark = [pytest.mark.docker, pytest.mark.registry]

PORT = "8000/tcp"


@pytest.fixture
def box(docker_host: str, base_image: BaseImage, registry: RealRegistry, tmp_path: Path) -> Iterator[Box]:
    image, digest = engine.push_image(docker_host, base_image.local, registry.host)
    cache = Cache(tmp_path / "cache")
    driver = DockerDriver(DockerHost, Repositories({}), cache, OWNER, no_secret, tmp_path / "docker")
    client, name = docker.DockerClient(base_url=docker_host), f"mp-test-{os.getpid()}"
    try:
        yield Box(docker_host, name, tmp_path, image, digest, driver, cache, client)
    finally:
        for left in client.containers.list(all=True, filters={"name": name}):
            left.remove(force=True)
        engine.remove_image(client, image)
        client.close()


def inside(observed: Observed[DockerState]) -> dict[str, object]:
    with urllib.request.urlopen(f"{observed.endpoint}/launch", timeout=5) as answer:
        seen: dict[str, object] = json.load(answer)
    return seen


def test_container_answers_with_its_weights_as_an_ordinary_user(box: Box) -> None:
    made = box.bring(box.wanted("--flag", model=box.model(contains="blue")))
    assert made.proof is not None
    assert made.proof.answer == "the sky is blue"
    assert (inside(made)["uid"], inside(made)["argv"]) == (10001, ["--flag"])
    host = box.container().attrs["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["PortBindings"][PORT][0]["HostIp"] == "127.0.0.1"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


def test_changed_memory_limit_is_drift_and_is_put_back_without_another_container(box: Box) -> None:
    wanted = box.wanted()
    before = box.bring(wanted)
    box.container().update(mem_limit="300m", memswap_limit="300m")
    assert box.diffs(wanted) == (FieldDiff("memory_bytes", 300 * 2**20, 256 * 2**20),)
    after = box.bring(wanted)
    assert after.remote_id == before.remote_id
    assert box.diffs(wanted) == ()


def test_killed_container_is_drift_and_is_started_again(box: Box) -> None:
    wanted = box.wanted()
    before = box.bring(wanted)
    box.container().kill()
    assert box.diffs(wanted) == (FieldDiff("running", False, True),)
    assert box.bring(wanted).remote_id == before.remote_id
    assert box.diffs(wanted) == ()


def test_container_recreated_by_hand_is_named_field_by_field_and_is_not_ours(box: Box) -> None:
    wanted = box.wanted("--one")
    box.bring(wanted)
    theirs = box.container()
    launch = json.loads(dict(e.split("=", 1) for e in theirs.attrs["Config"]["Env"])["MP_LAUNCH"])
    mount = theirs.attrs["HostConfig"]["Mounts"][0]["Source"]
    theirs.remove(force=True)
    box.client.containers.run(
        theirs.attrs["Config"]["Image"],
        name=box.name,
        detach=True,
        entrypoint=["python3", "/opt/mp/serve.py"],
        environment={"MP_LAUNCH": json.dumps({**launch, "argv": ["--two"]})},
        volumes={mount: {"bind": "/models", "mode": "rw"}},
        mem_limit="256m",
        ports={PORT: ("127.0.0.1", 0)},
    )
    seen = box.look(wanted)
    assert isinstance(seen, Observed)
    assert seen.mark is None
    changed = {diff.path: (diff.before, diff.after) for diff in box.diffs(wanted)}
    assert changed == {
        "launch/argv/0": ("--two", "--one"),
        "restart": ("no", "unless-stopped"),
        "weights": ("mount, writable", "mount"),
    }
    with pytest.raises(Denied, match="is not ours"):
        box.bring(wanted)
    assert box.container().status == "running"


def test_foreign_container_of_our_name_survives_a_delete(box: Box) -> None:
    box.client.containers.create(box.image_name, "true", name=box.name)
    state = fields_of(box.wanted().desired)
    entry = Entry(ADDRESS, "docker", {"host": box.host, "name": box.name}, None, None, state, state)
    box.driver.apply(Change(ADDRESS, "docker", Action.DELETE, None, None, entry), {}, engine.ignore)
    assert box.names() == {box.name}


def test_new_container_that_dies_names_the_first_error_and_the_old_one_answers_again(box: Box) -> None:
    good = box.wanted()
    before = box.bring(good)
    with pytest.raises(StartFailed) as failed:
        box.bring(box.wanted("--crash", "ValueError: unknown architecture Foo"))
    assert "exit code 1; first error: ValueError: unknown architecture Foo" in failed.value.message
    assert failed.value.hint is not None
    assert "ValueError" in Path(failed.value.hint.partition(": ")[2]).read_text()
    seen = box.look(good)
    assert isinstance(seen, Observed)
    assert (seen.remote_id, box.diffs(good)) == (before.remote_id, ())
    assert box.names() == {box.name}


def test_engine_that_dies_at_its_first_request_is_not_applied(box: Box) -> None:
    with pytest.raises(StartFailed, match="head_dim 16 is not supported"):
        box.bring(box.wanted("--crash-on-request"))
    assert box.names() == set()


def test_wrong_answer_is_refused_and_leaves_nothing(box: Box) -> None:
    with pytest.raises(StartFailed, match='without "green"'):
        box.bring(box.wanted(model=box.model(contains="green")))
    assert box.names() == set()


def test_container_out_of_memory_says_so_with_its_limit(box: Box) -> None:
    with pytest.raises(StartFailed, match=r"out of memory \(OOMKilled\), its limit is 0\.06 GiB"):
        box.bring(box.wanted("--eat", "200", memory="64Mi"))


def test_missing_gpu_driver_has_a_hint(box: Box) -> None:
    with pytest.raises(BackendError, match="no GPU driver") as failed:
        box.bring(box.wanted(model=box.model(gpus=1)))
    assert failed.value.hint is not None
    assert "gpus: 0" in failed.value.hint
    assert box.names() == set()


def test_secrets_are_files_of_the_server_alone_and_in_nothing_that_inspect_shows(box: Box) -> None:
    secret = Secret("door", "DOOR")
    made = box.bring(box.wanted(model=box.model(contains="blue", api_key=secret)))
    container = box.container()
    assert "value-of-door" not in json.dumps(container.attrs)
    _, listing = container.exec_run(["stat", "-c", "%a %u", "/run/secrets/mp/MP_API_KEY"], user="10001")
    assert isinstance(listing, bytes)
    assert listing.split() == [b"400", b"10001"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{made.endpoint}/v1/models", timeout=5)
    assert isinstance(box.look(box.wanted()), Observed)


def test_image_that_is_not_on_the_host_is_pulled_by_digest(box: Box) -> None:
    box.client.images.remove(box.image_name, force=True)
    made = box.bring(box.wanted())
    assert made.proof is not None
    assert box.container().attrs["Config"]["Image"].endswith(f":{box.image.tag}@{box.digest}")


def test_image_of_a_layout_folder_is_loaded(box: Box, tmp_path: Path) -> None:
    here = ImageName(Registry("here", layout=str(tmp_path / "layouts")), "tiny.engine", box.image.tag)
    copy_image(box.image, here)
    made = box.bring(box.wanted(image=here))
    assert made.proof is not None
    assert box.diffs(box.wanted(image=here)) == ()
    box.container().remove(force=True)
    box.client.images.remove(f"mp/tiny.engine:{box.image.tag}", force=True)


def test_of_several_platforms_in_a_layout_the_hosts_is_loaded(
    box: Box, docker_host: str, tmp_path: Path
) -> None:
    here = ImageName(Registry("here", layout=str(tmp_path / "layouts")), "tiny.engine", box.image.tag)
    copy_image(box.image, here)
    repository = LayoutRepository(str(tmp_path / "layouts"), "tiny.engine")
    own = repository.manifest(box.image.tag)
    assert own is not None
    other = ImageManifest(own.body + b" ", own.media_type)
    repository.put_manifest(other.digest, other)
    platform = DockerHost(docker_host).platform()
    foreign = "linux/arm64" if platform == "linux/amd64" else "linux/amd64"

    repository.put_manifest(box.image.tag, index({foreign: other}, {}))
    with pytest.raises(Missing, match=f"is for {foreign}, not for {platform}"):
        box.bring(box.wanted(image=here))
    repository.put_manifest(box.image.tag, index({platform: own, foreign: other}, {}))
    assert box.bring(box.wanted(image=here)).proof is not None

    box.container().remove(force=True)
    box.client.images.remove(f"mp/tiny.engine:{box.image.tag}", force=True)


def chunks(repository: Repository, digest: Digest, start: int) -> Iterator[bytes]:
    with repository.open_blob(digest, start) as blob:
        yield from iter(functools.partial(blob.read, 2**20), b"")


def copy_image(source: ImageName, target: ImageName) -> None:
    reading = Repositories({})(source.registry, source.repository)
    writing = LayoutRepository(str(target.registry.layout), target.repository)
    found = reading.manifest(source.tag)
    assert found is not None
    config, layers = contents(found)
    body = reading.blob(config)
    assert body is not None
    for digest, size_bytes in [(config, len(body)), *layers]:
        writing.push(digest, size_bytes, functools.partial(chunks, reading, digest))
    writing.put_manifest(target.tag, found)


def test_what_a_cut_off_run_left_is_cleared_away(box: Box) -> None:
    wanted = box.wanted()
    box.bring(wanted)
    box.container().rename(f"{box.name}.next")
    assert isinstance(box.look(wanted), Absent)
    box.bring(wanted)
    assert box.names() == {box.name}
    assert box.diffs(wanted) == ()


def leave_next(box: Box) -> None:
    """What a run leaves that is killed while it waits for the new container."""
    ours = box.container()
    ours.stop(timeout=0)
    box.client.containers.run(
        box.image_name,
        ["sleep", "60"],
        name=f"{box.name}.next",
        labels=ours.labels,
        entrypoint="",
        detach=True,
    )


def test_container_that_a_cut_off_run_started_goes_when_the_former_one_is_wanted_again(box: Box) -> None:
    wanted = box.wanted()
    before = box.bring(wanted)
    leave_next(box)
    box.container().start()
    assert box.diffs(wanted) == (FieldDiff("running", False, True),)
    assert box.bring(wanted).remote_id == before.remote_id
    assert (box.names(), box.diffs(wanted)) == ({box.name}, ())


def test_container_that_a_cut_off_run_left_alone_is_seen_and_deleted(box: Box) -> None:
    box.bring(box.wanted())
    leave_next(box)
    box.container().remove(force=True)
    state = fields_of(box.wanted().desired)
    entry = Entry(ADDRESS, "docker", {"host": box.host, "name": box.name}, None, None, state, state)
    seen = box.driver.observe([], [entry])[ADDRESS]
    assert isinstance(seen, Observed)
    assert seen.mark == replace(OWNER, address=ADDRESS)
    box.driver.apply(Change(ADDRESS, "docker", Action.DELETE, None, seen, entry), {}, engine.ignore)
    assert box.names() == set()


def test_container_that_moved_to_another_name_of_its_engine_stays(box: Box, tmp_path: Path) -> None:
    socket = tmp_path / "alias.sock"
    socket.symlink_to(box.host.removeprefix("unix://"))
    box.bring(box.wanted())
    state = fields_of(box.wanted().desired)
    place = {"host": f"unix://{socket}", "name": box.name}
    old = Entry(previous_of(ADDRESS, place), "docker", place, None, None, state, state)
    box.driver.apply(Change(old.address, "docker", Action.DELETE, None, None, old), {}, engine.ignore)
    assert box.names() == {box.name}


def test_declared_port_that_is_taken_has_a_hint_and_the_old_container_stays(box: Box) -> None:
    box.bring(box.wanted())
    with taken_port() as taken, pytest.raises(StartFailed) as failed:
        box.bring(box.wanted(port=taken))
    assert failed.value.hint == "end what listens there, or declare another port"
    assert box.diffs(box.wanted()) == ()


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_changed_weights_replace_the_container(box: Box) -> None:
    first = box.bring(box.wanted())
    changed = box.wanted(model=engine.model(box.folder, box.cache, answer="the grass is green"))
    assert [diff.path for diff in box.diffs(changed)] == ["content"]
    second = box.bring(changed)
    assert second.proof is not None
    assert second.proof.answer == "the grass is green"
    assert second.remote_id != first.remote_id
    assert box.names() == {box.name}


def test_weights_that_changed_on_the_disk_are_never_served(box: Box) -> None:
    wanted = box.wanted()
    recipe = wanted.desired.recipe
    assert recipe is not None
    blob = box.cache.blob(next(e.sha256 for e in recipe.files if e.path == "answer.txt"))
    blob.chmod(0o644)
    blob.write_text("the sky is grey")
    with pytest.raises(Corrupt, match="changed on this disk"):
        box.bring(wanted)
    assert box.names() == set()


def test_engine_that_does_not_answer_makes_its_addresses_unreadable_and_no_other(box: Box) -> None:
    box.bring(box.wanted())
    here, gone = box.wanted(), Address("other/docker:far")
    there = replace(here, address=gone, locator={"host": "tcp://127.0.0.1:1", "name": "other"})
    began = time.monotonic()
    answers = box.driver.observe([here, there], [])
    assert isinstance(answers[ADDRESS], Observed)
    assert answers[gone] == Unreadable(
        "tcp://127.0.0.1:1: does not answer: Connection refused",
        "is the Docker engine running? see docker info",
    )
    assert time.monotonic() - began < 10
    with pytest.raises(Unreachable):
        box.driver.apply(Change(gone, "docker", Action.CREATE, there, None, None), {}, engine.ignore)


def test_baked_weights_are_those_of_the_image_and_nothing_is_mounted(
    box: Box, base_image: BaseImage, registry: RealRegistry
) -> None:
    image, digest = engine.push_image(
        box.host, base_image.local, registry.host, repository="tiny", answer="baked in"
    )
    wanted = box.wanted(image=image, weights="baked")
    made = replace(box, digest=digest).bring(wanted)
    assert made.proof is not None
    assert made.proof.answer == "baked in"
    assert box.container().attrs["Mounts"] == []
    assert box.diffs(wanted) == ()
    box.container().remove(force=True)
    engine.remove_image(box.client, image)


def test_container_that_is_as_wanted_is_proven_and_not_made_again(box: Box) -> None:
    first, second = box.bring(box.wanted()), box.bring(box.wanted())
    assert second.remote_id == first.remote_id
    assert second.proof is not None
