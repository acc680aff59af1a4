"""The inventory, journal and lease on this machine's disk: the embedded default. Made by wiring.

`<folder>/inventory.json` is a snapshot; `<folder>/journal.jsonl` holds the steps since, one JSON line each. A run
appends; its end writes a new snapshot and starts the journal anew. `<folder>/history.jsonl` keeps what was done. A killed run leaves its lines, and the next
load replays them: a step that began and did not end is kept as an entry whose state is not known.
"""

import contextlib
import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pipeline.core.change import Action
from pipeline.core.errors import BackendError, Exhausted, LockHeld, Stale
from pipeline.core.resource import Address, Entry
from pipeline.store.history import Past, past_from_json, past_to_json
from pipeline.store.inventory import Inventory, entry_from_json, entry_to_json

FORMAT_VERSION = 1


class FileStore:
    """One environment's inventory in a folder; several processes may use it, one writes at a time (flock)."""

    def __init__(self, folder: Path, project: str, environment: str) -> None:
        self._folder = folder
        self._project = project
        self._environment = environment

    def load(self) -> Inventory:
        inventory = self._snapshot()
        entries = dict(inventory.entries)
        for step in _lines(self.journal):
            _replay(entries, step)
        return Inventory(entries, inventory.generation, inventory.commit)

    def history(self) -> Iterator[Past]:
        for record in _lines(self.past):
            try:
                yield past_from_json(record)
            except (KeyError, TypeError, ValueError):
                continue  # of another mp: the other lines still tell something

    def run(self, inventory: Inventory) -> "FileRun":
        return FileRun(self, inventory)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def snapshot(self) -> Path:
        return self._folder / "inventory.json"

    @property
    def past(self) -> Path:
        return self._folder / "history.jsonl"

    @property
    def journal(self) -> Path:
        return self._folder / "journal.jsonl"

    def _snapshot(self) -> Inventory:
        try:
            record = json.loads(self.snapshot.read_bytes())
            return self._inventory(record)
        except FileNotFoundError:
            return Inventory()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise BackendError(
                "inventory",
                f"cannot read {self.snapshot}: {problem}",
                "put back a copy, or remove the file: what still carries our marks is found again",
            ) from problem

    def _inventory(self, record: Mapping[str, Any]) -> Inventory:
        if record.get("format_version") != FORMAT_VERSION or record.get("project") != self._project:
            raise BackendError(
                "inventory",
                f'{self.snapshot} belongs to project "{record.get("project")}", format {record.get("format_version")}',
                "use another folder, or the mp that wrote it",
            )
        entries = {Address(a): entry_from_json(a, e) for a, e in record["entries"].items()}
        return Inventory(entries, record["generation"], record.get("commit"))

    def save(self, inventory: Inventory) -> None:
        """Replace the snapshot in one step, then start the journal anew."""
        record = {
            "format_version": FORMAT_VERSION,
            "project": self._project,
            "environment": self._environment,
            "generation": inventory.generation,
            "commit": inventory.commit,
            "entries": {a: entry_to_json(inventory.entries[a]) for a in sorted(inventory.entries)},
        }
        temporary = self.snapshot.with_suffix(".new")
        with _disk(self._folder):
            try:
                with temporary.open("wb") as stream:
                    stream.write(json.dumps(record, separators=(",", ":")).encode())
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(self.snapshot)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            self.journal.unlink(missing_ok=True)
            _fsync_folder(self._folder)


def stores(folder: Path, project: str) -> dict[str, FileStore]:
    """Those of a project by environment: every folder in `folder` is one."""
    environments = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    return {name: FileStore(folder / name, project, name) for name in environments}


