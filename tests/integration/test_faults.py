"""Faults while `mp` works, by its own command line: whatever happened, the next apply finishes and nothing wrong is left."""

import random
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from tests.fakes.hub import FakeHub
from tests.parts.faults import (
    MIB,
    hashed_as_named,
    layout,
    manifest_of,
    nothing_is_left_to_do,
    one_image_each,
    project_of,
    started,
    weights,
    whole_images,
    write_model,
)
from tests.parts.project import Project
from tests.parts.proxy import CountingProxy, counting
from tests.parts.registry import RealRegistry, running_registry

LAYOUT = {"here": {"layout": "registry"}}
SHARD_BYTES = 70 * MIB
OVERHEAD_BYTES = 60_000  # headers, configs and image manifests of one apply
KILLS, SEED = 10, 20261121
CHANGES, PARTLY, LOCKED, INTERRUPTED = 2, 5, 6, 130


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as started_hub:
        yield started_hub


@pytest.fixture
def slow(registry: RealRegistry) -> Iterator[CountingProxy]:
    """The registry behind a proxy that can hold back what is sent to it."""
    with counting(registry.host) as proxy:
        yield proxy


@pytest.fixture
def prefix() -> str:
    return uuid.uuid4().hex[:8]


@frozen
class Twenty:
    """Twenty models, half of them from the Hub, published into three layouts."""

    project: Project
    names: tuple[str, ...]

    def is_whole(self) -> None:
        nothing_is_left_to_do(self.project)
        for name in "abc":
            one_image_each(layout(self.project, f"registries/{name}"), self.names)
            assert hashed_as_named(self.project.folder / "registries" / name) >= 3 * len(self.names)
        assert hashed_as_named(self.project.cache / "blobs") == len(self.names) + 1  # one config for all
        left = [file.name for file in (self.project.cache / "partial").iterdir()]
        # downloads are gone; links and texts of an instant, which a kill may leave, are swept when they are an hour old
        assert [name for name in left if not name.startswith(("link.", "entry."))] == []

    def begin_anew(self) -> None:
        for folder in (self.project.cache, self.project.folder / "registries", self.project.folder / ".mp"):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def twenty(tmp_path: Path, hub: FakeHub) -> Twenty:
    registries = {name: {"layout": f"registries/{name}"} for name in "abc"}
    project = project_of(tmp_path, {}, registries, HF_ENDPOINT=hub.endpoint)
    sources = {}
    names = tuple(f"model-{number:02}" for number in range(20))
    for name in names[:10]:
        sources[name] = write_model(project, name, model__safetensors=weights(name, MIB))
    for name in names[10:]:
        hub.commit(f"acme/{name}", {"config.json": b"{}", "model.safetensors": weights(name, MIB)})
        sources[name] = f"hf://acme/{name}"
    project.write(manifest_of(sources, registries))
    assert project.mp("lock").code == 0
    return Twenty(project, names)


def test_kill_9_at_any_moment_costs_nothing_but_time(twenty: Twenty) -> None:
    project = twenty.project
    began = time.monotonic()
    project.applied()
    whole_s = time.monotonic() - began
    twenty.is_whole()
    twenty.begin_anew()
    chance, cut_off = random.Random(SEED), 0

    for _ in range(KILLS):
        with started(project, "apply", "--yes") as run:
            time.sleep(chance.uniform(0.2, 1.0) * whole_s)
            cut_off += run.process.poll() is None
            run.kill()
        planned = project.mp("plan", "--detailed-exitcode")
        assert planned.code in (0, CHANGES), planned.text
        assert project.mp("list", "--json").code == 0
        if planned.code == 0:
            twenty.is_whole()
            twenty.begin_anew()
    project.applied()

    twenty.is_whole()
    assert cut_off > KILLS // 2


# A registry that goes away


