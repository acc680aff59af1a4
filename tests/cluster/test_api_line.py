"""Requests to a real API server on a bad day: it is too busy, and the pages of a long list expire while they are read."""

import base64
import json
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.clients import kube
from pipeline.clients.http import Busy
from pipeline.clients.kube import EVENT, Cluster
from tests.fakes.hub import Fault, Request
from tests.parts.cluster import RealCluster
from tests.parts.faulty import Answer, FaultyServer, faulty, forwarding

pytestmark = pytest.mark.cluster

# Events are the one kind that an API server lists from its store, and not from a cache of its own.
LISTS, OBJECTS = "GET .*/events", 7


@dataclass
class Way:
    """A client, the server between it and the real one, and a namespace with some objects."""

    client: Cluster
    server: FaultyServer
    namespace: str

    def names(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.client.list(EVENT, self.namespace, "way=this")]


@pytest.fixture(scope="module")
def namespace(simulated: RealCluster) -> Iterator[str]:
    with simulated.namespace() as name:
        made = [
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"one-{number}", "labels": {"way": "this"}},
                "involvedObject": {"namespace": name},
            }
            for number in range(OBJECTS)
        ]
        listed = {"apiVersion": "v1", "kind": "List", "items": made}
        simulated.kubectl("-n", name, "create", "-f", "-", stdin=json.dumps(listed))
        yield name


@pytest.fixture
def way(simulated: RealCluster, namespace: str, tmp_path: Path) -> Iterator[Way]:
    config = json.loads(simulated.kubectl("config", "view", "--raw", "-o", "json"))
    there = config["clusters"][0]["cluster"]
    authority = base64.b64decode(there["certificate-authority-data"]).decode()
    answering = forwarding(there["server"], ssl.create_default_context(cadata=authority))
    with faulty(answering) as server:
        config["clusters"][0]["cluster"] = {"server": server.url}
        file = tmp_path / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(config))
        yield Way(Cluster(None, {"KUBECONFIG": str(file)}), server, namespace)


def test_server_that_is_busy_is_asked_again_when_it_says(way: Way) -> None:
    way.server.faults.append(Fault(LISTS, times=2, status=429, headers={"Retry-After": "1"}))
    way.server.faults.append(Fault(LISTS, times=1, status=503, headers={"Retry-After": "0"}))
    began = time.monotonic()
    assert len(way.names()) == OBJECTS
    assert time.monotonic() - began >= 2
    assert len(way.server.asked(LISTS)) == 4


def test_server_that_stays_busy_ends_in_words(way: Way) -> None:
    way.server.faults.append(Fault(LISTS, times=99, status=429, headers={"Retry-After": "0"}))
    with pytest.raises(Busy, match="status 429 for GET") as problem:
        way.names()
    assert problem.value.hint == "run it again in 0 s"
    assert len(way.server.asked(LISTS)) < 20


def test_server_that_asks_for_minutes_is_not_waited_for(way: Way) -> None:
    way.server.faults.append(Fault(LISTS, times=99, status=429, headers={"Retry-After": "600"}))
    with pytest.raises(Busy) as problem:
        way.names()
    assert problem.value.hint == "run it again in 600 s"
    assert len(way.server.asked(LISTS)) == 1


def test_list_is_read_in_pages(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "PAGE", 3)
    assert way.names() == [f"one-{number}" for number in range(OBJECTS)]
    assert len(way.server.asked(LISTS)) == 3


def test_list_whose_pages_expire_begins_anew_and_is_whole(
    way: Way, simulated: RealCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pages the server's store throws its history away: the server's own answer is 410 Gone."""
    monkeypatch.setattr(kube, "PAGE", 3)
    forward, seen = way.server.answering, list[int]()

    def late(request: Request, body: bytes) -> Answer:
        if "continue=" in request.path and not seen:
            simulated.kubectl("-n", way.namespace, "label", "event", "one-0", "seen=yes")
            forget_history(simulated)
        answer = forward(request, body)
        seen.extend([answer.status] if "continue=" in request.path else [])
        return answer

    way.server.answering = late
    assert way.names() == [f"one-{number}" for number in range(OBJECTS)]
    assert seen == [410, 200, 200]
    assert len(way.server.asked(LISTS)) == 5  # two of the first list, three of the second


def forget_history(cluster: RealCluster) -> None:
    """What the API server does every five minutes: the store keeps no revision but the present one."""
    pid = (cluster.folder / "pids" / "etcd").read_text().strip()
    words = Path("/proc", pid, "cmdline").read_text().split("\0")
    (address,) = (word.partition("=")[2] for word in words if word.startswith("--listen-client-urls="))
    present = _etcd(address, "kv/range", key=base64.b64encode(b"nothing").decode())["header"]["revision"]
    _etcd(address, "kv/compaction", revision=present, physical=True)


def _etcd(address: str, what: str, **asked: object) -> dict[str, dict[str, str]]:
    request = urllib.request.Request(f"{address}/v3/{what}", json.dumps(asked).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, dict[str, str]] = json.load(answer)
    return found
