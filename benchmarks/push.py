"""From verified weights to an image in a registry: 4 shards of 1 GiB, `mp apply` as a whole process beside the other tools.

One docker-registry on loopback, storage on disk, emptied before every push that is a first one. The weights are in mp's
cache already, as they are in the other tools' folders. "digests known" is a first push into an empty registry by a machine
that pushed the same layers before; "limit" sends the same bytes by two plain HTTP connections that hash nothing, to the
same registry: what it takes to receive, hash and write is what nobody can be faster than.

Tools that copy an OCI layout need one: making it (by mp, into a folder) counts as their first push, and what they take
where it is there already is told beside it.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Sample, environ, measure, median, result, say
from benchmarks.pushers import FromLayout, Pusher, dockers, pushers
from benchmarks.yard import MIB, Layouts, Project, Yard, made_weights
from tests.parts.registry import RealRegistry, running_registry

GOAL = (
    "of_docker >= 11, of_crane > 1, of_skopeo > 1, of_known <= 1.15, weight_bytes_written == 0, extra_peak_mb < 60, "
    "same_s < 0.5 and no body, code_s < 1, of_one_shard <= 1.15"
)
LIMITED = ("limit", "first")
SCENARIOS = ("first", "same", "code", "shard")
OWN_WRITES_BYTES = 4 * MIB  # lock, inventory, remembered layers: what is written besides weights

LIMIT = """
import http.client, os, sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit
host, *files = sys.argv[1:]
def work(path):
    name, _, sha256 = path.rpartition("=")
    connection = http.client.HTTPConnection(host, blocksize=1 << 20)
    connection.request("POST", "/v2/bench/limit/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    url = urlsplit(answer.headers["location"])
    headers = {"Content-Length": str(os.path.getsize(name)), "Content-Type": "application/octet-stream"}
    with open(name, "rb") as body:
        connection.request("PUT", f"{url.path}?{url.query}&digest=sha256:{sha256}", body, headers)
        assert connection.getresponse().status == 201
with ThreadPoolExecutor(2) as pool:
    list(pool.map(work, files))
"""


@dataclass
class Figures:
    """Samples by contender and scenario."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    body_requests: int = 0  # that mp made when all was there

    def add(self, who: str, scenario: str, sample: Sample) -> None:
        self.samples.setdefault((who, scenario), []).append(sample)
        say(f"{who}: {scenario}", sample)

    def of(self, who: str, scenario: str) -> Sample | None:
        found = self.samples.get((who, scenario))
        return median(found) if found else None

    def ratio(self, above: tuple[str, str], below: tuple[str, str]) -> float | None:
        one, other = self.of(*above), self.of(*below)
        return round(one.wall_s / other.wall_s, 2) if one and other else None


def ours(yard: Yard, big: Project, figures: Figures, runs: int, others: Callable[[], None]) -> None:
    """First pushes by turns with everybody who is as quick; then what comes after one."""
    hashes = _hashes(yard.weights.first)
    big.apply()  # the first round finds digests that may be known
    for _ in range(runs):
        for scenario in ("first", "digests known", "digests known", "first"):  # a drift cancels out
            _first(yard, big, figures, scenario)
        yard.empty(yard.weights.first)
        figures.add(*LIMITED, _limit(yard, hashes))
        others()
    yard.empty()
    big.forget(layers=False)
    big.apply()
    _again(yard, big, figures)
    _one_shard(yard, big, figures, runs)


def _first(yard: Yard, big: Project, figures: Figures, scenario: str = "first") -> None:
    """Into an empty registry, with the layers' digests known from before or not."""
    yard.empty(yard.cache)
    big.forget(layers=scenario == "first")
    figures.add("mp", scenario, big.apply())


def _again(yard: Yard, big: Project, figures: Figures) -> None:
    before = len(_bodies(yard.registry))
    for _ in range(5):
        figures.add("mp", "same", big.apply())
        figures.add("mp", "plan", big.run("plan", "--detailed-exitcode"))
    figures.body_requests = len(_bodies(yard.registry)) - before
    for number in range(3):
        big.chat(f"{number}: {{{{ messages }}}}")
        figures.add("mp", "code", big.apply())


def _one_shard(yard: Yard, big: Project, figures: Figures, runs: int) -> None:
    """One shard of four, by turns with the same shard as a model of its own."""
    changed = yard.project("big-changed", yard.weights.changed)
    alone = yard.folder / "alone"
    alone.mkdir()
    shard = sorted(yard.weights.changed.iterdir())[-1]
    os.link(shard, alone / "model.safetensors")
    single = yard.project("single", alone, model="single")
    big.apply()
    remembered = (yard.cache / "layers").read_bytes()
    for _ in range(runs):
        (yard.cache / "layers").write_bytes(remembered)
        yard.empty(yard.cache)
        big.forget(layers=False)
        big.apply()
        changed.forget(layers=False)
        shutil.copytree(big.folder / ".mp", changed.folder / ".mp")
        os.sync()
        figures.add("mp", "shard", changed.apply())
        yard.empty(yard.cache)
        single.forget(layers=False)
        figures.add("mp", "that shard alone", single.apply())


def _bodies(registry: RealRegistry) -> list[str]:
    return [one for one in registry.requests() if one.startswith(("POST", "PATCH", "PUT"))]


def _limit(yard: Yard, hashes: Mapping[Path, str]) -> Sample:
    files = [f"{path}={sha256}" for path, sha256 in hashes.items()]
    return measure([sys.executable, "-c", LIMIT, yard.registry.host, *files], yard.folder, environ())


def _hashes(folder: Path) -> dict[Path, str]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def theirs(yard: Yard, pusher: Pusher, figures: Figures, scenarios: Iterable[str]) -> None:
    """A contender through the scenarios; the registry is empty before and after."""
    yard.empty(yard.weights.first)
    weights, text = yard.weights.first, ""
    try:
        for scenario in scenarios:
            match scenario:
                case "code":
                    text = "{{ messages }}"
                case "shard":
                    weights = yard.weights.changed
            figures.add(pusher.name, scenario, pusher.push(weights, text))
            if scenario == "first" and isinstance(pusher, FromLayout):
                yard.empty()
                figures.add(pusher.name, "layout there already", pusher.push(weights, text))
    finally:
        pusher.clean()
        yard.empty()


def sha256_bytes_per_s() -> float:
    """Of one thread, by its own time: what other processes take is not counted."""
    block = os.urandom(MIB)
    speeds = []
    for _ in range(3):
        digest, begun = hashlib.sha256(), time.thread_time()
        for _ in range(256):
            digest.update(block)
        speeds.append(256 * MIB / (time.thread_time() - begun))
    return statistics.median(speeds)


def _tell(figures: Figures, size_bytes: int) -> None:
    first, known, limit = (figures.of(*each) for each in (("mp", "first"), ("mp", "digests known"), LIMITED))
    same, code, plan = (figures.of("mp", each) for each in ("same", "code", "plan"))
    alone = figures.of("mp", "that shard alone")
    assert alone and first and known and limit and same and code and plan
    push_to = {
        who: figures.ratio((who, "first"), ("mp", "first"))
        for who, what in figures.samples
        if what == "first"
    }
    docker = [ratio for who, ratio in push_to.items() if ratio and who.startswith("docker")]
    peers = {who: ratio for who, ratio in push_to.items() if ratio and who not in ("mp", "limit")}
    extra_mb = {
        "4 shards": round((first.peak_bytes - plan.peak_bytes) / 1e6, 1),
        "1 shard": round((alone.peak_bytes - plan.peak_bytes) / 1e6, 1),
    }
    of_known = figures.ratio(("mp", "first"), ("mp", "digests known")) or 9.0
    of_one_shard = figures.ratio(("mp", "shard"), ("mp", "that shard alone")) or 9.0
    figure = {
        "times_as_fast_as": peers,
        "of_docker": min(docker, default=None),
        "of_known": of_known,
        "of_limit": push_to.get("limit"),
        "bytes_per_s": round(size_bytes / first.wall_s),
        "registry_bytes_per_s": round(size_bytes / limit.wall_s),
        "sha256_bytes_per_s": round(sha256_bytes_per_s()),
        "cpu_s": {"first": round(first.cpu_s, 2), "digests known": round(known.cpu_s, 2)},
        "extra_peak_mb": extra_mb,
        "written_mb": round(first.written_bytes / 1e6, 2),
        "same_s": round(same.wall_s, 2),
        "same_body_requests": figures.body_requests,
        "code_s": round(code.wall_s, 2),
        "of_one_shard": of_one_shard,
        "all": {f"{who}: {what}": _row(median(found)) for (who, what), found in figures.samples.items()},
    }
    holds = (
        min(docker, default=0.0) >= 11
        and all(ratio > 1 for ratio in peers.values())
        and {"tar + crane append", "skopeo copy of a layout"} <= set(peers)
        and of_known <= 1.15
        and first.written_bytes < OWN_WRITES_BYTES
        and max(extra_mb.values()) < 60
        and same.wall_s < 0.5
        and figures.body_requests == 0
        and code.wall_s < 1
        and of_one_shard <= 1.15
    )
    result(
        "push", figure, "docker build + docker push, crane, skopeo; oras and kit on PATH", GOAL, holds=holds
    )


def _row(sample: Sample) -> dict[str, float]:
    return {
        "wall_s": round(sample.wall_s, 2),
        "cpu_s": round(sample.cpu_s, 2),
        "peak_mb": round(sample.peak_bytes / 1e6, 1),
        "written_mb": round(sample.written_bytes / 1e6, 1),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--small", action="store_true", help="4 shards of 64 MiB: for development")
    options.add_argument(
        "--peers", choices=("all", "quick", "none"), default="all", help="quick: without Docker"
    )
    options.add_argument("--scenarios", default=",".join(SCENARIOS), help="of the peers")
    asked = options.parse_args()
    shard_bytes = (64 if asked.small else 1024) * MIB
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        needed_bytes = 9 * 4 * shard_bytes
        if shutil.disk_usage(folder).free < needed_bytes:
            raise SystemExit(f"{needed_bytes:,} bytes of disk are needed in {folder}")
        weights = made_weights(folder, shard_bytes)
        (folder / "tools").mkdir()
        with running_registry(folder / "registry") as registry:
            yard = Yard(folder, registry, weights)
            figures = Figures()
            quick: list[Pusher] = []
            if asked.peers != "none":
                quick = list(pushers(folder / "tools", registry.host, Layouts(yard)))
            wanted = [each for each in SCENARIOS if each in asked.scenarios.split(",")]

            def others() -> None:
                for pusher in quick:
                    theirs(yard, pusher, figures, wanted)

            big = yard.project("big", weights.first)
            ours(yard, big, figures, asked.runs, others)
            if asked.peers == "all":
                big.chat("")
                for pusher in dockers(folder / "tools", registry.host):
                    _first(yard, big, figures)  # in the same minutes
                    theirs(yard, pusher, figures, wanted)
    _tell(figures, 4 * shard_bytes)


if __name__ == "__main__":
    main()
