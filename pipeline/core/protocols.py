"""The five protocols. Each has a contract suite in tests/contract that every backend and every fake runs through.

Checks is a sixth, for drivers of places that can be asked whether they would take what is planned.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from typing import Any, BinaryIO, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from pipeline.core.change import Change
from pipeline.core.diagnostic import Diagnostic, Mistake, Where
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Engine, Launch, Registry, Variant
from pipeline.core.model import Artifact, FileEntry, Filter, Hardware, Model, Standing, Stated
from pipeline.core.report import Emit
from pipeline.core.resource import Absent, Address, Entry, Observed, Resource, S, Unreadable

P = TypeVar("P")
Answer: TypeAlias = "Observed[Any] | Absent | Unreadable"


@frozen
class SourceSpec:
    """Where weights come from, as the user wrote it, parsed."""

    reference: str  # canonical: "hf://Qwen/Qwen3-8B", "file:///abs/path"
    version: str  # "main"; "" where the source has none
    filter: Filter = Filter()
    kept: bool = (
        True  # False: nothing of it may stay on this disk, so what is read for its hash is read again
    )


@frozen
class Place(Generic[P]):
    """One model at one target: the target's spec, the entry's options, the registry images come from."""

    name: str  # the target's key in `targets:`
    spec: P  # the target's spec
    options: Any  # the entry's options: the target's own options class
    registry: Registry
    project: str
    environment: str
    where: Where | None = field(default=None, compare=False)


class Absorb(Protocol):
    """Learns the sha256 of bytes whose source cannot tell it, by reading them once; `keep` leaves them in the cache."""

    def __call__(
        self,
        identity: str,
        size_bytes: int | None,
        opening: Callable[[int], AbstractContextManager[BinaryIO]],
        *,
        keep: bool = True,
    ) -> tuple[str, int]:
        """sha256 (64 hex) and size of the bytes that `opening` gives from an offset.

        `identity` is one line that names immutable bytes ("s3://b/k etag=…"): the second time nothing is read.
        Raises what `opening` raises, Corrupt when the length is not `size_bytes`, Exhausted.
        """
        ...


class Source(Protocol):
    def resolve(self, spec: SourceSpec, known: Artifact | None) -> Artifact:
        """Pin a version: files with size and sha256, facts. Metadata only, no weights where the source tells their hash.

        `known` is the lock's artifact; a source may use it to spare work (a local folder that did not change).
        Raises Refused for files that run code, Missing, Denied, Unreachable. May be repeated.
        """
        ...

    def open(self, artifact: Artifact, entry: FileEntry, start: int) -> AbstractContextManager[BinaryIO]:
        """The bytes of one pinned file from an offset. The reader verifies them. Raises Missing, Denied, Unreachable."""
        ...


class Template(Protocol):
    """Pure: how a kind of model is served."""

    def versions(self) -> tuple[str, ...]:
        """Engine versions that data files describe, newest first."""
        ...

    def variant(self, version: str | None, hardware: Hardware) -> Variant:
        """The variant for a hardware class ("cuda" when it has GPUs); version None is the newest that has it.

        Raises LookupError with the known versions.
        """
        ...

    def faces(self) -> tuple[str, ...]:
        """APIs that it can serve beside OpenAI's: "llama2-generate"; a model gets those that its entry names."""
        ...

    def mistakes(self, stated: Stated) -> Iterable[Mistake]:
        """What of an entry it cannot serve, whatever its source holds. Reads no source, loads no engine."""
        ...

    def build(self, engine: Engine) -> Build:
        """The engine image's inputs. No Hardware: an image fits any GPU count."""
        ...

    def launch(self, model: Model, variant: Variant) -> Launch:
        """Flags, environment, port. Raises UserError for flags that mp sets itself."""
        ...


class Target(Protocol):
    """Pure: where a model runs or is published."""

    def expand(
        self, place: Place[Any], model: Model, build: Build, launch: Launch
    ) -> Iterable[Resource[Any]]:
        """The resources of one model at this target, deployment first. What they need is named by address."""
        ...


@runtime_checkable
class Refuses(Protocol):
    """What a target has besides whose words allow more than it can do."""

    def mistakes(self, place: Place[Any], stated: Stated) -> Iterable[Mistake]:
        """What models.yaml alone shows to be impossible here, each at its key. `expand` never meets it.

        Reads nothing: what only this machine shows is for `expand`. Said when the file is read: `mp validate` and `mp plan` alike.
        """
        ...


@runtime_checkable
class Stands(Protocol):
    """What a target has besides that knows things which others made."""

    def stand(self, place: Place[Any], entry: Standing) -> Resource[Any]:
        """The one resource of an entry for which mp makes nothing: as far as the entry describes it. Raises UserError."""
        ...


class Driver(Protocol[S]):
    """Observes and applies one kind of resource; the only protocol that writes."""

    def observe(
        self, wanted: Sequence[Resource[S]], known: Sequence[Entry]
    ) -> Mapping[Address, Observed[S] | Absent | Unreadable]:
        """Answer for every wanted resource and for every known entry that is not wanted. Reads only.

        Of kept kinds (images), and for a driver that LooksBack, the entries of wanted resources are among `known` too: where
        the wanted content is not there, the answer is what was applied before, so that a change is shown as one.

        One list per outside system, not a request per object. What fails is Unreadable for its own addresses.
        """
        ...

    def apply(
        self, change: Change[S], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[S] | None:
        """Carry out one change; None after a delete. Idempotent; returns when proven; raises BackendError."""
        ...


@frozen
class Findings:
    """What a place says of changes before they are made."""

    refusals: tuple[Diagnostic, ...] = ()  # it would not take them
    barred: tuple[Diagnostic, ...] = ()  # not from this account; another one may apply them
    remarks: tuple[Diagnostic, ...] = ()  # what may go wrong, and what could not be asked

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(
            self.refusals + other.refusals, self.barred + other.barred, self.remarks + other.remarks
        )


@runtime_checkable
class Checks(Protocol):
    """What the driver of a place that can say no beforehand has besides."""

    def check(self, changes: Sequence[Change[Any]]) -> Findings:
        """Whether the place would take these changes, all problems at once. Reads only; raises BackendError.

        The number of requests does not grow with the number of changes.
        """
        ...


@runtime_checkable
class Remarks(Protocol):
    """What a driver has besides that is told names by hand, which may be slips."""

    def remarks(self) -> Sequence[Diagnostic]:
        """What is to be said of them, once everything was observed. Asks nobody."""
        ...


@runtime_checkable
class LooksBack(Protocol):
    """A driver of things that change their form, such as a Deployment that becomes a StatefulSet: what was applied is looked at."""

    looks_back: bool
