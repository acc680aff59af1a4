"""Starts, finds and stops server processes of this machine; each has a folder with its log under `.mp/local/`."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.clients import daemon
from pipeline.clients.openai import Server, wait_until_answering
from pipeline.core.change import Action, Change
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Denied, Missing, StartFailed
from pipeline.core.model import Secret
from pipeline.core.report import Emit, Line, Progress
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Locator,
    Mark,
    Observed,
    Proof,
    Resource,
    Unreadable,
    Version,
    current_of,
    fields_of,
)
from pipeline.resources.cache.store import Cache
from pipeline.resources.engine.environment import environment_folder
from pipeline.targets.local import former
from pipeline.targets.local.ports import port_for
from pipeline.targets.local.record import HOST, Process, read, write
from pipeline.targets.local.restoring import recalled, restored
from pipeline.targets.local.spec import LocalRecipe, LocalState
from pipeline.templates.launch import document

Answer = Observed[LocalState] | Absent | Unreadable


class LocalDriver:
    """Processes of one project and environment on this machine."""

    def __init__(
        self,
        folder: Path,  # `.mp/local`
        cache: Cache,
        owner: Mark,  # whose processes these are; the address is filled in for each
        secret: Callable[[Secret], str],
        environ: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._cache = cache
        self._owner = owner
        self._secret = secret
        self._environ = environ

    def observe(
        self, wanted: Sequence[Resource[LocalState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """Read each process.json and look into /proc; no request is sent and no program is run."""
        answers = {resource.address: self._look(resource.locator) for resource in wanted}
        return answers | {entry.address: self._look(entry.locator) for entry in known}

    def apply(
        self, change: Change[LocalState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[LocalState] | None:
        """Start anew what is not as wanted, and prove it; the port is kept. Raises StartFailed, Corrupt.

        When that fails, what ran before is started again.
        """
        if change.resource is None or change.action is Action.DELETE:
            assert change.entry is not None, "what is deleted was known"
            self._delete(self._folder / change.entry.locator["name"], change.entry.address)
            return None
        return self._bring(change.resource, emit)

    def recall(
        self, resource: Resource[LocalState], inputs: Mapping[Address, Observed[Any]]
    ) -> Mapping[str, Json]:
        return recalled(resource)

    def restore(self, entry: Entry, version: Version) -> Resource[LocalState]:
        return restored(entry, version)

    def _look(self, locator: Locator) -> Answer:
        folder = self._folder / locator["name"]
        try:
            process = read(folder)
            return Absent() if process is None else _seen(folder, process)
        except BackendError as problem:
            return Unreadable(problem.message, problem.hint)

    def _delete(self, folder: Path, address: Address) -> None:
        process = read(folder)
        if process is not None and process.mark == self._mark(current_of(address)):
            daemon.stop(folder)
            _remove(folder)

    def _bring(self, resource: Resource[LocalState], emit: Emit) -> Observed[LocalState]:
        state, folder = resource.desired, self._folder / resource.locator["name"]
        before = self._own(folder, resource.address)
        if before is not None and _still_runs(folder, before, state):  # a run was cut off before the proof
            with former.fallback(folder):
                return self._proven(resource, before, folder, emit)
        recipe = _recipe(state)
        emit(Progress(resource.address, "verify"))
        weights = self._cache.view(recipe.files, recipe.overlays)
        argv = [str(self._python(state)), recipe.serve, str(folder / "launch.json")]
        secrets = {variable: self._secret(secret) for variable, secret in recipe.secrets.items()}
        if before is not None and before.proof is not None:
            former.discard(folder)
            if _seen(folder, before).state.running:
                former.put_aside(folder)
        with former.fallback(folder):
            daemon.stop(folder)
            process = Process(self._mark(resource.address), state, port_for(resource, before), None)
            folder.mkdir(parents=True, exist_ok=True)
            write(folder, process)  # before the secrets: what has a record can be deleted
            files = _hand_over(folder, secrets)
            launch = document(recipe.launch, model=str(weights), host=HOST, port=process.port, secrets=files)
            daemon.write(folder / "launch.json", launch)
            emit(Progress(resource.address, "start"))
            daemon.start(folder, argv, daemon.environ_for(self._environ))
            return self._proven(resource, process, folder, emit)

    def _own(self, folder: Path, address: Address) -> Process | None:
        """What the folder remembers. Raises Denied when it is another's."""
        process = read(folder)
        if process is not None and process.mark != self._mark(address):
            raise Denied(
                str(address),
                f'the name "{folder.name}" is taken by {process.mark.address}',
                "choose another name",
            )
        return process

    def _proven(
        self, resource: Resource[LocalState], process: Process, folder: Path, emit: Emit
    ) -> Observed[LocalState]:
        """Wait for the answer and remember it."""
        proof = self._prove(resource, process, folder, emit)
        process = replace(process, proof=proof)
        write(folder, process)
        return replace(_seen(folder, process), proof=proof)

    def _prove(self, resource: Resource[LocalState], process: Process, folder: Path, emit: Emit) -> Proof:
        recipe = _recipe(resource.desired)
        server = Server(
            system=resource.address,
            endpoint=process.endpoint,
            served_name=recipe.launch.served_name,
            api_key=None if recipe.api_key is None else self._secret(recipe.api_key),
            alive=lambda: daemon.ended(folder),
            log=lambda: daemon.log(folder),
        )
        try:
            return wait_until_answering(
                server,
                recipe.questions,
                recipe.launch.start_timeout_s,
                _following(folder, resource.address, emit),
            )
        except StartFailed as problem:
            problem.hint = problem.hint or f"the whole log: {former.log_of_failure(folder)}"
            raise

    def _mark(self, address: Address) -> Mark:
        return replace(self._owner, address=address)

    def _python(self, state: LocalState) -> Path:
        python = environment_folder(self._cache.root, state.environment) / "bin" / "python"
        if not python.exists():
            raise Missing("environment", f"{state.environment} is not installed", "run mp apply")
        return python


