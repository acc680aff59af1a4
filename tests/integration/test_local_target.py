"""Server processes on this machine: found again, restarted, never confused with others, and what failures leave behind."""

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clients import daemon
from pipeline.clients.openai import ask, is_healthy
from pipeline.core.change import Action, Change
from pipeline.core.errors import BackendError, Denied, Missing, StartFailed
from pipeline.core.frozen import frozen
from pipeline.core.model import Model, Question, Secret
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event, Line
from pipeline.core.resource import Absent, Address, Entry, Observed, Resource, fields_of
from pipeline.resources.cache.store import Cache
from pipeline.resources.engine.environment import environment_path
from pipeline.sources.local import LocalSource
from pipeline.targets.local.driver import LocalDriver
from pipeline.targets.local.spec import LocalState, state_of
from pipeline.templates import TEMPLATES
from tests.contract.benches import OWNER, no_secret
from tests.fakes import engine
from tests.parts.engines import CPU, locked_engine

ADDRESS = Address("tiny/local:here")
CHECKPOINT = Path(__file__).parents[2] / "examples" / "quickstart" / "checkpoint"


@frozen
class Here:
    """This machine with one project on it."""

    folder: Path
    cache: Cache
    driver: LocalDriver

    @property
    def place(self) -> Path:
        return self.folder / "local" / "tiny"

    def model(self, contains: str | None = None, api_key: Secret | None = None) -> Model:
        return engine.model(self.folder, self.cache, contains=contains, api_key=api_key)

    def wanted(
        self, *argv: str, model: Model | None = None, port: int | None = None, timeout_s: int = 30
    ) -> Resource[LocalState]:
        model = model or self.model()
        launch = engine.launch(model, *argv, timeout_s=timeout_s)
        state = state_of(model, launch, port, engine.build(self.folder / "runtime"))
        return Resource(ADDRESS, "local", {"name": "tiny"}, state)

    def look(self) -> Observed[LocalState] | Absent:
        answer = self.driver.observe([self.wanted()], [])[ADDRESS]
        assert isinstance(answer, Observed | Absent)
        return answer

    def seen(self) -> Observed[LocalState]:
        answer = self.look()
        assert isinstance(answer, Observed)
        return answer

    def bring(self, resource: Resource[LocalState]) -> Observed[LocalState]:
        change = Change(ADDRESS, "local", Action.CREATE, resource, None, None)
        made = self.driver.apply(change, {}, engine.ignore)
        assert made is not None
        return made

    def daemon(self) -> daemon.Daemon:
        found = daemon.find(self.place)
        assert found is not None
        return found


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    cache = Cache(tmp_path / "cache")
    engine.make_environment(engine.ENGINE, environment_path(cache.root, engine.ENGINE), print)
    yield Here(tmp_path, cache, LocalDriver(tmp_path / "local", cache, OWNER, no_secret, os.environ))
    for place in (tmp_path / "local").glob("*"):
        daemon.stop(place, grace_s=2)


