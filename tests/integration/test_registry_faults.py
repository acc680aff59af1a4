"""Uploads to a real registry behind a gateway on a bad day: they go on, or end in one error, and no tag is there."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.clients.oci.connection import Connection
from pipeline.clients.oci.limits import Limits
from pipeline.clients.oci.registry import RegistryRepository
from pipeline.core.digest import Digest, digest
from pipeline.core.errors import BackendError, Denied, Unreachable
from tests.parts.faults import MIB, manifest_of, project_of, weights, write_model
from tests.parts.gateway import Cut, Gateway, Refusal, before
from tests.parts.registry import RealRegistry

pytestmark = pytest.mark.registry

SIZE_BYTES = 64 * MIB
CUT_BYTES = SIZE_BYTES * 7 // 10
LAYER = weights("layer", SIZE_BYTES)
DIGEST = digest(LAYER)


@dataclass
class Bench:
    """One repository behind the gateway, and what was read and slept for it."""

    gateway: Gateway
    repository: RegistryRepository
    connection: Connection
    slept: list[float] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)  # the offsets from which the layer was read

    def chunks(self, start: int) -> Iterator[bytes]:
        self.begun.append(start)
        for at in range(start, SIZE_BYTES, MIB):
            yield LAYER[at : at + MIB]

    def push(self, known: bool = False) -> Digest:
        return self.repository.push(DIGEST if known else None, SIZE_BYTES, self.chunks)

    @property
    def cost(self) -> float:
        """Bytes on the wire by the layer's own."""
        return self.gateway.uploaded_bytes / SIZE_BYTES


def bench_of(gateway: Gateway, limits: Limits | None = None) -> Bench:
    slept: list[float] = []
    connection = Connection(gateway.host, {}, sleep=slept.append)
    repository = RegistryRepository(connection, f"{uuid.uuid4().hex}/", "qwen3", limits)
    return Bench(gateway, repository, connection, slept)


@pytest.fixture
def gateway(registry: RealRegistry) -> Iterator[Gateway]:
    with before(registry.host) as started:
        yield started


@pytest.mark.parametrize("known", [True, False], ids=["digest known", "digest found on the way"])
def test_an_upload_that_was_cut_goes_on_with_what_the_registry_lacks(gateway: Gateway, known: bool) -> None:
    bench = bench_of(gateway)
    gateway.faults.cut, gateway.faults.cuts = Cut.KEPT, [CUT_BYTES]

    assert bench.push(known) == DIGEST

    assert bench.repository.keeps(DIGEST, SIZE_BYTES)
    assert bench.cost < 1.01
    assert [bench.begun[0], len(bench.begun)] == [0, 2]
    assert 0 < bench.begun[1] <= CUT_BYTES + MIB