class FileRun:
    """A run's pen: takes the lease at its first step, appends to the journal, writes the snapshot at the end."""

    def __init__(self, store: FileStore, inventory: Inventory) -> None:
        self._store = store
        self._read = inventory
        self._entries = dict(inventory.entries)
        self._lease: IO[bytes] | None = None
        self._journal: IO[bytes] | None = None
        self._guard = threading.Lock()

    def ready(self) -> None:
        with self._guard, contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as undo:
            if self._lease is None:
                _take(undo.enter_context((self._store.folder / "lease").open("r+b", buffering=0)))
                self._check(self._store.load())

    def hold(self) -> None:
        with self._guard:
            self._open()

    def begin(self, address: Address, action: Action, entry: Entry | None) -> None:
        with self._guard:
            self._open()
            self._write({"begin": address, "action": action, "entry": _json_or_none(entry)}, durable=True)
            if entry is not None:
                self._entries[address] = entry

    def end(self, address: Address, entry: Entry | None) -> None:
        with self._guard:
            self._open()
            self._write({"end": address, "entry": _json_or_none(entry)}, durable=False)
            _put(self._entries, address, entry)

    def note(self, address: Address, text: str) -> None:
        with self._guard:
            if self._journal is not None:
                self._write({"note": address, "text": text}, durable=False)

    def record(self, past: Past) -> None:
        with self._guard, _disk(self._store.folder):
            self._store.folder.mkdir(parents=True, exist_ok=True)
            with self._store.past.open("ab") as stream:  # one write, so that a line is whole or last
                stream.write(json.dumps(past_to_json(past), separators=(",", ":")).encode() + b"\n")

    def close(self, commit: str | None) -> None:
        with self._guard:
            if self._lease is None:
                return
            if self._journal is not None:
                self._journal.close()
            made = Inventory(self._entries, self._read.generation + 1, commit or self._read.commit)
            try:
                self._store.save(made)  # when it fails, the journal has all of it
            finally:
                self._lease.close()  # the flock goes with it
                self._lease = None

    def _open(self) -> None:
        if self._lease is not None:
            return
        with _disk(self._store.folder), contextlib.ExitStack() as undo:
            self._store.folder.mkdir(parents=True, exist_ok=True)
            lease = undo.enter_context((self._store.folder / "lease").open("a+b", buffering=0))
            _take(lease)
            now = self._store.load()
            self._check(now)
            if self._store.journal.exists():  # a killed run's: fold it in
                self._store.save(now)
            lease.truncate(0)
            lease.write(f"process {os.getpid()}".encode())
            self._journal = self._store.journal.open("ab", buffering=0)
            self._lease = lease
            undo.pop_all()

    def _check(self, now: Inventory) -> None:
        if now.generation != self._read.generation or now.entries != self._read.entries:
            raise Stale("another apply finished since this plan was made", "plan again")

    def _write(self, step: dict[str, Any], *, durable: bool) -> None:
        """A whole line or nothing; a killed process loses nothing, a power cut may lose the end of a step, never its begin."""
        assert self._journal is not None
        line = json.dumps(step, separators=(",", ":")).encode() + b"\n"
        with _disk(self._store.folder):
            start = self._journal.seek(0, os.SEEK_END)
            try:
                written = self._journal.write(line)
                while written < len(line):  # a full disk takes a part; the next call says why
                    written += self._journal.write(line[written:])
            except OSError:
                self._journal.truncate(start)  # what is written later must not stand behind half a line
                raise
            if durable:
                os.fsync(self._journal.fileno())


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of JSON; the torn last one of a killed run is left out: its step had no effect yet."""
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return
    except OSError as problem:
        raise BackendError("inventory", f"cannot read {file}: {problem.strerror}") from problem
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as problem:
            if number == len(lines):
                return
            raise BackendError(
                "inventory",
                f"line {number} of {file} is damaged",
                "remove that line: what its step made still carries our marks and is found again",
            ) from problem


def _take(lease: IO[bytes]) -> None:
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lease.seek(0)
        holder = lease.read().decode(errors="replace").strip() or "another process"
        raise LockHeld(f"another apply is running ({holder})", "wait for it, then run again") from None


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn the operating system's errors while writing the inventory into ours."""
    try:
        yield
    except OSError as problem:
        text = f"cannot write below {folder}: {problem.strerror}"
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted("inventory", text, "free some space on this disk, then run it again") from problem
        raise BackendError("inventory", text, "look at the folder's permissions and its disk") from problem


def _json_or_none(entry: Entry | None) -> dict[str, Any] | None:
    return None if entry is None else entry_to_json(entry)


def _put(entries: dict[Address, Entry], address: Address, entry: Entry | None) -> None:
    if entry is None:
        entries.pop(address, None)
    else:
        entries[address] = entry


def _replay(entries: dict[Address, Entry], step: dict[str, Any]) -> None:
    if "begin" in step and step["entry"] is not None:
        address = Address(step["begin"])
        entries[address] = entry_from_json(address, step["entry"])
    elif "end" in step:
        address = Address(step["end"])
        _put(entries, address, None if step["entry"] is None else entry_from_json(address, step["entry"]))


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
