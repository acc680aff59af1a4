"""Resources: addressable things mp manages, what is wanted of them and what was seen. Drivers and diff speak these."""

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Generic, NamedTuple, NewType, TypeVar, cast

from pipeline.core.diagnostic import Where
from pipeline.core.digest import Digest, Json, fingerprint
from pipeline.core.frozen import frozen
from pipeline.core.model import Lifecycle

# "@engine/vllm-0.32.0-cpu:main", "qwen3-8b/artifact", "qwen3-8b/image:main", "qwen3-8b/docker:box"
Address = NewType("Address", str)


def address(owner: str, kind: str, place: str | None = None) -> Address:
    """An address from its parts: owner "qwen3-8b", kind "docker", place "box"."""
    return Address(f"{owner}/{kind}:{place}" if place else f"{owner}/{kind}")


def owner_of(where: Address) -> str:
    """The model of an address, or "@engine", "@environment"."""
    return where.split("/", 1)[0]


def place_of(where: Address) -> str | None:
    """The registry or target of an address."""
    _, _, place = where.partition(":")
    return place or None


def current_of(where: Address) -> Address:
    """The address that was declared, and that marks bear, also of a thing at a place it has left."""
    return Address(where.partition("~")[0])


def said_of(where: str) -> str:
    """An address or the place in it as people know it: "m/docker:box", and "m/docker:box, before" of a place that was left."""
    here, left, _ = where.partition("~")
    return f"{here}, before" if left else here


def previous_of(where: Address, locator: Mapping[str, str]) -> Address:
    """What a thing is called at a place it has left and is still to be removed from: "m/docker:box~1a2b3c4d"."""
    return Address(f"{current_of(where)}~{fingerprint(dict(locator))[:8]}")


@frozen
class State:
    """One resource in the fields mp manages; desired and observed share the type, so one diff serves all.

    A field with compare=False is recipe (the Build of an image), not state. Values are JSON-shaped: str, numbers,
    bool, None, tuples and mappings of these, nested State-like dataclasses.
    """

    adoptable: ClassVar[bool] = False  # its driver can take over what others made

    def compared(self, applied: Mapping[str, Json]) -> Mapping[str, Json]:
        """Of what was applied last the fields that are compared now: some may be left to others since."""
        return applied

    def replaces(self, path: str) -> bool:
        """Whether a change of this field takes another thing; `path` as in FieldDiff."""
        replacing = {f.name for f in dataclasses.fields(self) if f.metadata.get("replace")}
        return path.split("/")[0] in replacing

    def only_marks(self, path: str) -> bool:
        """Whether a change of this field touches marks alone: nothing is needed that the thing is made from."""
        return False

    def restarts(self, path: str) -> bool:
        """Whether a change of this field interrupts what runs; asked of what is taken over from others."""
        return True


S = TypeVar("S", bound=State)


def fields_of(state: State) -> dict[str, Json]:
    """The compared fields of a state as JSON: what diff reads and the inventory keeps."""
    return {f.name: _json(getattr(state, f.name)) for f in dataclasses.fields(state) if f.compare}


_PLAIN = frozenset((str, int, float, bool, type(None)))


