"""300 models in a real Kubernetes with simulated nodes: the first apply, and a plan in which nothing changes against
`kubectl diff --server-side` of the very objects. Requests are counted in the API server's audit log."""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import MP, Sample, environ, measure, paired, result, say
from pipeline.clients.kube import KINDS
from tests.parts.cluster import missing, simulated_cluster
from tests.parts.fleet import OBJECTS, Fleet, fleet_of
from tests.parts.registry import running_registry

CONSTANT = 12  # requests of a plan whatever the number of models
GOAL = f"cpu_ratio <= 1, requests <= kinds x namespaces + {CONSTANT}"
NODES, GPUS = 50, 8


@dataclass
class Bench:
    """A fleet that is applied, and both sides' way to look at it."""

    fleet: Fleet
    requests: dict[str, int]  # of the last run of each side

    def mp(self, *words: str) -> Sample:
        project = self.fleet.project
        env = environ(MP_CACHE=str(project.cache), **project.environ)
        return self._counted("mp", lambda: measure([*MP, *words], project.folder, env))

    def plan(self) -> Sample:
        """Anything but "nothing to do" is a defect and ends the benchmark."""
        return self.mp("plan", "--detailed-exitcode")

    def diff(self) -> Sample:
        """As mp, which finds nothing: exit 0."""
        cluster, folder = self.fleet.cluster, self.fleet.project.folder
        words = ("diff", "--server-side", "--field-manager=mp", "--recursive", "--filename", "rendered")
        argv = [cluster.kubectl_path, f"--kubeconfig={cluster.kubeconfig}", *words]
        return self._counted("kubectl", lambda: measure(argv, folder, environ()))

    def _counted(self, agent: str, run: Callable[[], Sample]) -> Sample:
        before = len(self.fleet.cluster.requests(agent))
        sample = run()
        self.requests[agent] = len(self.fleet.cluster.requests(agent)) - before
        return sample


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--models", type=int, default=300)
    asked = options.parse_args()
    why = missing(everything=True) or (
        None if shutil.which("docker-registry") else "docker-registry is not installed"
    )
    if why is not None:
        result("cluster", f"not measured: {why}", "kubectl diff --server-side", GOAL, holds=False)
        return
    with (
        tempfile.TemporaryDirectory() as name,
        simulated_cluster(NODES, GPUS) as cluster,
        running_registry(Path(name) / "registry") as registry,
    ):
        folder = Path(name) / "fleet"
        folder.mkdir()
        with fleet_of(asked.models, cluster, registry, folder) as fleet:
            _measure(Bench(fleet, {}), asked.runs)


def _measure(bench: Bench, runs: int) -> None:
    models = bench.fleet.models
    bench.mp("apply", "--yes", "--build-only")  # images are no work of this benchmark
    applied = bench.mp("apply", "--yes")
    of_apply = bench.requests["mp"]
    bench.mp("render", "--out", "rendered")
    ours, peers = paired(bench.plan, bench.diff, runs)
    assert peers is not None, "there is a peer"
    say(f"mp apply, {models} models", applied)
    say(f"mp plan, {models} models", ours)
    say(f"kubectl diff, {models * OBJECTS} objects", peers)
    figure = {
        "cpu_ratio": round(ours.cpu_s / peers.cpu_s, 3),
        "wall_ratio": round(ours.wall_s / peers.wall_s, 3),
        "plan_cpu_s": round(ours.cpu_s, 3),
        "apply_cpu_s": round(applied.cpu_s, 2),
        "apply_wall_s": round(applied.wall_s, 1),
        "requests": bench.requests["mp"],
        "requests_kubectl": bench.requests["kubectl"],
        "requests_apply_per_model": round(of_apply / models, 1),
    }
    few = bench.requests["mp"] <= len(KINDS) * len(bench.fleet.namespaces) + CONSTANT
    result(
        "cluster",
        figure,
        "kubectl diff --server-side",
        GOAL,
        holds=few and ours.cpu_s <= peers.cpu_s,
    )


if __name__ == "__main__":
    main()