def soon(holds: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_process_outlives_the_one_that_started_it_and_is_found_again(here: Here, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from tests.integration.test_local_target import *\n"
        "folder = Path(sys.argv[1]); cache = Cache(folder / 'cache')\n"
        "h = Here(folder, cache, LocalDriver(folder / 'local', cache, OWNER, no_secret, os.environ))\n"
        "h.bring(h.wanted())\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    seen = here.seen()
    assert (seen.state.running, seen.mark) == (True, replace(OWNER, address=ADDRESS))
    with urllib.request.urlopen(f"{seen.endpoint}/health", timeout=5) as answer:
        assert answer.status == 200
    assert os.getsid(here.daemon().supervisor.pid) == here.daemon().supervisor.pid


def test_crashed_server_is_started_again_by_its_supervisor(here: Here) -> None:
    made = here.bring(here.wanted())
    first = here.daemon().server
    assert first is not None
    os.kill(first.pid, signal.SIGSEGV)
    assert soon(lambda: here.daemon().restarts == 1 and here.daemon().running)
    assert here.seen().remote_id == made.remote_id
    code = json.loads((here.place / "exits.jsonl").read_text())["code"]
    assert code == -signal.SIGSEGV


def test_killed_supervisor_is_drift_and_apply_leaves_one_server_on_the_same_port(here: Here) -> None:
    made = here.bring(here.wanted())
    orphan = here.daemon().server
    assert orphan is not None
    os.kill(here.daemon().supervisor.pid, signal.SIGKILL)
    assert soon(lambda: not here.daemon().supervisor.alive)
    assert here.seen().state.running is False
    assert orphan.alive
    back = here.bring(here.wanted())
    assert not orphan.alive
    assert (back.state.running, back.endpoint) == (True, made.endpoint)


def test_server_that_no_record_names_is_ended_with_what_its_supervisor_left(here: Here) -> None:
    here.bring(here.wanted())
    orphan = here.daemon().server
    assert orphan is not None
    record = json.loads((here.place / "server.json").read_text())
    (here.place / "server.json").write_text(json.dumps({**record, "server": None}))
    os.kill(here.daemon().supervisor.pid, signal.SIGKILL)
    assert soon(lambda: not here.daemon().supervisor.alive)
    daemon.stop(here.place)
    assert not orphan.alive


def test_server_is_not_started_where_nobody_could_note_who_runs(here: Here) -> None:
    (here.place / "server.json.part").mkdir(parents=True)
    with pytest.raises(BackendError, match="supervisor of tiny"):
        here.bring(here.wanted())
    assert daemon.find(here.place) is None


def test_pid_that_another_process_has_now_is_neither_running_nor_ended(here: Here) -> None:
    here.bring(here.wanted())
    daemon.stop(here.place)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        record = json.loads((here.place / "server.json").read_text())
        record["supervisor"]["pid"] = record["server"]["pid"] = other.pid
        (here.place / "server.json").write_text(json.dumps(record))
        assert here.seen().state.running is False
        daemon.stop(here.place)
        assert other.poll() is None
        other.kill()


def test_failed_start_names_the_first_error_and_the_next_plan_says_not_running(here: Here) -> None:
    with pytest.raises(StartFailed) as failed:
        here.bring(here.wanted("--crash", "ValueError: unknown architecture Foo"))
    assert failed.value.message == (
        "tiny/local:here: did not start: exit code 1; first error: ValueError: unknown architecture Foo"
    )
    assert failed.value.hint == f"the whole log: {here.place / 'log'}"
    assert here.seen().state.running is False
    assert not here.daemon().supervisor.alive


def test_new_launch_that_dies_is_named_and_the_former_one_answers_again(here: Here) -> None:
    good = here.wanted(model=here.model(api_key=Secret("door", "DOOR")))
    before = here.bring(good)
    with pytest.raises(
        StartFailed, match="unknown architecture Foo; what ran before was started again"
    ) as failed:
        here.bring(here.wanted("--crash", "ValueError: unknown architecture Foo"))
    assert failed.value.hint is not None
    assert "ValueError" in Path(failed.value.hint.partition(": ")[2]).read_text()
    seen = here.seen()
    assert fields_of(seen.state) == fields_of(good.desired)
    assert (seen.endpoint, seen.state.running) == (before.endpoint, True)
    assert soon(lambda: is_healthy(str(seen.endpoint)))
    assert ask(str(seen.endpoint), "tiny", Question("?"), "value-of-door", 5).answer == "the sky is blue"
    assert not (here.place / "former").exists()
    assert here.bring(here.wanted("--no-chat")).proof is not None  # the change still is one, and can be made


def is_up(place: Path) -> bool:
    found = daemon.find(place)
    return found is not None and found.running


def test_former_launch_answers_again_when_the_run_before_was_cut_off(here: Here, tmp_path: Path) -> None:
    good = here.wanted()
    here.bring(good)
    program = (
        "from pathlib import Path; from tests.integration.test_local_target import *\n"
        "folder = Path(sys.argv[1]); cache = Cache(folder / 'cache')\n"
        "h = Here(folder, cache, LocalDriver(folder / 'local', cache, OWNER, no_secret, os.environ))\n"
        "h.bring(h.wanted('--slow', '60'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as cut_off:
        assert soon(lambda: not here.seen().state.running and is_up(here.place), timeout_s=60)
        cut_off.kill()
    with pytest.raises(StartFailed, match="what ran before was started again"):
        here.bring(here.wanted("--crash", "ValueError"))
    assert here.seen().state == replace(good.desired, recipe=None)


def test_port_that_is_taken_leaves_the_former_launch_running(here: Here) -> None:
    good = here.wanted()
    here.bring(good)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(StartFailed, match="is taken by another program; what ran before"):
            here.bring(here.wanted(port=held.getsockname()[1]))
    assert here.seen().state.running


def test_delete_takes_the_record_last_so_that_no_secret_is_left_without_one(here: Here) -> None:
    here.bring(here.wanted(model=here.model(api_key=Secret("door", "DOOR"))))
    removed: list[str] = []
    sys.addaudithook(lambda event, args: removed.append(str(args[0])) if event == "os.remove" else None)
    state = fields_of(here.wanted().desired)
    entry = Entry(ADDRESS, "local", {"name": "tiny"}, None, None, state, state)
    here.driver.apply(Change(ADDRESS, "local", Action.DELETE, None, None, entry), {}, engine.ignore)
    assert "MP_API_KEY" in " ".join(removed)
    assert removed[-1] == str(here.place / "process.json")
    assert not here.place.exists()


def test_server_that_is_not_up_in_time_is_ended(here: Here) -> None:
    with pytest.raises(StartFailed, match="not healthy after 1 s"):
        here.bring(here.wanted("--slow", "30", timeout_s=1))
    assert not here.daemon().supervisor.alive


def test_healthy_server_that_fails_its_first_request_is_not_applied(here: Here) -> None:
    with pytest.raises(StartFailed, match="head_dim 16 is not supported"):
        here.bring(here.wanted("--crash-on-request"))
    assert here.seen().state.running is False


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (("--empty",), StartFailed, "empty answer"),
        (("--name", "other"), Missing, '"tiny" is not served here, but "other"'),
    ],
)
def test_server_that_answers_wrongly_is_not_applied(
    here: Here, argv: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        here.bring(here.wanted(*argv))
    assert here.seen().state.running is False


def test_port_is_kept_when_the_launch_changes(here: Here) -> None:
    first = here.bring(here.wanted())
    second = here.bring(here.wanted("--no-chat"))
    assert first.endpoint == second.endpoint
    assert first.remote_id != second.remote_id
    assert second.proof is not None
    assert second.proof.url.endswith("/v1/completions")


def test_declared_port_of_another_program_is_refused_before_anything_starts(here: Here) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(StartFailed, match="is taken by another program"):
            here.bring(here.wanted(port=held.getsockname()[1]))
    assert isinstance(here.look(), Absent)


def test_secrets_are_files_of_this_user_alone_and_in_no_record(here: Here) -> None:
    made = here.bring(here.wanted(model=here.model("blue", Secret("door", "DOOR"))))
    file = here.place / "secrets" / "MP_API_KEY"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert stat.S_IMODE((here.place / "secrets").stat().st_mode) == 0o700
    records = [p for p in here.place.iterdir() if p.is_file()]
    assert not [p for p in records if "value-of-door" in p.read_text()]
    server = here.daemon().server
    assert server is not None
    for name in ("environ", "cmdline"):
        assert b"value-of-door" not in Path(f"/proc/{server.pid}/{name}").read_bytes()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{made.endpoint}/v1/models", timeout=5)


def test_process_of_another_owner_survives_our_delete(here: Here) -> None:
    here.bring(here.wanted())
    state = fields_of(here.wanted().desired)
    other = Entry(Address("other/local:here"), "local", {"name": "tiny"}, None, None, state, state)
    here.driver.apply(Change(other.address, "local", Action.DELETE, None, None, other), {}, engine.ignore)
    assert here.seen().state.running is True


def test_two_models_of_one_name_do_not_take_each_others_process(here: Here) -> None:
    here.bring(here.wanted())
    other = replace(here.wanted(), address=Address("other/local:here"))
    change = Change(other.address, "local", Action.CREATE, other, None, None)
    with pytest.raises(Denied, match='the name "tiny" is taken by tiny/local:here'):
        here.driver.apply(change, {}, engine.ignore)
    assert here.seen().state.running is True


def test_process_that_was_never_proven_is_not_running_and_is_proven_without_a_restart(here: Here) -> None:
    first = here.bring(here.wanted())
    record = json.loads((here.place / "process.json").read_text())
    (here.place / "process.json").write_text(json.dumps({**record, "proof": None}))
    assert here.seen().state.running is False
    second = here.bring(here.wanted())
    assert (second.state.running, second.remote_id) == (True, first.remote_id)


def test_lines_of_the_log_are_shown_while_it_starts(here: Here) -> None:
    events: list[Event] = []
    change = Change(ADDRESS, "local", Action.CREATE, here.wanted("--slow", "1"), None, None)
    (here.place).mkdir(parents=True)
    here.driver.apply(change, {}, events.append)
    assert [e.text for e in events if isinstance(e, Line)] == ["loading weights"]


def test_three_hundred_processes_are_observed_in_a_moment_and_without_a_program(here: Here) -> None:
    one = here.wanted()
    here.bring(one)
    wanted = []
    for number in range(300):
        name = f"copy-{number}"
        shutil.copytree(here.place, here.folder / "local" / name, ignore=shutil.ignore_patterns("secrets"))
        wanted.append(replace(one, address=Address(f"{name}/local:here"), locator={"name": name}))
    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event == "subprocess.Popen" else None)
    began = time.monotonic()
    answers = here.driver.observe(wanted, [])
    seconds = time.monotonic() - began
    for resource in wanted:  # or the fixture would end one process 300 times
        shutil.rmtree(here.folder / "local" / resource.locator["name"])
    assert all(isinstance(answer, Observed) and answer.state.running for answer in answers.values())
    assert (len(answers), started) == (300, [])
    assert seconds < 1


def test_damaged_record_is_unreadable_and_not_absent(here: Here) -> None:
    here.bring(here.wanted())
    (here.place / "process.json").write_text("{")
    answer = here.driver.observe([here.wanted()], [])[ADDRESS]
    assert "is damaged" in getattr(answer, "reason", "")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(here.daemon().supervisor.pid, signal.SIGKILL)


@pytest.mark.transformers
def test_quickstart_checkpoint_is_served_by_the_real_transformers_runtime(
    transformers_python: Path, tmp_path: Path
) -> None:
    cache, locked = Cache(tmp_path / "cache"), locked_engine("transformers")
    environment = environment_path(cache.root, locked)
    environment.parent.mkdir(parents=True)
    environment.symlink_to(transformers_python.parents[1])
    source = LocalSource(tmp_path / "hashes")
    artifact = source.resolve(SourceSpec(f"file://{CHECKPOINT}", ""), None)
    cache.add(artifact, source, engine.ignore, Address("tiny/artifact"))
    questions = (Question("What is mp?", "models.yaml"),)
    model = Model("tiny", artifact, CPU, "transformers", locked, questions=questions)
    template = TEMPLATES["transformers"]
    launch = template.launch(model, template.variant(None, CPU))
    state = state_of(model, launch, None, template.build(locked))
    wanted = Resource(ADDRESS, "local", {"name": "tiny"}, state)
    here = Here(tmp_path, cache, LocalDriver(tmp_path / "local", cache, OWNER, no_secret, os.environ))
    try:
        made = here.bring(wanted)
        assert made.proof is not None
        assert "models.yaml" in made.proof.answer
        assert made.proof.url.endswith("/v1/chat/completions")
        assert fields_of(here.seen().state) == fields_of(state)
    finally:
        daemon.stop(here.place)
