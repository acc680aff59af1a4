"""What `mp pull` and `--pull` do: bring pinned files from their sources into the cache, and copy them out of it into a folder."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cli.cache.storage import Storage, raise_all
from pipeline.cli.cache.wanted import EVERYTHING, Wanted, folder_of_model, source_of, wanted
from pipeline.cli.select import found
from pipeline.cli.views.entries import Pulled
from pipeline.cli.watching import watch
from pipeline.core.errors import ExitCode, Missing, MpError
from pipeline.core.model import Part
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import Address
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.copies import copy_out, require_room


class Interrupted(MpError):
    exit_code = ExitCode.INTERRUPTED


def bring(
    storage: Storage, things: Sequence[Wanted], folder: Path | None = None
) -> tuple[list[Pulled], list[MpError]]:
    """Have everything in the cache, and the files of the one that is wanted in `folder`. What fails is told, the others go on.

    Raises Interrupted after Ctrl-C: what has arrived stays.
    """
    done: list[Pulled] = []
    problems: list[MpError] = []
    if folder:
        for one in things:
            require_room(folder, one.files)
    try:
        with watch(storage.options) as shown:
            for one in things:
                try:
                    brought = [_bring(storage, one, part, shown.emit) for part in one.parts]
                    if folder:
                        brought = _copied(storage, one, brought, folder, shown.emit)
                    done += brought
                except MpError as problem:
                    problems.append(problem)
    except KeyboardInterrupt:
        hint = "run the same command again: it goes on from there"
        raise Interrupted("interrupted: what has arrived is kept", hint) from None
    return done, problems


def folder_of(storage: Storage, word: str, *, pull: bool) -> Path:
    """The entry's folder of the one model that is meant, fetched first with `pull`. Raises UserError when it is not here."""
    if pull:
        done, problems = bring(storage, wanted(storage, [word], EVERYTHING))
        raise_all(problems)
        return done[0].path
    if model := folder_of_model(storage, word):
        return model
    entry = found(word, storage.shelf.list(), storage.settings.root, storage.aliases)
    assert isinstance(entry, Cached), "a reference is only for who pulls"
    if not entry.complete:
        raise Missing("cache", f"{entry.path} is damaged or incomplete", f"run mp pull {word}")
    storage.shelf.use(entry)
    return entry.path


def _bring(storage: Storage, one: Wanted, part: Part, emit: Emit) -> Pulled:
    artifact, cache = part.artifact, storage.cache
    path = cache.folder(artifact)
    if entry := one.here.get(part.role):
        storage.shelf.use(entry)
        return Pulled(one.name, part.role, artifact, path, since=entry.fetched_at)
    began = time.monotonic()
    missing_bytes = cache.missing_bytes(artifact)
    cache.add(artifact, source_of(storage, artifact.source), emit, Address(_shown(one, part)))
    return Pulled(one.name, part.role, artifact, path, missing_bytes, time.monotonic() - began)


def _copied(storage: Storage, one: Wanted, brought: list[Pulled], folder: Path, emit: Emit) -> list[Pulled]:
    """The same, out of the cache: `path` is the folder now."""
    guard, done_bytes = threading.Lock(), 0
    total_bytes = sum(entry.size_bytes for entry in one.files.values())

    def on_bytes(count: int) -> None:
        nonlocal done_bytes
        with guard:
            done_bytes += count
            emit(Progress(Address(one.name), "copy", done_bytes, total_bytes))

    copy_out(storage.cache, one.files, folder, on_bytes)
    return [replace(each, path=folder) for each in brought]


def _shown(one: Wanted, part: Part) -> str:
    """What progress calls it: the model with its role, or the last parts of the reference."""
    if "/" not in one.name:
        return f"{one.name} {part.role}" if len(one.parts) > 1 else one.name
    return part.artifact.source.partition("://")[2].strip("/")
