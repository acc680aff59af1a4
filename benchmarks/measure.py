"""How every benchmark measures: whole processes, paired with a peer in one run, medians, one JSON line at the end."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.core.frozen import frozen

TERRAFORM = shutil.which("terraform")
MP = (str(Path(sys.executable).with_name("mp")),)


@frozen
class Sample:
    """One process from start to end, with the children it waited for."""

    cpu_s: float  # user and system
    wall_s: float
    peak_bytes: int
    status: int  # exit code
    written_bytes: int = 0  # to disks, by the process itself

    def __add__(self, other: "Sample") -> "Sample":
        """One after the other."""
        return Sample(
            self.cpu_s + other.cpu_s,
            self.wall_s + other.wall_s,
            max(self.peak_bytes, other.peak_bytes),
            other.status,
            self.written_bytes + other.written_bytes,
        )


def environ(**more: str) -> dict[str, str]:
    """This environment, with byte code kept as on any machine, and without what would change either side."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "TF_LOG", "TF_CLI_ARGS", "FORCE_COLOR")
    return {**{k: v for k, v in os.environ.items() if k not in dropped}, "NO_COLOR": "1", **more}


def measure(argv: Sequence[str], cwd: Path, env: Mapping[str, str], accept: Sequence[int] = (0,)) -> Sample:
    """Run a program to its end; its output goes to a file and is shown when it fails."""
    log = cwd / "output.log"
    with log.open("wb") as out:
        begun = time.monotonic()
        child = subprocess.Popen(list(argv), cwd=cwd, env=dict(env), stdout=out, stderr=subprocess.STDOUT)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        written_bytes = _written_bytes(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.monotonic() - begun
    child.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    if child.returncode not in accept:
        tail = log.read_text(errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(argv)}: exit {child.returncode}\n{tail}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Sample(cpu_s, wall_s, usage.ru_maxrss * 1024, child.returncode, written_bytes)


def _written_bytes(pid: int) -> int:
    """What a process that ended, and is not waited for yet, has sent to the storage layer: proc(5), /proc/pid/io."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:  # another system, or not ours to read
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), 0)


def median(samples: Sequence[Sample]) -> Sample:
    return Sample(
        statistics.median(s.cpu_s for s in samples),
        statistics.median(s.wall_s for s in samples),
        int(statistics.median(s.peak_bytes for s in samples)),
        samples[-1].status,
        int(statistics.median(s.written_bytes for s in samples)),
    )


def paired(
    ours: Callable[[], Sample], peers: Callable[[], Sample] | None, runs: int
) -> tuple[Sample, Sample | None]:
    """Medians of runs taken in turn, so that a busy minute hits both sides."""
    mine: list[Sample] = []
    theirs: list[Sample] = []
    for _ in range(runs):
        mine.append(ours())
        if peers is not None:
            theirs.append(peers())
    return median(mine), median(theirs) if theirs else None


def say(label: str, sample: Sample) -> None:
    print(
        f"{label:44} {sample.cpu_s:8.3f} s CPU {sample.wall_s:8.2f} s wall {sample.peak_bytes / 1e6:7.1f} MB",
        flush=True,
    )


def result(name: str, figure: object, peer: str, goal: str, *, holds: bool) -> None:
    """The last line of a benchmark."""
    print(json.dumps({"name": name, "figure": figure, "peer": peer, "goal": goal, "holds": holds}))
