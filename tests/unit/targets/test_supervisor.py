"""The supervisor's own decisions: how often it starts a server again, and what it writes down."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pipeline.clients import daemon, supervisor
from pipeline.clients.supervisor import Supervisor


def exits(folder: Path) -> list[int]:
    return [json.loads(line)["code"] for line in (folder / "exits.jsonl").read_text().splitlines()]


def test_server_that_keeps_crashing_is_given_up_after_its_pauses(tmp_path: Path) -> None:
    Supervisor(["/bin/sh", "-c", "exit 3"], {}, tmp_path, pauses_s=(0, 0)).run()
    assert exits(tmp_path) == [3, 3, 3]
    assert daemon.ended(tmp_path) == "exit code 3"


def test_server_that_cannot_be_run_is_recorded_as_a_shell_would(tmp_path: Path) -> None:
    Supervisor([str(tmp_path / "nothing")], {}, tmp_path, pauses_s=()).run()
    assert exits(tmp_path) == [127]


def test_stop_ends_the_server_and_starts_no_other(tmp_path: Path) -> None:
    made = Supervisor(["/bin/sleep", "60"], {}, tmp_path, pauses_s=(0, 0))
    running = threading.Thread(target=made.run)
    running.start()
    while (found := daemon.find(tmp_path)) is None or found.server is None:
        pass
    made.stop(signal.SIGTERM, None)
    running.join(timeout=10)
    assert exits(tmp_path) == [-signal.SIGTERM]


def test_server_of_a_full_disk_is_kept_up_and_ended(tmp_path: Path) -> None:
    (tmp_path / "server.json.part").mkdir()  # no record can be written
    (tmp_path / "exits.jsonl").mkdir()
    server = ["/bin/sh", "-c", "echo $$ > pid; exec sleep 60"]
    made = Supervisor(server, {"PATH": os.environ["PATH"]}, tmp_path, pauses_s=())
    running = threading.Thread(target=made.run)
    running.start()
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().endswith("\n"):
        pass
    made.stop(signal.SIGTERM, None)
    running.join(timeout=10)
    assert supervisor.status(int((tmp_path / "pid").read_text())) is None


def test_log_that_grows_too_large_is_put_aside_once_and_goes_on(tmp_path: Path) -> None:
    server = ["/bin/sh", "-c", "exec >> log; echo a long beginning; until [ ! -s log ]; do :; done; echo end"]
    Supervisor(server, {}, tmp_path, pauses_s=(), log_bytes=10, watch_s=0.01).run()
    assert (tmp_path / "log.1").read_text() == "a long beginning\n"
    assert (tmp_path / "log").read_text() == "end\n"


def test_members_of_a_group_are_the_living_ones() -> None:
    assert os.getpid() in supervisor.members(os.getpgrp())
    with subprocess.Popen(["/bin/true"], start_new_session=True) as ended:
        while (supervisor.status(ended.pid) or ("",))[0] != "Z":
            pass
        assert supervisor.members(ended.pid) == []


def test_process_is_known_by_more_than_its_pid() -> None:
    own = supervisor.identity(os.getpid())
    known = daemon.Identity(int(own["pid"]), str(own["start_time"]), str(own["boot_id"]))
    assert known.alive
    assert not daemon.Identity(known.pid, "1", known.boot_id).alive
    assert not daemon.Identity(known.pid, known.start_time, "another-boot").alive


def test_supervisor_needs_nothing_but_the_standard_library() -> None:
    source = Path(supervisor.__file__).read_text()
    imported = {
        line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))
    }
    assert imported <= sys.stdlib_module_names


def test_server_gets_of_the_environment_what_the_machine_needs_and_no_secret() -> None:
    given = daemon.environ_for(
        {"PATH": "/bin", "HF_TOKEN": "t", "PYTHONPATH": "x", "CUDA_VISIBLE_DEVICES": "0"}
    )
    assert given == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "PYTHONUNBUFFERED": "1"}
