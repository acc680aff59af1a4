"""A model of 8 files of 256 MiB from one nginx on loopback: our cache, huggingface_hub, and the limit of this machine.

Each is a whole process, taken in turn, with a new and empty folder. huggingface_hub compares no hash and waits for no
disk; ours hashes every byte and names a file only when it is on the disk (fsync). The limit does what nobody who verifies
can leave out, and no more: it reads the same files from the page cache, one after the other, hashes each block, writes it
once, and fsyncs each file. It fsyncs because our promise does: without that the two would end at different places of the
same work. Beside it, without a goal, the same with as many threads as ours: the machine's cores to itself, where a
download shares them with a server, two sockets and HTTP.

The second pull is of what is there: it makes no request, and its time is what it takes over a process that only starts.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measure import Sample, environ, measure, median, result, say
from pipeline.core.frozen import frozen
from pipeline.resources.cache.store import WORKERS

ROOT = Path(__file__).parents[1]
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
GOAL = "of_huggingface_hub >= 0.9 (aim 1.0), of_limit >= 0.8, second_pull_ms < 50, second_pull_requests == 0"
COMMIT = "c" * 40
CONFIG = b'{"architectures": ["LlamaForCausalLM"]}'

PULL = """
import sys
from pathlib import Path
from pipeline.clients.hub import Hub
from pipeline.core.protocols import SourceSpec
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.huggingface import HuggingFaceSource
source = HuggingFaceSource(Hub(sys.argv[1], False))
artifact = source.resolve(SourceSpec("hf://acme/big", "main"), None)
Cache(Path(sys.argv[2])).add(artifact, source, lambda event: None, Address("big/artifact"))
"""

AGAIN = """
import json, sys
from pathlib import Path
from pipeline.clients.hub import Hub
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.huggingface import HuggingFaceSource
source = HuggingFaceSource(Hub(sys.argv[1], False))
files = tuple(FileEntry(*each) for each in json.loads(Path(sys.argv[3]).read_text()))
artifact = Artifact("hf://acme/big", "main", "c" * 40, files)
if sys.argv[4] == "add":
    Cache(Path(sys.argv[2])).add(artifact, source, lambda event: None, Address("big/artifact"))
"""

PEER = """
import sys
from huggingface_hub import snapshot_download
snapshot_download("acme/big", revision="main", cache_dir=sys.argv[2], token=False)
"""

LIMIT = """
import hashlib, os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
target = Path(sys.argv[2])
target.mkdir()
def work(path):
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as source, (target / path.name).open("xb", buffering=0) as file:
        while count := source.readinto(buffer):
            digest.update(buffer[:count])
            assert file.write(buffer[:count]) == count
        os.fsync(file)
    assert digest.hexdigest() == path.name
with ThreadPoolExecutor(int(sys.argv[4])) as pool:
    list(pool.map(work, sorted(Path(sys.argv[3]).iterdir())))
