"""A world in memory: a source and a driver that keep the contracts, for cases and engine tests."""

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from pipeline.core.change import Action, Change
from pipeline.core.digest import Digest, Json, digest, fingerprint
from pipeline.core.errors import BackendError, Missing
from pipeline.core.frozen import frozen
from pipeline.core.model import Artifact, FileEntry
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Mark,
    Observed,
    Proof,
    Resource,
    State,
    Transfer,
    Unreadable,
    Version,
    current_of,
    fields_of,
)
from pipeline.resources.cluster.canary import beside
from pipeline.sources.choice import choose
from pipeline.sources.facts import facts, telling
from pipeline.sources.safety import require_safe

KEPT = ("artifact", "engine", "filler", "image")  # a delete leaves them, as the real drivers do
SHARED = ("artifact", "engine", "filler")  # several of them have one locator

Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@frozen
class Thing:
    """Something that exists in the memory world."""

    locator: tuple[tuple[str, str], ...]
    state: State
    mark: Mark | None
    digest: Digest | None = None


@dataclass
class MemoryDriver:
    """One kind of resource, kept in a dict by place: two addresses with one locator mean one thing. `broken` and `unreadable` inject faults by address."""

    kind: str
    project: str
    environment: str = "default"
    things: dict[Key, Thing] = field(default_factory=dict)
    broken: dict[Address, str] = field(default_factory=dict)
    unreadable: dict[Address, str] = field(default_factory=dict)
    transfers: dict[Address, Transfer] = field(default_factory=dict)
    applied: list[tuple[Action, Address]] = field(default_factory=list)
    past: dict[str, State] = field(default_factory=dict)  # desired states of versions that were good
    guard: threading.Lock = field(default_factory=threading.Lock)

    def observe(
        self, wanted: Sequence[Resource[Any]], known: Sequence[Entry]
    ) -> Mapping[Address, Observed[Any] | Absent | Unreadable]:
        answers: dict[Address, Observed[Any] | Absent | Unreadable] = {}
        asked = [(r.address, r.locator) for r in wanted]
        if self.kind == "artifact":  # no entry says where one is
            answers |= {entry.address: Absent() for entry in known}
        else:
            asked += [(entry.address, entry.locator) for entry in known]
        for address, locator in asked:
            if address in self.unreadable:
                answers[address] = Unreadable(self.unreadable[address])
                continue
            found = self.things.get(self.key(address, locator))
            cost = self.transfers.get(address, Transfer())
            if found is None:
                answers[address] = Absent(cost)
            else:
                answers[address] = Observed(found.state, found.mark, digest=found.digest, transfer=cost)
        return answers

    def apply(
        self, change: Change[Any], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[Any] | None:
        with self.guard:
            self.applied.append((change.action, change.address))
            if change.address in self.broken:
                raise BackendError(self.kind, self.broken[change.address], "mend it")
            if change.action is Action.DELETE:
                assert change.entry is not None
                if self.kind not in KEPT:
                    self.things.pop(self.key(change.address, change.entry.locator), None)
                return None
            resource = change.resource
            assert resource is not None
            missing = [need for need in resource.needs if need not in inputs]
            assert not missing, f"{change.address} was started without {missing}"
            emit(Progress(change.address, "make", 1, 1))
            mark = Mark(self.project, self.environment, resource.address)
            thing = Thing(
                tuple(sorted(resource.locator.items())),
                resource.desired,
                mark if resource.tracked else None,
                digest(fingerprint(fields_of(resource.desired)).encode()) if resource.keep else None,
            )
            self.things[self.key(resource.address, resource.locator)] = thing
            return Observed(
                thing.state,
                thing.mark,
                digest=thing.digest,
                proof=_proof(resource),
                accepted=resource.kind == "kubernetes",  # as with prove: skip
            )

    def recall(self, resource: Resource[Any], inputs: Mapping[Address, Observed[Any]]) -> Mapping[str, Json]:
        name = fingerprint(fields_of(resource.desired))
        self.past[name] = resource.desired
        return {"name": name}

    def restore(self, entry: Entry, version: Version) -> Resource[Any]:
        assert version.recipe is not None, "it was recalled"
        return Resource(entry.address, entry.kind, entry.locator, self.past[str(version.recipe["name"])])

    def beside(self, wanted: Resource[Any], good: Resource[Any]) -> Resource[Any] | None:
        return beside(wanted, good)

    def key(self, address: Address, locator: Mapping[str, str]) -> Key:
        name = current_of(address) if self.kind in SHARED else ""
        return (name, tuple(sorted(locator.items())))


def _proof(resource: Resource[Any]) -> Proof | None:
    return (
        Proof("http://127.0.0.1:8000", "hello", "world", 0.1)
        if resource.kind in ("local", "docker")
        else None
    )


class MemorySource:
    """A source whose repositories are dicts: reference → version → path → bytes."""

    def __init__(self, repositories: Mapping[str, Mapping[str, Mapping[str, bytes]]]) -> None:
        self.repositories = repositories

    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        files = self._files(spec.reference, spec.version)
        choice = choose(spec, {path: len(content) for path, content in files.items()})
        entries = tuple(
            FileEntry(path, len(files[path]), digest(files[path]).removeprefix("sha256:"))
            for path in choice.paths
        )
        content = {path: files[path] for path in telling(choice.paths)}
        pin = fingerprint([[e.path, e.sha256] for e in entries])[:40]
        require_safe(spec, choice, content, {e.path: e.sha256 for e in entries}, pin)
        said = facts(content)
        return Artifact(spec.reference, spec.version, pin, entries, said, spec.filter, choice.left_out_bytes)

    @contextmanager
    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> Iterator[BinaryIO]:
        body = self._files(artifact.source, artifact.version).get(entry.path)
        if body is None:
            raise Missing(artifact.source, f'no file "{entry.path}"')
        yield io.BytesIO(body[start:])

    def _files(self, reference: str, version: str) -> Mapping[str, bytes]:
        try:
            return self.repositories[reference][version]
        except KeyError:
            raise Missing(
                reference, f'no version "{version}"', "look at the repository's branches and tags"
            ) from None
