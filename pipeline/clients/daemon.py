"""The door to servers that outlive mp: started under a supervisor, found again by pid and start time, stopped as a group."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.clients import supervisor
from pipeline.clients.process import run
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError
from pipeline.core.frozen import frozen

GRACE_S = 20.0  # between SIGTERM and SIGKILL; an engine ends its workers first
_POLL_S = 0.05
LOG_BYTES = 4 * 2**20
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "XDG_", "OMP_")


@frozen
class Identity:
    """A process so that it is known again after its pid was given to another one."""

    pid: int
    start_time: str
    boot_id: str

    @property
    def alive(self) -> bool:
        found = supervisor.status(self.pid)
        return (
            found is not None
            and found[0] not in "ZX"  # ended, and not yet collected by its parent
            and found[1] == self.start_time
            and self.boot_id == supervisor.boot_id()
        )


@frozen
class Daemon:
    """What a folder's supervisor says of itself."""

    supervisor: Identity
    server: Identity | None
    restarts: int

    @property
    def running(self) -> bool:
        return self.supervisor.alive and self.server is not None and self.server.alive


def start(folder: Path, argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Start a supervised server in its folder; returns when the supervisor runs on its own.

    Raises BackendError when one runs there already.
    """
    for name in ("server.json", "exits.jsonl", "log.1"):
        (folder / name).unlink(missing_ok=True)
    if (folder / "log").exists():
        (folder / "log").replace(folder / "log.previous")
    run_file = folder / "run.json"
    run_file.write_text(json.dumps({"argv": list(argv), "env": dict(environ), "folder": str(folder)}))
    program = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(run_file)]
    # it outlives this run: what the user's environment holds besides (keys, tokens) is not its to keep
    run(program, cwd=folder, env=environ, timeout_s=30, system=f"supervisor of {folder.name}")


def start_again(folder: Path) -> None:
    """Start what run.json says was started last in a folder."""
    run_before = json.loads((folder / "run.json").read_text())
    start(folder, run_before["argv"], run_before["env"])


def find(folder: Path) -> Daemon | None:
    """The supervisor that was last started in a folder, running or not."""
    try:
        record = json.loads((folder / "server.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise BackendError(str(folder / "server.json"), f"is damaged: {problem}") from problem
    server = record["server"]
    return Daemon(Identity(**record["supervisor"]), server and Identity(**server), record["restarts"])


def stop(folder: Path, grace_s: float = GRACE_S) -> None:
    """End supervisor, server and all they started; nothing to do when none of them runs."""
    daemon = find(folder)
    if daemon is None or not _is_ours(daemon, folder):
        return
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.supervisor.pid, signal_number)
        deadline = time.monotonic() + grace_s
        while _is_ours(daemon, folder) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    if _is_ours(daemon, folder):
        raise BackendError(f"process {daemon.supervisor.pid}", "does not end", "end it by hand")


def ended(folder: Path) -> str | None:
    """None while the server in a folder is running its first run; else how it ended: "exit code 1"."""
    exits = folder / "exits.jsonl"
    if exits.exists() and (lines := exits.read_text().splitlines()):
        code = json.loads(lines[0])["code"]
        return f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    daemon = find(folder)
    return "its supervisor is gone" if daemon is not None and not daemon.supervisor.alive else None


def log(folder: Path, last_bytes: int = LOG_BYTES) -> str:
    """The end of the server's log: by default enough to hold all that a failed start says."""
    try:
        with (folder / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def environ_for(environ: Mapping[str, str]) -> dict[str, str]:
    """What a server gets of the user's environment: what the machine needs, nothing that changes the engine."""
    kept = {k: v for k, v in environ.items() if k in _KEPT or k.startswith(_KEPT_PREFIXES)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def write(file: Path, record: Mapping[str, Json], mode: int = 0o600) -> None:
    """A JSON file, replaced as a whole."""
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        json.dump(record, out, indent=1, sort_keys=True)
    part.replace(file)


def _is_ours(daemon: Daemon, folder: Path) -> bool:
    """The group still is the one that was started: its leader lives, or one that works in the folder is in it."""
    leader = daemon.supervisor
    if leader.alive:
        return True
    found = supervisor.status(leader.pid)
    if leader.boot_id != supervisor.boot_id() or (found is not None and found[1] != leader.start_time):
        return False  # its pid is another's now: nothing of the group was left
    return any(_works_in(folder, pid) for pid in supervisor.members(leader.pid))


def _works_in(folder: Path, pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:  # it ended just now
        return False
