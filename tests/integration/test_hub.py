"""The Hub, the source and the cache together over real sockets: every fault ends in the right bytes or a clear error."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from pipeline.clients.http import Http
from pipeline.clients.hub import Hub
from pipeline.core.errors import (
    BackendError,
    Corrupt,
    Denied,
    Exhausted,
    Missing,
    MpError,
    Refused,
    Unreachable,
)
from pipeline.core.model import Artifact, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.huggingface import HuggingFaceSource
from tests.fakes.hub import FakeHub, Fault

WHERE = Address("tiny/artifact")
SPEC = SourceSpec("hf://acme/tiny", "main")
WEIGHTS = random.Random(1).randbytes(3 << 20)
FILES = {"config.json": b'{"num_hidden_layers": 2}', "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
BLOB = r"GET /lfs/"


def silent(event: Event) -> None:
    pass


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.tokens |= {"hf_reader", "hf_stranger"}
        running.commit("acme/tiny", FILES)
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def source(
    hub: FakeHub, token: str | Literal[False] = "hf_reader", stall_timeout_s: float = 60.0
) -> HuggingFaceSource:
    http = Http(stall_timeout_s=stall_timeout_s, pause=lambda _: None)
    return HuggingFaceSource(Hub(hub.endpoint, token, http, pause=lambda _: None))


def fetch(hub: FakeHub, cache: Cache) -> Artifact:
    artifact = source(hub).resolve(SPEC, None)
    cache.add(artifact, source(hub), silent, WHERE)
    return artifact


def assert_right(cache: Cache, artifact: Artifact) -> None:
    folder = Cache(cache.root).view(artifact.files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_model_arrives_whole(hub: FakeHub, cache: Cache) -> None:
    assert_right(cache, fetch(hub, cache))


def test_branch_tag_and_commit_give_the_same_pin(hub: FakeHub) -> None:
    repository = hub.repositories["acme/tiny"]
    commit = repository.branches["main"]
    repository.tags["v1"] = commit
    pins = {source(hub).resolve(replace(SPEC, version=name), None).pin for name in ("main", "v1", commit)}
    assert pins == {commit}


def test_branch_with_a_slash_is_found(hub: FakeHub) -> None:
    commit = hub.commit("acme/tiny", FILES | {"extra.json": b"1"}, branch="release/1.0")
    assert source(hub).resolve(replace(SPEC, version="release/1.0"), None).pin == commit


def test_moved_branch_is_a_new_pin(hub: FakeHub) -> None:
    known = source(hub).resolve(SPEC, None)
    moved = hub.commit("acme/tiny", FILES | {"tokenizer.json": b"[]"})
    assert source(hub).resolve(SPEC, known).pin == moved


def test_each_commit_has_the_date_it_was_made_at(hub: FakeHub) -> None:
    first = hub.repositories["acme/tiny"].branches["main"]
    hub.commit("acme/tiny", FILES | {"tokenizer.json": b"[]"})
    found = [source(hub).resolve(replace(SPEC, version=name), None).facts.created for name in ("main", first)]
    assert found == ["2026-01-02T10:57:45Z", "2026-01-01T10:57:45Z"]


def test_mirror_that_tells_no_dates_is_a_source_all_the_same(hub: FakeHub) -> None:
    hub.faults.append(Fault("/commits/", status=404))
    assert source(hub).resolve(SPEC, None).facts.created is None


def test_hub_that_is_away_when_the_date_is_asked_for_pins_nothing(hub: FakeHub) -> None:
    hub.faults.append(Fault("/commits/", status=503, times=99))
    with pytest.raises(Unreachable):
        source(hub).resolve(SPEC, None)


def test_wider_filter_is_noticed_although_the_commit_is_known(hub: FakeHub) -> None:
    pinned = replace(SPEC, version=hub.repositories["acme/tiny"].branches["main"])
    known = source(hub).resolve(replace(pinned, filter=Filter(("*.safetensors",))), None)
    assert len(source(hub).resolve(pinned, known).files) == 3


def test_branch_that_did_not_move_costs_one_request(hub: FakeHub) -> None:
    known = source(hub).resolve(SPEC, None)
    hub.log.clear()
    assert source(hub).resolve(SPEC, known) == known
    assert len(hub.log) == 1


def test_a_commit_that_is_known_costs_no_request(hub: FakeHub) -> None:
    pinned = replace(SPEC, version=hub.repositories["acme/tiny"].branches["main"])
    known = source(hub).resolve(pinned, None)
    hub.log.clear()
    assert source(hub).resolve(pinned, known) == known
    assert hub.log == []


def test_a_gate_that_opened_is_noticed_beside_a_known_commit(hub: FakeHub) -> None:
    repository = hub.repositories["acme/tiny"]
    repository.gated, repository.readers = True, {"hf_reader"}
    known = source(hub).resolve(SPEC, None)
    repository.gated = False
    assert (known.facts.gated, source(hub).resolve(SPEC, known).facts.gated) == (True, False)


def test_a_server_that_answers_for_another_commit_is_not_believed(hub: FakeHub) -> None:
    repository = hub.repositories["acme/tiny"]
    commit = repository.branches["main"]
    repository.branches["0" * 40] = commit
    with pytest.raises(Corrupt, match=f"answered for commit {commit[:12]}, not 000000000000"):
        source(hub).resolve(replace(SPEC, version="0" * 40), None)


def test_code_that_a_config_in_lfs_names_is_found(hub: FakeHub) -> None:
    config = b'{"auto_map": {"AutoModel": "modeling_acme.Model"}}'
    hub.commit("acme/tiny", FILES | {"big_config.json": config})
    with pytest.raises(Refused, match=r'"big_config.json" has auto_map'):
        source(hub).resolve(SPEC, None)


def test_a_version_to_write_is_named_where_code_is_allowed(hub: FakeHub) -> None:
    commit = hub.commit("acme/tiny", FILES | {"modeling_acme.py": b"pass"})
    allowed = Filter(allow=(("modeling_acme.py", hashlib.sha256(b"pass").hexdigest()),))
    with pytest.raises(Refused, match='version "main" can move') as raised:
        source(hub).resolve(replace(SPEC, filter=allowed), None)
    assert raised.value.hint == f"write version: {commit}"
    assert len(source(hub).resolve(replace(SPEC, filter=allowed, version=commit), None).files) == 4


def test_weights_are_not_read_to_resolve(hub: FakeHub) -> None:
    source(hub).resolve(SPEC, None)
    assert hub.asked(r"safetensors") == []
    assert hub.asked(BLOB) == []


def test_complete_artifact_asks_nothing(hub: FakeHub, cache: Cache) -> None:
    artifact = fetch(hub, cache)
    hub.log.clear()
    again = Cache(cache.root)
    assert again.complete(artifact)
    again.add(artifact, source(hub), silent, WHERE)
    assert hub.log == []


def test_token_stays_with_its_host(hub: FakeHub, cache: Cache) -> None:
    fetch(hub, cache)
    blobs = hub.asked(BLOB)
    assert blobs
    assert all("authorization" not in each.headers and each.host.startswith("localhost") for each in blobs)
    assert all(each.headers["authorization"] == "Bearer hf_reader" for each in hub.asked(r"/(api|acme)/"))


def test_secrets_are_not_logged(hub: FakeHub, cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="pipeline")
    fetch(hub, cache)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]
    assert any("/lfs/" in line for line in lines)
    assert not any("signed-secret" in line or "hf_reader" in line for line in lines)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(BLOB, cut_after_bytes=0), None),
        (Fault(BLOB, cut_after_bytes=2_000_000), None),
        (Fault(BLOB, cut_after_bytes=len(WEIGHTS) - 1), None),
        (Fault(BLOB, status=429), None),
        (Fault(BLOB, status=500), None),
        (Fault(BLOB, status=503), None),
        (Fault(BLOB, times=99, status=403), "may not read"),
        (Fault(BLOB, times=99, status=404), "any more"),
        (Fault(BLOB, times=99, status=500), "status 500"),
        (Fault(BLOB, times=99, corrupt_at=2_500_000), "has sha256"),
        (Fault(BLOB, times=99, resized_to=3_000_000), "bytes"),
        (Fault(BLOB, times=99, resized_to=4_000_000), "bytes"),
        (Fault(r"GET /acme/tiny/resolve/.*safetensors", status=503), None),
        (Fault(r"GET /acme/tiny/resolve/.*safetensors", times=99, status=403), "may not read"),
        (Fault(r"GET /acme/tiny/resolve/.*safetensors", times=99, status=404), "any more"),
    ],
    ids=str,
)
def test_every_fault_ends_in_the_right_bytes_or_a_clear_error(
    hub: FakeHub, cache: Cache, fault: Fault, says: str | None
) -> None:
    artifact = source(hub).resolve(SPEC, None)
    hub.faults.append(replace(fault))
    quick = Cache(cache.root, pause=lambda _: None)
    if says is None:
        quick.add(artifact, source(hub), silent, WHERE)
    else:
        with pytest.raises(BackendError, match=says) as raised:
            quick.add(artifact, source(hub), silent, WHERE)
        assert raised.value.hint
        assert not Cache(cache.root).complete(artifact)
        assert not cache.blob(artifact.files[1].sha256).exists()
    hub.faults.clear()
    assert_right(cache, fetch(hub, cache))


def moves_on(hub: FakeHub) -> None:
    hub.commit("acme/tiny", {name: b"{}" for name in FILES})


def is_renamed(hub: FakeHub) -> None:
    hub.repositories["acme/small"] = hub.repositories.pop("acme/tiny")
    hub.moved["acme/tiny"] = "acme/small"


def is_deleted(hub: FakeHub) -> None:
    del hub.repositories["acme/tiny"]


def is_rewritten(hub: FakeHub) -> None:
    hub.repositories["acme/tiny"].commits.clear()


def is_made_private(hub: FakeHub) -> None:
    hub.repositories["acme/tiny"].private = True


def is_gated(hub: FakeHub) -> None:
    hub.repositories["acme/tiny"].gated = True


@pytest.mark.parametrize("happens", [moves_on, is_renamed])
def test_what_was_locked_arrives_although_the_repository(
    hub: FakeHub, cache: Cache, happens: Callable[[FakeHub], None]
) -> None:
    artifact = source(hub).resolve(SPEC, None)
    happens(hub)
    cache.add(artifact, source(hub), silent, WHERE)
    assert_right(cache, artifact)


@pytest.mark.parametrize(
    ("happens", "kind", "says"),
    [
        (is_deleted, Missing, "any more"),
        (is_rewritten, Missing, "any more"),
        (is_made_private, Missing, "any more"),
        (is_gated, Denied, "may not read"),
    ],
)
def test_what_was_locked_is_told_to_be_gone_when_the_repository(
    hub: FakeHub,
    cache: Cache,
    happens: Callable[[FakeHub], None],
    kind: type[BackendError],
    says: str,
) -> None:
    artifact = source(hub).resolve(SPEC, None)
    happens(hub)
    with pytest.raises(kind, match=says) as raised:
        cache.add(artifact, source(hub), silent, WHERE)
    assert raised.value.hint
    assert not Cache(cache.root).complete(artifact)


def test_a_renamed_repository_is_resolved_under_its_old_name(hub: FakeHub) -> None:
    before = source(hub).resolve(SPEC, None)
    is_renamed(hub)
    assert source(hub).resolve(SPEC, None) == before


def test_flipped_byte_is_refused_and_leaves_nothing(hub: FakeHub, cache: Cache) -> None:
    hub.faults.append(Fault(BLOB, corrupt_at=1 << 20))

    with pytest.raises(Corrupt, match=r'"model.safetensors" has sha256') as raised:
        fetch(hub, cache)

    assert raised.value.hint
    artifact = source(hub).resolve(SPEC, None)
    assert not cache.complete(artifact)
    assert not cache.blob(artifact.files[1].sha256).exists()
    assert list((cache.root / "partial").iterdir()) == []
    assert_right(cache, fetch(hub, cache))


def test_flipped_byte_of_a_small_file_is_refused_while_resolving(hub: FakeHub) -> None:
    hub.faults.append(Fault(r"resolve/.*/config.json", corrupt_at=3))
    with pytest.raises(Corrupt, match=r'"config.json".*is not what the Hub lists'):
        source(hub).resolve(SPEC, None)


def test_cut_connection_resumes_with_a_range(hub: FakeHub, cache: Cache) -> None:
    hub.faults.append(Fault(BLOB, cut_after_bytes=2_000_000))

    assert_right(cache, fetch(hub, cache))

    assert [each.headers.get("range") for each in hub.asked(BLOB)] == [None, "bytes=2000000-"]


def test_server_that_knows_no_ranges_still_ends_right(hub: FakeHub, cache: Cache) -> None:
    hub.faults += [Fault(BLOB, cut_after_bytes=2_000_000), Fault(BLOB, ignore_range=True)]
    assert_right(cache, fetch(hub, cache))


def test_stalled_connection_is_given_up_and_taken_up_again(hub: FakeHub, cache: Cache) -> None:
    hub.faults.append(Fault(BLOB, stall_s=5.0))
    artifact = source(hub).resolve(SPEC, None)

    cache.add(artifact, source(hub, stall_timeout_s=0.3), silent, WHERE)

    assert_right(cache, artifact)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("pattern", [BLOB, r"GET /api/models", r"resolve/.*/config.json"])
def test_busy_server_is_asked_again(hub: FakeHub, cache: Cache, status: int, pattern: str) -> None:
    hub.faults.append(Fault(pattern, times=2, status=status, headers={"Retry-After": "0"}))
    assert_right(cache, fetch(hub, cache))


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55.0),
        ({"RateLimit": '"resolvers";r=0;t=290', "Retry-After": "3"}, 3.0),
        ({}, 0.5),
    ],
)
@pytest.mark.parametrize("pattern", [r"GET /api/models", BLOB])
def test_rate_limits_are_waited_for(
    hub: FakeHub, pattern: str, headers: dict[str, str], wait_s: float
) -> None:
    hub.faults.append(Fault(pattern, status=429, headers=headers))
    waits: list[float] = []
    patient = HuggingFaceSource(Hub(hub.endpoint, "hf_reader", Http(pause=waits.append), waits.append))
    artifact = patient.resolve(SPEC, None)
    with patient.open(artifact, artifact.files[1], 0) as stream:
        assert stream.read() == WEIGHTS
    assert waits == [wait_s]


def test_a_limit_that_is_too_far_away_is_told_at_once(hub: FakeHub) -> None:
    hub.faults.append(Fault(r"GET /api/models", status=429, headers={"Retry-After": "86400"}))
    waits: list[float] = []
    with pytest.raises(Unreachable, match="status 429") as raised:
        HuggingFaceSource(Hub(hub.endpoint, "hf_reader", pause=waits.append)).resolve(SPEC, None)
    assert waits == []
    assert raised.value.hint == "run it again in 86,400 s"


def test_server_that_stays_broken_is_unreachable_and_no_old_answer_is_used(
    hub: FakeHub, cache: Cache
) -> None:
    known = fetch(hub, cache)
    hub.faults.append(Fault(r"GET /api/models", times=99, status=500))
    with pytest.raises(Unreachable, match="status 500"):
        source(hub).resolve(SPEC, known)


def test_nobody_there_is_unreachable() -> None:
    with FakeHub() as gone:
        endpoint = gone.endpoint
    with pytest.raises(Unreachable, match=r"hub 127\.0\.0\.1"):
        HuggingFaceSource(Hub(endpoint, "hf_x", pause=lambda _: None)).resolve(SPEC, None)


@pytest.mark.parametrize("token", ["hf_stranger", False])
def test_gated_repository_is_denied_with_the_way_in(hub: FakeHub, token: str | Literal[False]) -> None:
    hub.repositories["acme/tiny"].gated = True
    hub.repositories["acme/tiny"].readers.add("hf_reader")
    assert source(hub).resolve(SPEC, None).facts.gated is True
    with pytest.raises(Denied, match="may not read") as raised:
        source(hub, token).resolve(SPEC, None)
    assert raised.value.hint is not None
    assert f"{hub.endpoint}/acme/tiny" in raised.value.hint


def test_the_password_of_a_mirror_is_in_no_message(hub: FakeHub) -> None:
    hub.faults.append(Fault("/api/models/", 99, status=403))
    mirror = hub.endpoint.replace("://", "://user:s3cret@")
    reader = HuggingFaceSource(Hub(mirror, False, pause=lambda seconds: None))
    with pytest.raises(MpError) as raised:
        reader.resolve(SPEC, None)
    assert "s3cret" not in f"{raised.value.message} {raised.value.hint}"
    assert f"{hub.endpoint}/acme/tiny" in str(raised.value.hint)


def test_gate_that_closes_after_the_lock_is_denied(hub: FakeHub, cache: Cache) -> None:
    artifact = source(hub).resolve(SPEC, None)
    hub.repositories["acme/tiny"].gated = True
    with pytest.raises(Denied, match=r'may not read "[a-z.]+" of "acme/tiny"'):
        cache.add(artifact, source(hub), silent, WHERE)


def test_token_from_a_file_with_a_newline_is_understood(hub: FakeHub) -> None:
    assert source(hub, "hf_reader\n").resolve(SPEC, None).pin


RESOLVE = """
import sys
from pipeline.clients.hub import Hub
from pipeline.core.protocols import SourceSpec
from pipeline.sources.huggingface import HuggingFaceSource
print(HuggingFaceSource(Hub(sys.argv[1])).resolve(SourceSpec("hf://acme/tiny", "main"), None).pin)
"""


@pytest.mark.parametrize("place", ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME"])
def test_the_token_is_found_where_people_have_it(hub: FakeHub, tmp_path: Path, place: str) -> None:
    """In the environment, in a file it names, in the file that `hf auth login` writes."""
    repository = hub.repositories["acme/tiny"]
    repository.private, repository.readers = True, {"hf_reader"}
    (tmp_path / "token").write_text("hf_reader\n")
    values = {"HF_TOKEN": "hf_reader", "HF_TOKEN_PATH": str(tmp_path / "token"), "HF_HOME": str(tmp_path)}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", RESOLVE, hub.endpoint],
        cwd=root,
        capture_output=True,
        text=True,
        env={**environ, "PYTHONPATH": str(root), place: values[place]},
    )
    assert found.stdout.strip() == repository.branches["main"], found.stderr


@pytest.mark.parametrize("token", ["hf_stranger", False])
def test_a_private_repository_is_missing_for_others_with_the_way_in(
    hub: FakeHub, token: str | Literal[False]
) -> None:
    repository = hub.repositories["acme/tiny"]
    repository.private, repository.readers = True, {"hf_reader"}
    assert source(hub).resolve(SPEC, None).pin
    with pytest.raises(Missing, match='no repository "acme/tiny"') as raised:
        source(hub, token).resolve(SPEC, None)
    assert raised.value.hint is not None
    assert "HF_TOKEN or hf auth login" in raised.value.hint


def test_unknown_token_is_denied_and_another_is_asked_for(hub: FakeHub) -> None:
    with pytest.raises(Denied, match="Invalid credentials") as raised:
        source(hub, "hf_expired").resolve(SPEC, None)
    assert raised.value.hint == "check HF_TOKEN, or run hf auth login again"


@pytest.mark.parametrize("token", ["hf_secrét", "hf_secr\net", "“hf_secret”"])
def test_a_token_that_cannot_be_sent_is_told_without_showing_it(hub: FakeHub, token: str) -> None:
    commit = hub.repositories["acme/tiny"].branches["main"]
    for work in (
        lambda: source(hub, token).resolve(SPEC, None),
        lambda: Hub(hub.endpoint, token).open("acme/tiny", commit, "config.json", 0).__enter__(),
    ):
        with pytest.raises(Denied, match="no token has") as raised:
            work()
        assert "secr" not in f"{raised.value.message} {raised.value.hint}"
        assert raised.value.hint == "check HF_TOKEN, or run hf auth login again"
    assert not hub.asked()


def test_unknown_repository_is_missing(hub: FakeHub) -> None:
    with pytest.raises(Missing, match='no repository "acme/huge"'):
        source(hub).resolve(replace(SPEC, reference="hf://acme/huge"), None)


def test_unknown_version_is_missing_and_the_known_ones_are_listed(hub: FakeHub) -> None:
    hub.repositories["acme/tiny"].tags["v1"] = hub.repositories["acme/tiny"].branches["main"]
    with pytest.raises(Missing, match="no such version") as raised:
        source(hub).resolve(replace(SPEC, version="v9"), None)
    assert raised.value.hint == "it has main, v1, and its commits"


def test_file_that_was_removed_is_missing_and_names_the_repository(hub: FakeHub, cache: Cache) -> None:
    artifact = source(hub).resolve(SPEC, None)
    del hub.repositories["acme/tiny"].commits[artifact.pin]["model.safetensors"]
    with pytest.raises(Missing, match=r'"acme/tiny" has no "model.safetensors" any more'):
        cache.add(artifact, source(hub), silent, WHERE)


def test_facts_tell_licence_and_gate(hub: FakeHub) -> None:
    hub.repositories["acme/tiny"].license = "apache-2.0"
    facts = source(hub).resolve(SPEC, None).facts
    assert (facts.license, facts.gated, facts.layers) == ("apache-2.0", False, 2)


@pytest.mark.parametrize(
    ("license", "name", "told"),
    [("mit", None, "mit"), (["mit", "gpl-3.0"], None, "mit, gpl-3.0"), ("other", "llama3.1", "llama3.1")],
)
def test_licences_are_told_as_the_card_has_them(
    hub: FakeHub, license: str | list[str], name: str | None, told: str
) -> None:
    repository = hub.repositories["acme/tiny"]
    repository.license, repository.license_name = license, name
    assert source(hub).resolve(SPEC, None).facts.license == told


def test_the_fake_satisfies_the_real_client(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    commit = hub.repositories["acme/tiny"].branches["main"]
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    api = HfApi(endpoint=hub.endpoint, token="hf_reader")
    for revision in ("main", commit):
        folder = Path(api.snapshot_download("acme/tiny", revision=revision, cache_dir=tmp_path / "hf"))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
        assert folder.name == commit
    assert [entry.path for entry in api.list_repo_tree("acme/tiny")] == sorted(FILES)


PULL = """
import sys
from pathlib import Path
from pipeline.clients.hub import Hub
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.huggingface import HuggingFaceSource
source = HuggingFaceSource(Hub(sys.argv[1], "hf_reader"))
artifact = source.resolve(SourceSpec("hf://acme/big", "main"), None)
print("begun", flush=True)
Cache(Path(sys.argv[2])).add(artifact, source, lambda event: None, Address("big/artifact"))
"""


def pulling(hub: FakeHub, cache: Cache) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-c", PULL, hub.endpoint, str(cache.root)]
    return subprocess.Popen(
        argv, cwd=root, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    )


def test_killed_at_any_moment_the_next_run_finishes(hub: FakeHub, cache: Cache) -> None:
    chance = random.Random(7)
    big = {f"model-{number}.safetensors": chance.randbytes(8 << 20) for number in range(6)}
    hub.commit("acme/big", big)
    artifact = source(hub).resolve(SourceSpec("hf://acme/big", "main"), None)
    for delay_s in (0.0, 0.01, 0.03, 0.06, 0.1):
        process = pulling(hub, cache)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for blob in (cache.root / "blobs").rglob("*/*"):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        if Cache(cache.root).complete(artifact):
            break

    assert pulling(hub, cache).wait(60) == 0

    assert Cache(cache.root).complete(artifact)
    folder = Cache(cache.root).view(artifact.files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == big
    assert list((cache.root / "partial").iterdir()) == []


def test_processes_that_pull_the_same_all_end_complete(hub: FakeHub, cache: Cache) -> None:
    hub.commit("acme/big", {f"model-{number}.safetensors": WEIGHTS + bytes([number]) for number in range(4)})
    artifact = source(hub).resolve(SourceSpec("hf://acme/big", "main"), None)

    processes = [pulling(hub, cache) for _ in range(4)]

    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    for process in processes:
        process.communicate()
    assert Cache(cache.root).complete(artifact)
    assert Cache(cache.root).view(artifact.files).is_dir()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine may not mount a tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk_is_told_before_anything_is_fetched(hub: FakeHub, small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(6 << 20))
    artifact = source(hub).resolve(SPEC, None)
    hub.log.clear()

    with pytest.raises(Exhausted, match=r"3,145,\d+ bytes are needed and [\d,]+ are free") as raised:
        Cache(small_disk / "cache").add(artifact, source(hub), silent, WHERE)

    assert str(small_disk) in raised.value.message
    assert hub.log == []


def test_disk_that_fills_during_the_download_leaves_no_wrong_entry(hub: FakeHub, small_disk: Path) -> None:
    cache, ballast = Cache(small_disk / "cache"), small_disk / "ballast"
    artifact = source(hub).resolve(SPEC, None)

    def fill(event: Event) -> None:
        if not ballast.exists():
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(1 << 16)):
                        pass
                except OSError:
                    pass

    with pytest.raises(Exhausted, match="is full"):
        cache.add(artifact, source(hub), fill, WHERE)
    assert not Cache(cache.root).complete(artifact)

    ballast.unlink()
    cache.add(artifact, source(hub), silent, WHERE)
    assert_right(cache, artifact)


def test_every_error_says_what_to_do(hub: FakeHub, cache: Cache) -> None:
    artifact = source(hub).resolve(SPEC, None)
    hub.faults.append(Fault(BLOB, times=99, cut_after_bytes=0))
    with pytest.raises(MpError) as raised:
        Cache(cache.root, pause=lambda _: None).add(artifact, source(hub), silent, WHERE)
    assert raised.value.hint == "check the network and the address, then run it again"
