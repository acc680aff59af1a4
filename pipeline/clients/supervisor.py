"""The program that keeps one server process up after mp has ended: its own process, standard library only.

    python -I -S supervisor.py RUN.json

RUN.json holds {"argv", "env", "folder"}. In the folder it keeps `server.json` (who runs), `log` and `exits.jsonl`.
It prints nothing and returns once the supervisor runs on its own; a server that crashes is started again after a
growing pause, at most five times in a row. SIGTERM ends the server and then the supervisor.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

STEADY_S = 60.0  # a server that ran this long is no crash in a row
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # before each start after a crash
_POLL_S = 0.1


class Supervisor:
    """One server, started again until it is told to stop or has crashed too often."""

    def __init__(
        self, argv: list[str], env: dict[str, str], folder: Path, pauses_s: tuple[float, ...] = PAUSES_S
    ) -> None:
        self._argv, self._env, self._folder, self._pauses_s = argv, env, folder, pauses_s
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._restarts = 0

    def stop(self, signal_number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()

    def run(self) -> None:
        self._write(None)
        while not self._stopping:
            began = time.monotonic()
            code = self._serve()
            steady = time.monotonic() - began > STEADY_S
            self._record(code, time.monotonic() - began)
            self._restarts = 0 if steady else self._restarts
            if self._stopping or self._restarts >= len(self._pauses_s):
                return
            self._pause(self._pauses_s[self._restarts])
            self._restarts += 1

    def _serve(self) -> int:
        """Run the server to its end; its exit code, negative for a signal."""
        try:
            self._child = subprocess.Popen(
                self._argv, env=self._env, cwd=self._folder, stdin=subprocess.DEVNULL
            )
        except OSError as problem:
            os.write(2, f"{self._argv[0]}: {problem.strerror}: not started\n".encode())
            return 127
        self._write(self._child.pid)
        if self._stopping:  # told while it was being started
            self._child.terminate()
        return self._child.wait()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(_POLL_S)

    def _write(self, server: int | None) -> None:
        record = {
            "supervisor": identity(os.getpid()),
            "server": None if server is None else identity(server),
            "restarts": self._restarts,
        }
        part = self._folder / "server.json.part"
        part.write_text(json.dumps(record))
        part.rename(self._folder / "server.json")

    def _record(self, code: int, seconds: float) -> None:
        with (self._folder / "exits.jsonl").open("a") as exits:
            exits.write(json.dumps({"code": code, "seconds": round(seconds, 1), "at": time.time()}) + "\n")


def identity(pid: int) -> dict[str, int | str]:
    """A process so that it is known again: its pid alone may be given to another one."""
    return {"pid": pid, "start_time": (status(pid) or ("", ""))[1], "boot_id": boot_id()}


def status(pid: int) -> tuple[str, str] | None:
    """State letter and start time (clock ticks since boot) of a process; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return _status_without_proc(pid)
    after_name = text[text.rindex(")") + 2 :].split()  # the name may hold spaces and brackets
    return after_name[0], after_name[19]


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except FileNotFoundError:
        return ""


def _status_without_proc(pid: int) -> tuple[str, str] | None:
    """The same where there is no /proc (macOS): a re-used pid cannot be told there."""
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "R", ""


def main(run_file: str) -> int:
    run = json.loads(Path(run_file).read_text())
    folder = Path(run["folder"])
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return 0 if os.read(ready, 1) else 1
    os.setsid()
    os.umask(0o077)
    with (folder / "lock").open("w") as held, (folder / "log").open("ab") as log:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 1
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        supervisor = Supervisor(run["argv"], run["env"], folder)
        signal.signal(signal.SIGTERM, supervisor.stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(tell, b"1")
        os.close(tell)
        supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
