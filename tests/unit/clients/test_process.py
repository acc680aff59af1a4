"""Subprocesses: real ones, short."""

import os
import time
from pathlib import Path

import pytest

from pipeline.clients.process import run
from pipeline.core.errors import BackendError, Missing


def shell(script: str, timeout_s: float = 20, **more: object) -> str:
    return run(["/bin/sh", "-c", script], timeout_s=timeout_s, system="test", **more)  # type: ignore[arg-type]


def is_there(pid: int) -> bool:
    """A process that runs; a zombie that nobody has fetched yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_returns_standard_output_only() -> None:
    assert shell("echo out; echo err >&2") == "out\n"


def test_lines_of_both_streams_are_handed_over_as_they_come() -> None:
    lines: list[str] = []
    shell("echo one; echo two >&2; printf 'a\\rb\\nlast'", on_line=lines.append)
    assert sorted(lines) == ["a", "b", "last", "one", "two"]


def test_failure_carries_exit_code_and_last_lines() -> None:
    with pytest.raises(BackendError) as caught:
        shell("for i in 1 2 3; do echo line $i; done; echo broken >&2; exit 3")
    assert caught.value.message.startswith("test: sh ended with exit code 3\n")
    assert "  line 3" in caught.value.message
    assert "  broken" in caught.value.message


def test_failure_shows_only_the_last_lines() -> None:
    with pytest.raises(BackendError) as caught:
        shell("i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; exit 1")
    assert "line 100" in caught.value.message
    assert "line 50\n" not in caught.value.message


def test_death_by_signal_is_named() -> None:
    with pytest.raises(BackendError, match="was ended by SIGKILL"):
        shell("kill -9 $$")


def test_time_limit_ends_the_whole_group(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(BackendError, match=r"did not end within 0\.2 s\n  begun"):
        shell(f"sleep 60 & echo $! > {file}; echo begun; wait", timeout_s=0.2)
    deadline = time.monotonic() + 5  # who is killed is gone when its new parent has seen it
    while is_there(int(file.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_grandchild_that_keeps_the_output_open_does_not_hold_the_caller(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    began = time.monotonic()
    output = shell(f"sleep 30 & echo $! > {file}; echo done")
    os.kill(int(file.read_text()), 9)
    assert output == "done\n"
    assert time.monotonic() - began < 5


def test_large_output_is_whole() -> None:
    assert len(shell("head -c 3000000 /dev/zero | tr '\\0' x")) == 3_000_000


def test_closed_streams_are_waited_for() -> None:
    assert shell("exec >&- 2>&-; sleep 0.05") == ""


def test_environment_is_exactly_the_given_one() -> None:
    assert run(["/usr/bin/env"], env={"ONE": "1"}, timeout_s=5, system="test") == "ONE=1\n"


def test_runs_in_the_given_folder(tmp_path: Path) -> None:
    assert shell("pwd", cwd=tmp_path).strip() == str(tmp_path.resolve())


def test_missing_program_is_named() -> None:
    with pytest.raises(Missing, match='"no-such-program" is not there'):
        run(["no-such-program"], timeout_s=5, system="test")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="nowhere"):
        shell("true", cwd=tmp_path / "nowhere")


def test_interrupted_caller_leaves_no_process_behind(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shell(f"echo $$ > {file}; echo begun; sleep 60", on_line=interrupt)
    assert not is_there(int(file.read_text()))