def _json(value: object) -> Json:
    kind = type(value)  # first what nearly every value is: plans compare a hundred thousand
    if kind in _PLAIN:
        return cast(Json, value)
    if kind is dict or isinstance(value, Mapping):
        members = cast(Mapping[str, object], value)
        return {str(key): _json(members[key]) for key in sorted(members)}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _json(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
    return cast(Json, value)


Locator = Mapping[
    str, str
]  # where a thing is found without the manifest: {"host": "unix://…", "name": "qwen"}


@frozen
class Transfer:
    """Bytes that bringing a resource to its desired state would move."""

    download_bytes: int = 0
    push_bytes: int = 0
    reused_bytes: int = 0
    exact: bool = True  # False: "at most"

    def __add__(self, other: "Transfer") -> "Transfer":
        return Transfer(
            self.download_bytes + other.download_bytes,
            self.push_bytes + other.push_bytes,
            self.reused_bytes + other.reused_bytes,
            self.exact and other.exact,
        )


@frozen
class Mark:
    """The owner mark on a thing mp made: a label, an annotation."""

    project: str
    environment: str
    address: Address


@frozen
class Identity:
    """Which outside system answered under a name: the name may come to mean another one."""

    system: str  # the name: "kubernetes prod"
    uid: str = ""  # what the system calls itself by; "" where this account may not ask
    authority: str = ""  # second best: a hash of what its certificate is trusted by

    def differs(self, other: "Identity") -> bool:
        """Whether the two are surely not one system. What is known of one of them alone says nothing."""
        if self.uid and other.uid:
            return self.uid != other.uid
        return bool(self.authority and other.authority) and self.authority != other.authority


@frozen
class Proof:
    """One real request that was answered."""

    url: str
    prompt: str
    answer: str
    seconds: float


@frozen
class Contents:
    """What a deployment is made of, in words that people know: for causes of failures, for history."""

    model: str = ""  # version and pin of the weights: "v2 (dda5a10)"
    engine: str = ""  # key and fingerprint: "vllm-0.33.0-cuda (0a1b2c3d4e5f)"


@frozen
class Version:
    """A state that was applied and found good, with what its driver needs to bring it again."""

    state: Mapping[str, Json]
    at: float  # when it was first found good: seconds since 1970
    contents: Contents = Contents()
    commit: str | None = None
    recipe: Mapping[str, Json] | None = None  # None: of a kind that cannot be brought back
    proof: Proof | None = None  # the last one
    proof_at: float | None = None  # when that was


@frozen
class Held:
    """A rollback: this version stays until something else is wanted than what was left."""

    wanted: str  # fingerprint of the desired state that was left; "" when it is not known
    version_at: float  # of the version that stays
    since: float


@frozen
class Trial:
    """A canary: a little of a new version beside the good one, until somebody says that it may take its place."""

    wanted: str  # fingerprint of the desired state that is tried
    words: str  # "1 pod of the new version beside 2 of the old"
    contents: Contents = Contents()  # of the new version


@frozen
class Resource(Generic[S]):
    """One thing that shall be so."""

    address: Address
    kind: str  # key into the drivers that wiring built: "artifact", "engine", "image", "environment", "docker", …
    locator: Locator
    desired: S
    needs: tuple[Address, ...] = ()  # applied before this one; their Observed are its inputs
    tracked: bool = (
        True  # kept in the inventory; False for what belongs to this machine only (cache, environments)
    )
    keep: bool = False  # never deleted by apply or destroy (images): prune's business
    optional: bool = False  # its target may be unreadable without failing the plan
    watched: bool = False  # only looked at: nothing is done to it, and nothing is remembered
    lifecycle: Lifecycle = Lifecycle()
    contents: Contents = Contents()  # of a deployment
    held: Held | None = None  # it is an earlier version, which a rollback brought back
    canary: bool = False  # another version is tried beside the good one first
    trial: Trial | None = None  # it is the good version with a canary beside it
    where: Where | None = field(default=None, compare=False)


@frozen
class Observed(Generic[S]):
    """What is there."""

    state: S
    mark: Mark | None = (
        None  # None: somebody else made it (drivers of unmarked kinds give the resource's own)
    )
    maker: str = (
        ""  # "Workspace/qwen": another thing made it and would make it again, so it is never taken over
    )
    remote_id: str | None = None  # container id, pid
    digest: Digest | None = None  # of an image: a tag that moved is seen by it
    would_be: S | None = None  # what the server says the desired state would become
    refused: str | None = None  # why it may not be changed as wanted: somebody else manages a field
    note: str = (
        ""  # what a plan says of it: "HorizontalPodAutoscaler/qwen sets its replicas: they are left alone"
    )
    transfer: Transfer = Transfer()  # if it had to be brought to the desired state
    proof: Proof | None = None  # set by apply of things that answer
    accepted: bool = False  # set by apply: it is good although nothing was asked (prove: skip)
    endpoint: str | None = None  # base URL of things that answer
    runs: Mapping[Address, Digest] = field(
        default_factory=dict
    )  # needs that it has under another name, and the digest of each: it is as said here if they are the same
    otherwise: "Observed[S] | None" = None  # what it is if they are not
    identity: Identity | None = None  # of the system that it is in, where that has one


@frozen
class Absent:
    """Clearly not there."""

    transfer: Transfer = Transfer()  # if it had to be made
    identity: Identity | None = None  # of the system that was asked


@frozen
class Unreadable:
    """Not known: a time-out, 401, 5xx. Never taken for absent."""

    reason: str  # "registry 127.0.0.1:5000: connection refused"
    hint: str | None = None


class Made(NamedTuple):
    """An image that was applied here."""

    tag: str  # "mp-<12 hex>"
    at: float  # when it was applied last: seconds since 1970


@frozen
class Entry:
    """One line of the inventory: what we own, for deletion, three-way drift and rollback."""

    address: Address
    kind: str
    locator: Locator
    remote_id: str | None
    digest: Digest | None
    applied: Mapping[str, Json]  # fields_of the state that was applied last
    good: Mapping[str, Json]  # the last applied state that was proven
    commit: str | None = None
    protect: bool = False
    on_remove: str = "delete"
    keep: bool = False
    made: tuple[Made, ...] = ()  # of what is kept: all that was applied and not pruned, the newest first
    contents: Contents = Contents()  # of what was applied last
    wanted: str = ""  # fingerprint of the state that was desired last, of a deployment
    versions: tuple[
        Version, ...
    ] = ()  # that were good, of a deployment: the newest first, each another state
    held: Held | None = None
    trial: Trial | None = None  # the canary that is beside the newest good version
    identity: Identity | None = None  # of the system that it is in; None: it was not known yet