@pytest.mark.registry
def test_a_registry_that_stops_half_way_through_a_push_is_finished_later(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry") as real, counting(real.host) as proxy:
        place = Registry("main", url=f"{real.host}/acme")
        project = project_of(tmp_path, {}, {})
        source = write_model(project, "large", model__safetensors=weights("large", SHARD_BYTES))
        project.write(manifest_of({"large": source}, {"main": {"url": f"{proxy.host}/acme"}}))
        proxy.hold_after_bytes = 10 * MIB
        with started(project, "apply", "--yes") as run:
            assert proxy.held.wait(60)
            assert whole_images(place) == {}
            real.stop()
            proxy.release()
            failed = run.result()
        assert failed.code == PARTLY, failed.text
        assert proxy.host in failed.out
        assert "Traceback" not in failed.text
        away = project.mp("plan")
        assert away.code == 1, away.text
        assert proxy.host in away.text
        real.start()
        assert whole_images(place) == {}

        project.applied()

        one_image_each(place, ["large"])
        nothing_is_left_to_do(project)


# What does not travel


def test_a_plan_without_changes_asks_the_hub_nothing(tmp_path: Path, hub: FakeHub) -> None:
    files = {"config.json": b"{}", "model.safetensors": weights("one", MIB)}
    hub.commit("acme/tiny", files)
    project = project_of(tmp_path, {"tiny": "hf://acme/tiny"}, LAYOUT, HF_ENDPOINT=hub.endpoint)
    project.applied()
    assert hub.log
    hub.log.clear()
    hub.commit("acme/tiny", files | {"config.json": b'{"a": 1}'})  # main moves; the lock stays

    nothing_is_left_to_do(project)

    assert hub.log == []


@pytest.mark.registry
def test_one_of_two_shards_changed_is_one_layer_pushed_as_the_plan_said(
    tmp_path: Path, slow: CountingProxy, prefix: str
) -> None:
    project = project_of(tmp_path, {}, {})
    one, two = "model-00001-of-00002__safetensors", "model-00002-of-00002__safetensors"
    files = {"config__json": b"{}", one: weights("one", SHARD_BYTES), two: weights("two", SHARD_BYTES)}
    source = write_model(project, "large", **files)
    project.write(manifest_of({"large": source}, {"main": {"url": f"{slow.host}/{prefix}"}}))
    project.applied()
    write_model(project, "large", **{two: weights("another", SHARD_BYTES)})
    before_bytes = slow.sent_bytes

    planned = project.mp("plan", "--detailed-exitcode")
    report = project.mp("plan", "--json").json()

    assert planned.code == CHANGES, planned.text
    assert "download 73.40 MB, reuse 73.40 MB" in planned.out, planned.text
    assert "push at most 73.40 MB, reuse 73.40 MB" in planned.out, planned.text
    assert slow.sent_bytes - before_bytes < OVERHEAD_BYTES
    transfer = report["transfer"]
    before_bytes = slow.sent_bytes
    project.applied()
    assert 0 <= slow.sent_bytes - before_bytes - transfer["push_bytes"] < OVERHEAD_BYTES
    nothing_is_left_to_do(project)


# Interrupted, and not alone


@pytest.fixture
def four(tmp_path: Path, slow: CountingProxy, prefix: str) -> Project:
    """Four models whose pushes wait: two run at once, and are held after the first of their bytes."""
    project = project_of(tmp_path, {}, {})
    names = [f"model-{number}" for number in range(4)]
    sources = {name: write_model(project, name, model__safetensors=weights(name, 4 * MIB)) for name in names}
    project.write(manifest_of(sources, {"main": {"url": f"{slow.host}/{prefix}"}}))
    slow.hold_after_bytes = MIB
    return project


MODELS = [f"model-{number}" for number in range(4)]


@pytest.mark.registry
def test_ctrl_c_finishes_what_has_begun_and_the_next_apply_the_rest(
    four: Project, slow: CountingProxy, registry: RealRegistry, prefix: str
) -> None:
    place = Registry("main", url=f"{registry.host}/{prefix}")
    with started(four, "apply", "--yes") as run:
        assert slow.held.wait(60)
        run.interrupt()
        run.wait_until_it_says("press Ctrl-C again to kill")
        slow.release()
        stopped = run.result()

    assert stopped.code == INTERRUPTED, stopped.text
    rows = {
        line.split()[0]: line.split()[2]
        for line in stopped.out.splitlines()
        if "/weights:main" in line and "create" in line
    }
    assert sorted(rows.values()) == ["applied", "applied", "skipped", "skipped"], stopped.text
    assert "interrupted" in stopped.out
    assert len(whole_images(place)) == 2
    assert "Traceback" not in stopped.text
    four.applied()
    one_image_each(place, MODELS)
    nothing_is_left_to_do(four)


@pytest.mark.registry
def test_ctrl_c_twice_ends_at_once_and_the_next_apply_finishes(
    four: Project, slow: CountingProxy, registry: RealRegistry, prefix: str
) -> None:
    with started(four, "apply", "--yes") as run:
        assert slow.held.wait(60)
        run.interrupt()
        run.wait_until_it_says("press Ctrl-C again to kill")
        began = time.monotonic()
        run.interrupt()
        killed = run.result()
        assert time.monotonic() - began < 2

    assert killed.code == INTERRUPTED, killed.text
    assert "Traceback" not in killed.text
    slow.release()
    four.applied()
    one_image_each(Registry("main", url=f"{registry.host}/{prefix}"), MODELS)
    nothing_is_left_to_do(four)


@pytest.mark.registry
def test_of_two_applies_at_once_one_is_told_to_wait(
    four: Project, slow: CountingProxy, registry: RealRegistry, prefix: str
) -> None:
    with started(four, "apply", "--yes") as first:
        assert slow.held.wait(60)
        second = four.mp("apply", "--yes")
        slow.release()
        done = first.result()

    assert second.code == LOCKED, second.text
    assert "another apply is running" in second.err
    assert done.code == 0, done.text
    one_image_each(Registry("main", url=f"{registry.host}/{prefix}"), MODELS)
    nothing_is_left_to_do(four)


# A models.yaml that is wrong

BROKEN = """\
version: 1
project: acme
defaults: {template: transformer, hardware: cpu}
hardware:
  cpu: {gpus: 0, memory: lots}
targets:
  shelf: {kind: registri}
models:
  tiny:
    source: ftp://acme/tiny
    version: 1.10
    verison: main
    targets: {shelf: {}, box: {}}
  tiny:
    source: ./tiny
"""
MISTAKES = ("3:22", "5:26", "7:17", "10:13", "11:14", "12:5", "13:26", "14:3")


def test_a_broken_manifest_shows_every_mistake_with_its_place_and_changes_nothing(tmp_path: Path) -> None:
    project = project_of(tmp_path, {}, {})
    (project.folder / "models.yaml").write_text(BROKEN)
    before = sorted(tmp_path.rglob("*"))

    for words in (["validate"], ["lock"], ["plan"], ["apply", "--yes"]):
        said = project.mp(*words)

        assert said.code == 1, said.text
        assert "Traceback" not in said.text
        places = [line.split(": ")[0] for line in said.err.splitlines() if line.startswith("models.yaml:")]
        assert places == [f"models.yaml:{place}" for place in MISTAKES], said.text
        assert said.err.splitlines()[-1] == "8 errors"
    assert sorted(tmp_path.rglob("*")) == before