"""

# The contract of the Hub's client (headers and redirect of LFS files) as plain nginx: it costs as little as it can.
SERVER = """\
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log;
  sendfile on;
  map_hash_bucket_size 256;
  {bodies}
  map $uri $sha256 {{ {hashes} }}
  server {{
    listen 127.0.0.1:{port};
    root {folder};
    location /api/ {{ default_type application/json; }}
    location /lfs/ {{ }}
    location /acme/big/resolve/{commit}/config.json {{
      alias {folder}/config.json;
      etag off;
      add_header X-Repo-Commit {commit};
      add_header ETag '"{config}"';
    }}
    location /acme/big/resolve/ {{
      add_header X-Repo-Commit {commit};
      add_header ETag '"$sha256"';
      add_header X-Linked-ETag '"$sha256"';
      add_header X-Linked-Size {size};
      return 302 http://localhost:{port}/lfs/$sha256;
    }}
  }}
}}
"""


@frozen
class Served:
    """A Hub of one model, by nginx. Files lie in `folder`/lfs, named by their sha256."""

    folder: Path
    endpoint: str
    files: Mapping[str, str]  # name → sha256
    size_bytes: int  # of each file

    def entries(self) -> list[tuple[str, int, str]]:
        weights = [(name, self.size_bytes, sha256) for name, sha256 in self.files.items()]
        return [("config.json", len(CONFIG), hashlib.sha256(CONFIG).hexdigest()), *sorted(weights)]

    def requests(self) -> int:
        return len((self.folder / "access.log").read_text().splitlines())


@contextlib.contextmanager
def serving(folder: Path, count: int, size_bytes: int) -> Iterator[Served]:
    (folder / "lfs").mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    files = {
        f"model-{n:05}-of-{count:05}.safetensors": _made(folder, size_bytes) for n in range(1, count + 1)
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _write_api(folder, files, size_bytes)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(
        SERVER.format(
            folder=folder,
            port=port,
            commit=COMMIT,
            size=size_bytes,
            config=_git_sha1(CONFIG),
            bodies=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
            hashes=" ".join(f"/acme/big/resolve/{COMMIT}/{name} {sha256};" for name, sha256 in files.items()),
        )
    )
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        _wait_for(port)
        yield Served(folder, f"http://127.0.0.1:{port}", files, size_bytes)
    finally:
        process.terminate()
        process.wait()


def _made(folder: Path, size_bytes: int) -> str:
    digest, path = hashlib.sha256(), folder / "new"
    with path.open("wb") as file:
        for _ in range(size_bytes >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    path.rename(folder / "lfs" / digest.hexdigest())
    return digest.hexdigest()


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _write_api(folder: Path, files: Mapping[str, str], size_bytes: int) -> None:
    siblings: list[dict[str, object]] = [
        {"rfilename": "config.json", "size": len(CONFIG), "blobId": _git_sha1(CONFIG)}
    ]
    tree: list[dict[str, object]] = [
        {"type": "file", "path": "config.json", "size": len(CONFIG), "oid": _git_sha1(CONFIG)}
    ]
    for name, sha256 in files.items():
        lfs = {"sha256": sha256, "oid": sha256, "size": size_bytes, "pointerSize": 134}
        siblings.append({"rfilename": name, "size": size_bytes, "blobId": sha256[:40], "lfs": lfs})
        tree.append({"type": "file", "path": name, "size": size_bytes, "oid": sha256[:40], "lfs": lfs})
    model = {"id": "acme/big", "sha": COMMIT, "private": False, "gated": False, "siblings": siblings}
    for revision in ("main", COMMIT):
        for kind, answer in (("revision", model), ("tree", tree)):
            path = folder / "api/models/acme/big" / kind / revision
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(answer))


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("nginx did not start")


@frozen
class Runs:
    """Runs programs against one server, each in a folder that is new and goes after it."""

    served: Served
    folder: Path

    def once(self, code: str, *arguments: str) -> Sample:
        target = self.folder / "target"
        os.sync()  # what the run before wrote is not written during this one
        try:
            return self.run(code, target, *arguments)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def run(self, code: str, target: Path, *arguments: str) -> Sample:
        env = environ(
            PYTHONPATH=str(ROOT),
            HOME=str(self.folder),
            HF_HOME=str(self.folder / "hf"),
            HF_ENDPOINT=self.served.endpoint,
            HF_HUB_DISABLE_XET="1",
            HF_HUB_DISABLE_TELEMETRY="1",
            HF_HUB_DISABLE_PROGRESS_BARS="1",
        )
        argv = [sys.executable, "-c", code, self.served.endpoint, str(target), *arguments]
        return measure(argv, self.folder, env)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--mib", type=int, default=256, help="size of each of the eight files")
    asked = options.parse_args()
    if NGINX is None:
        result("pull", "not measured: nginx is not installed", "huggingface_hub", GOAL, holds=False)
        return
    with (
        tempfile.TemporaryDirectory() as name,
        serving(Path(name) / "www", 8, asked.mib << 20) as served,
    ):
        Path(name).chmod(0o755)  # started by root, nginx reads as another user
        (Path(name) / "runs").mkdir()
        runs = Runs(served, Path(name) / "runs")
        lfs = str(served.folder / "lfs")
        sides = {
            "mp": (PULL,),
            "huggingface_hub": (PEER,),
            "limit": (LIMIT, lfs, "1"),
            "parallel limit": (LIMIT, lfs, str(WORKERS)),
        }
        samples: dict[str, list[Sample]] = {side: [] for side in sides}
        for _ in range(asked.runs):
            for side, words in sides.items():
                samples[side].append(runs.once(*words))
        medians = {side: median(each) for side, each in samples.items()}
        second_s, requests = _second_pull(runs, max(5, asked.runs))
    _tell(medians, 8 * asked.mib << 20, second_s, requests)


def _second_pull(runs: Runs, times: int) -> tuple[float, int]:
    """Seconds over start-up, and requests, of a pull of what is there."""
    target, listed = runs.folder / "cache", runs.folder / "files.json"
    listed.write_text(json.dumps(runs.served.entries()))
    runs.run(PULL, target)
    before = runs.served.requests()
    pairs = [(runs.run(AGAIN, target, str(listed), each), each) for _ in range(times) for each in ("add", "")]
    adding = median([sample for sample, each in pairs if each])
    starting = median([sample for sample, each in pairs if not each])
    say("mp, second pull", adding)
    return adding.wall_s - starting.wall_s, runs.served.requests() - before


def _tell(medians: Mapping[str, Sample], size_bytes: int, second_s: float, requests: int) -> None:
    for side, sample in medians.items():
        say(f"{side}, {size_bytes / sample.wall_s / 1e9:.2f} GB/s", sample)
    ours = medians["mp"]
    of_peer = medians["huggingface_hub"].wall_s / ours.wall_s
    of_limit = medians["limit"].wall_s / ours.wall_s
    figure = {
        "of_huggingface_hub": round(of_peer, 2),
        "of_limit": round(of_limit, 2),
        "of_parallel_limit": round(medians["parallel limit"].wall_s / ours.wall_s, 2),
        "bytes_per_s": round(size_bytes / ours.wall_s),
        "cpu_ratio": round(ours.cpu_s / medians["huggingface_hub"].cpu_s, 2),
        "second_pull_ms": round(second_s * 1000, 1),
        "second_pull_requests": requests,
    }
    holds = of_peer >= 0.9 and of_limit >= 0.8 and second_s < 0.05 and requests == 0
    result("pull", figure, "huggingface_hub.snapshot_download, which verifies nothing", GOAL, holds=holds)


if __name__ == "__main__":
    main()