def test_an_upload_that_is_cut_again_and_again_ends_while_it_makes_progress(gateway: Gateway) -> None:
    bench = bench_of(gateway)
    gateway.faults.cut, gateway.faults.cuts = Cut.KEPT, [SIZE_BYTES * part // 10 for part in range(1, 10)]

    assert bench.push() == DIGEST

    assert bench.cost < 1.01
    assert set(bench.slept) == {0.5}


def test_behind_a_gateway_that_forgets_a_broken_request_parts_cost_one_part_at_most(gateway: Gateway) -> None:
    bench = bench_of(gateway, Limits(max_request_bytes=4 * MIB))
    gateway.faults.cut, gateway.faults.cuts = Cut.DROPPED, [CUT_BYTES]

    assert bench.push() == DIGEST

    assert bench.cost < 1.10
    assert len(bench.begun) == 2


@pytest.mark.parametrize("known", [True, False])
def test_an_upload_goes_in_parts_after_a_session_was_lost(gateway: Gateway, known: bool) -> None:
    bench = bench_of(gateway)
    gateway.faults.cut = Cut.DROPPED
    gateway.faults.cuts = [CUT_BYTES, CUT_BYTES + SIZE_BYTES // 2]

    assert bench.push(known) == DIGEST

    assert bench.cost < 0.7 + 1 + 8 / 64 + 0.01  # all of the first request, and one part of the second time


@pytest.mark.parametrize("known", [True, False])
def test_a_registry_that_loses_a_broken_session_gets_the_layer_from_the_start(
    gateway: Gateway, known: bool
) -> None:
    """docker-registry does: the address of a session holds its size, and is no longer right."""
    bench = bench_of(gateway)
    gateway.faults.cuts = [CUT_BYTES]

    assert bench.push(known) == DIGEST

    assert bench.repository.keeps(DIGEST, SIZE_BYTES)
    assert 1.7 <= bench.cost < 1.75


def test_a_line_that_breaks_always_is_one_error_with_numbers_and_nothing_is_there(gateway: Gateway) -> None:
    bench = bench_of(gateway)
    gateway.faults.cuts = [MIB * number for number in range(1, 100)]

    with pytest.raises(
        Unreachable, match=r"the connection broke: 0 of 67,108,864 bytes of a layer arrived, 5 tries"
    ):
        bench.push()

    assert bench.slept == [0.5, 1.0, 2.0, 4.0]
    assert not bench.repository.has(DIGEST)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_an_answer_that_passes_is_waited_for(gateway: Gateway, method: str, status: int) -> None:
    bench = bench_of(gateway)
    gateway.faults.refusals = [Refusal(method, status, {"Retry-After": "7"}), Refusal(method, status)]

    assert bench.push() == DIGEST

    assert bench.slept == [7.0, 1.0]
    assert bench.repository.keeps(DIGEST, SIZE_BYTES)


def test_a_registry_that_wants_to_be_left_alone_for_hours_is_left_alone(gateway: Gateway) -> None:
    bench = bench_of(gateway)
    gateway.faults.refusals = [Refusal("PATCH", 429, {"Retry-After": "7200"})]

    with pytest.raises(Unreachable, match="answers 429") as problem:
        bench.push()

    assert problem.value.hint == "run it again in 7,200 s"
    assert bench.slept == []


@pytest.mark.parametrize("after_body", [True, False], ids=["after it read all", "at once"])
def test_a_server_error_that_stays_is_one_error(gateway: Gateway, after_body: bool) -> None:
    bench = bench_of(gateway)
    gateway.faults.refusals = [Refusal("PATCH", 500, after_body=after_body) for _ in range(100)]

    with pytest.raises(Unreachable):
        bench.push()

    assert not bench.repository.has(DIGEST)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_without_patch_the_digest_is_found_first_and_the_layer_goes_once(
    gateway: Gateway, status: int
) -> None:
    bench = bench_of(gateway)
    gateway.faults.patch = status

    assert bench.push() == DIGEST
    before_bytes = gateway.uploaded_bytes
    assert bench.push() == DIGEST

    assert gateway.uploaded_bytes - before_bytes == SIZE_BYTES  # it is not tried again
    assert [request for request in gateway.requests if request.startswith("PATCH")] == [f"PATCH {SIZE_BYTES}"]
    assert gateway.requests[-1] == f"PUT {SIZE_BYTES}"


def test_a_registry_that_is_known_to_take_no_patch_is_not_asked(gateway: Gateway) -> None:
    bench = bench_of(gateway, Limits(patch=False))

    assert bench.push() == DIGEST

    assert gateway.requests == ["POST", f"PUT {SIZE_BYTES}"]


def test_a_limit_of_requests_that_go_on_holds_only_for_them(gateway: Gateway) -> None:
    """GitHub's registry takes a layer in one request, and goes on with one in small parts alone."""
    bench = bench_of(gateway, Limits(max_part_bytes=4 * MIB))
    gateway.faults.cut, gateway.faults.cuts = Cut.KEPT, [CUT_BYTES]

    assert bench.push() == DIGEST

    parts = [request for request in gateway.requests if request.startswith("PATCH")]
    assert parts[0] == "PATCH a stream"
    assert {part for part in parts[1:-1]} == {f"PATCH {4 * MIB}"}


def test_bytes_are_hashed_once_so_what_is_sent_again_must_be_what_was_hashed(gateway: Gateway) -> None:
    """A digest made anew from what goes out the second time would be the right one of other bytes."""
    bench = bench_of(gateway)
    gateway.faults.cuts = [CUT_BYTES]

    def changing(start: int) -> Iterator[bytes]:
        bench.begun.append(start)
        for at in range(start, SIZE_BYTES, MIB):
            changed = len(bench.begun) > 1 and at < CUT_BYTES - MIB  # what was sent before
            yield bytes(MIB) if changed else LAYER[at : at + MIB]

    with pytest.raises(BackendError, match="not those that were sent"):
        bench.repository.push(None, SIZE_BYTES, changing)

    assert bench.begun == [0, 0]
    assert bench.gateway.uploaded_bytes > SIZE_BYTES * 1.6
    assert not bench.repository.has(DIGEST)


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
def test_a_password_that_is_asked_for_in_the_middle_and_missing_is_one_error(
    gateway: Gateway, method: str
) -> None:
    bench = bench_of(gateway)
    gateway.faults.refusals = [Refusal(method, 401, {"WWW-Authenticate": 'Basic realm="mp"'})]

    with pytest.raises(Denied) as problem:
        bench.push()

    assert problem.value.hint == f"docker login {gateway.host}"
    assert bench.slept == []


def test_a_slow_registry_is_waited_for(gateway: Gateway) -> None:
    gateway.faults.delay_s = 0.3

    assert bench_of(gateway).push() == DIGEST


def test_a_plan_says_which_file_is_too_large_for_its_registry(gateway: Gateway, tmp_path: Path) -> None:
    project = project_of(tmp_path, {}, {})
    source = write_model(project, "big", config__json=b"{}", model__safetensors=weights("big", 70 * MIB))
    where = {"url": f"{gateway.host}/models", "max_layer": "64MiB"}
    project.write(manifest_of({"big": source}, {"main": where}))

    planned = project.mp("plan")

    assert planned.code == 1, planned.text
    said = " ".join(planned.text.split())  # lines are broken where the screen ends
    assert (
        f'"model.safetensors" makes a layer of 73.40 MB, and {gateway.host}/models takes 67.11 MB at most'
        in said
    )
    assert "registries: {main: {max_layer: …}}" in said
    assert gateway.uploaded_bytes == 0


def test_an_apply_goes_on_after_cuts_and_tags_at_the_end(gateway: Gateway, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    project = project_of(tmp_path, {}, {})
    source = write_model(project, "big", config__json=b"{}", model__safetensors=weights("big", 70 * MIB))
    project.write(manifest_of({"big": source}, {"main": {"url": f"{gateway.host}/{name}"}}))
    gateway.faults.cut, gateway.faults.cuts = Cut.KEPT, [50 * MIB]

    applied = project.mp("apply", "--yes")

    assert applied.code == 0, applied.text
    assert gateway.uploaded_bytes < 71 * MIB
    assert project.mp("plan", "--detailed-exitcode").code == 0


def test_an_apply_that_cannot_end_is_one_error_and_no_tag_is_there(gateway: Gateway, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    project = project_of(tmp_path, {}, {})
    source = write_model(project, "big", config__json=b"{}", model__safetensors=weights("big", 70 * MIB))
    registries = {"main": {"url": f"{gateway.host}/{name}"}}
    project.write(manifest_of({"big": source}, registries))
    gateway.faults.refusals = [Refusal("PATCH", 429, {"Retry-After": "100000"}) for _ in range(100)]

    applied = project.mp("apply", "--yes")

    assert applied.code not in (0, 130), applied.text
    assert applied.text.count("hint: run it again in 100,000 s") == 1, applied.text
    connection = Connection(gateway.host, {})
    assert RegistryRepository(connection, f"{name}/", "big.weights").tags() == ()

    gateway.faults.refusals = []
    assert project.mp("apply", "--yes").code == 0
    assert RegistryRepository(connection, f"{name}/", "big.weights").tags() != ()
