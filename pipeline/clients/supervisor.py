"""The program that keeps one server process up after mp has ended: its own process, standard library only.

    python -I -S supervisor.py RUN.json

RUN.json holds {"argv", "env", "folder"}. In the folder it keeps `server.json` (who runs), `exits.jsonl` and `log`,
which goes on from nothing at 64 MiB and leaves what it held as `log.1`. A full disk ends no server.
It prints nothing and returns once the supervisor runs on its own; a server that crashes is started again after a
growing pause, at most five times in a row. SIGTERM ends the server and then the supervisor.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

STEADY_S = 60.0  # a server that ran this long is no crash in a row
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # before each start after a crash
LOG_BYTES = 64 * 2**20
GRACE_S = 20.0  # a server may take to end, when its supervisor fails
_WATCH_S = 5.0  # between two looks at the log
_POLL_S = 0.1


class Supervisor:
    """One server, started again until it is told to stop or has crashed too often."""

    def __init__(
        self,
        argv: list[str],
        env: dict[str, str],
        folder: Path,
        pauses_s: tuple[float, ...] = PAUSES_S,
        log_bytes: int = LOG_BYTES,
        watch_s: float = _WATCH_S,
    ) -> None:
        self._argv, self._env, self._folder, self._pauses_s = argv, env, folder, pauses_s
        self._log_bytes, self._watch_s = log_bytes, watch_s
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._restarts = 0

    def stop(self, signal_number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()

    def run(self) -> None:
        try:
            self._keep_up()
        finally:
            self._end()

    def _keep_up(self) -> None:
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
        while True:
            try:
                return self._child.wait(self._watch_s)
            except subprocess.TimeoutExpired:
                self._shorten_log()

    def _end(self) -> None:
        """Nothing goes on without us: nobody would find it."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.terminate()
        try:
            self._child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()

    def _shorten_log(self) -> None:
        """The server goes on writing into the same file, from its beginning: it was opened to append."""
        log = self._folder / "log"
        with contextlib.suppress(OSError):
            if log.stat().st_size <= self._log_bytes:
                return
            with contextlib.suppress(OSError):  # a full disk: what was said is lost then
                shutil.copyfile(log, self._folder / "log.1")
            os.truncate(log, 0)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(_POLL_S)

    def _write(self, server: int | None) -> None:
        with contextlib.suppress(OSError):  # a full disk
            self.announce(server)

    def announce(self, server: int | None) -> None:
        """Say in server.json who runs."""
        record = {
            "supervisor": identity(os.getpid()),
            "server": None if server is None else identity(server),
            "restarts": self._restarts,
        }
        part = self._folder / "server.json.part"
        part.write_text(json.dumps(record))
        part.rename(self._folder / "server.json")

    def _record(self, code: int, seconds: float) -> None:
        with contextlib.suppress(OSError), (self._folder / "exits.jsonl").open("a") as exits:
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


def members(group: int) -> list[int]:
    """The living processes of a group; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (entry / "stat").read_text()
            state, _, its_group = text[text.rindex(")") + 2 :].split()[:3]
            if state not in "ZX" and int(its_group) == group:
                found.append(int(entry.name))
    return found


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
        supervisor = Supervisor(run["argv"], run["env"], folder)
        try:
            supervisor.announce(None)
        except OSError as problem:  # who starts a server must know how to end it
            os.write(2, f"{folder}: {problem.strerror}\n".encode())
            return 1
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        signal.signal(signal.SIGTERM, supervisor.stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(tell, b"1")
        os.close(tell)
        supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