def _seen(folder: Path, process: Process) -> Observed[LocalState]:
    """What was started, and whether it still runs; what never answered does not count as running."""
    found = daemon.find(folder)
    running = found is not None and found.running and process.proof is not None
    return Observed(
        replace(process.state, running=running),
        mark=process.mark,
        remote_id=str(found.supervisor.pid) if found is not None else None,
        endpoint=process.endpoint if running else None,
    )


def _still_runs(folder: Path, before: Process, state: LocalState) -> bool:
    """It was started as it is wanted now and has not ended since."""
    found = daemon.find(folder)
    same = fields_of(before.state) == fields_of(state)
    return same and found is not None and found.running and daemon.ended(folder) is None


def _recipe(state: LocalState) -> LocalRecipe:
    assert state.recipe is not None, "a desired process knows how it is made"
    return state.recipe


def _remove(folder: Path) -> None:
    """The record goes last: what is cut off leaves no secret that nobody knows of."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != former.RECORD:
            entry.unlink()
    (folder / former.RECORD).unlink()
    folder.rmdir()


def _hand_over(folder: Path, secrets: Mapping[str, str]) -> dict[str, str]:
    """Write each secret to a file that only this user can read; environment variable → file."""
    place = folder / "secrets"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True, mode=0o700)
    files = {}
    for variable, value in secrets.items():
        file = place / variable
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as out:
            out.write(value)
        files[variable] = str(file)
    return files


def _following(folder: Path, address: Address, emit: Emit) -> Callable[[], None]:
    """Show the last line of the log whenever there is a new one."""
    last = ""

    def on_wait() -> None:
        nonlocal last
        text = next((line for line in reversed(daemon.log(folder, 4096).splitlines()) if line.strip()), "")
        if text != last:
            last = text
            emit(Line(address, text))

    return on_wait
