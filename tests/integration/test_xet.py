"""Files that the Hub keeps in Xet alone: hf_xet's own client on its own store in a folder. The store on the network is not tested."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients.http import Http
from pipeline.clients.hub import Hub
from pipeline.clients.xet import WINDOW_BYTES, Xet
from pipeline.core.errors import BackendError, Corrupt, Denied, Unreachable
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.huggingface import HuggingFaceSource
from tests.fakes.hub import FakeHub, Fault

SPEC = SourceSpec("hf://acme/large", "main")
WHERE = Address("large/artifact")
WEIGHTS = random.Random(3).randbytes(3 << 20)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
XET = Xet(above_bytes=1 << 20, stall_timeout_s=2.0)  # so that three MiB are a large file

# In a process of its own: a store in a folder is open for one process at a time.
STORE = """
import sys
from hf_xet import XetSession
with XetSession().new_upload_commit(endpoint=sys.argv[1]) as commit:
    uploads = [commit.start_upload_file(path) for path in sys.argv[2:]]
print(" ".join(upload.result().xet_info.hash for upload in uploads))
"""


def stored(endpoint: str, *files: Path) -> list[str]:
    argv = [sys.executable, "-c", STORE, endpoint, *map(str, files)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    weights, endpoint = tmp_path / "weights", f"local://{tmp_path}/store"
    weights.write_bytes(WEIGHTS)
    with FakeHub() as running:
        running.tokens.add("hf_reader")
        running.xet_store = endpoint
        running.commit("acme/large", FILES)
        running.repositories["acme/large"].xet["model.safetensors"] = stored(endpoint, weights)[0]
        yield running


def source(hub: FakeHub) -> HuggingFaceSource:
    http = Http(pause=lambda _: None)
    return HuggingFaceSource(Hub(hub.endpoint, "hf_reader", http, pause=lambda _: None, xet=XET))


def read(hub: FakeHub, start: int = 0) -> bytes:
    artifact = source(hub).resolve(SPEC, None)
    with source(hub).open(artifact, artifact.files[1], start) as stream:
        return stream.read()


def test_a_large_file_arrives_verified(hub: FakeHub, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    artifact = source(hub).resolve(SPEC, None)

    cache.add(artifact, source(hub), lambda event: None, WHERE)

    folder = Cache(cache.root).view(artifact.files)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert hub.asked(r"GET /(acme/large/resolve/.*safetensors|lfs)") == []


@pytest.mark.parametrize("start", [1, 1_000_000, len(WEIGHTS) - 1, len(WEIGHTS)])
def test_it_is_read_from_an_offset(hub: FakeHub, start: int) -> None:
    assert read(hub, start) == WEIGHTS[start:]


def test_it_is_read_window_by_window(hub: FakeHub, tmp_path: Path) -> None:
    size_bytes = WINDOW_BYTES + 5
    large = tmp_path / "larger"
    large.write_bytes(random.Random(4).randbytes(1 << 20) * (size_bytes >> 20) + b"12345")
    hub.repositories["acme/large"].xet["model.safetensors"] = stored(hub.xet_store, large)[0]
    artifact = source(hub).resolve(SPEC, None)
    with source(hub).open(artifact, replace(artifact.files[1], size_bytes=size_bytes), 0) as stream:
        assert stream.read() == large.read_bytes()


def test_the_token_goes_to_the_hub_and_not_to_the_store(hub: FakeHub) -> None:
    read(hub)
    (asked,) = hub.asked(r"xet-read-token")
    assert asked.headers["authorization"] == "Bearer hf_reader"


def test_a_key_on_another_host_is_not_asked_for(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = source(hub).resolve(SPEC, None)
    port = hub.port
    monkeypatch.setattr(type(hub), "endpoint", f"http://localhost:{port}")  # what the fake says of itself
    reader = HuggingFaceSource(Hub(f"http://127.0.0.1:{port}", "hf_reader", xet=XET))
    with (
        pytest.raises(BackendError, match=rf"its key at localhost:{port}"),
        reader.open(artifact, artifact.files[1], 0),
    ):
        pass
    assert hub.asked(r"xet-read-token") == []


def test_a_hub_that_has_it_otherwise_serves_it_as_it_does(hub: FakeHub) -> None:
    hub.repositories["acme/large"].xet.clear()
    assert read(hub) == WEIGHTS


def test_other_bytes_are_never_kept(hub: FakeHub, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(WEIGHTS[:-1] + b"!")
    hub.repositories["acme/large"].xet["model.safetensors"] = stored(hub.xet_store, wrong)[0]
    cache = Cache(tmp_path / "cache")
    artifact = source(hub).resolve(SPEC, None)
    with pytest.raises(Corrupt, match=r'"model.safetensors" has sha256'):
        cache.add(artifact, source(hub), lambda event: None, WHERE)
    assert not Cache(cache.root).complete(artifact)


def test_a_stream_that_ends_early_is_unreachable(hub: FakeHub) -> None:
    hub.repositories["acme/large"].xet["model.safetensors"] = "ab" * 32
    with pytest.raises(Unreachable, match="stalled or ended early"):
        read(hub)


def test_a_store_that_never_answers_is_given_up(hub: FakeHub) -> None:
    hub.xet_store = "http://127.0.0.1:1"  # hf_xet tries for many minutes
    with pytest.raises(Unreachable, match=r"Xet|stalled"):
        read(hub)


def test_a_gate_that_closed_is_denied(hub: FakeHub) -> None:
    artifact = source(hub).resolve(SPEC, None)
    hub.repositories["acme/large"].gated = True
    with pytest.raises(Denied, match="may not read"), source(hub).open(artifact, artifact.files[1], 0):
        pass


def test_a_right_to_read_that_is_refused_is_told(hub: FakeHub) -> None:
    hub.faults.append(Fault("xet-read-token", times=99, status=403))
    with pytest.raises((Denied, Unreachable), match="Xet"):
        read(hub)
