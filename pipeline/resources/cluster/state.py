"""One deployment in a cluster: the objects that it is made of, and what is not compared. Made by targets, used by the driver."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.model import Question, Secret
from pipeline.core.resource import Address, Entry, Resource, State
from pipeline.resources.cluster.ignoring import without
from pipeline.resources.cluster.workloads import WORKLOADS


@frozen
class ClusterRecipe:
    """What the driver needs and does not compare."""

    images: Mapping[
        str, Address
    ]  # image reference without digest → the resource whose Observed has the digest
    namespace: str
    context: str | None
    name: str  # of the workload and its Service
    served_name: str
    port: int | None  # of a pod, that answers requests; None: nothing is to be asked
    questions: tuple[Question, ...]
    api_key: Secret | None
    prove: str  # "request" or "skip"
    on_failure: str  # "rollback" or "hold"
    start_timeout_s: int  # how long apply waits for the roll-out: longer than the Deployment's own deadline
    digests: Mapping[str, str] = field(default_factory=dict)  # of images, where no Observed has them
    gpu_driver: str | None = None  # the oldest with which its image runs: "580.65"
    rotating: Mapping[str, tuple[str, str]] = field(
        default_factory=dict
    )  # secrets that restart it: name in `secrets:` → name and key of a Secret
    ignored: tuple[str, ...] = ()  # JSON pointers into the workload: left as they are
    last: tuple[str, ...] = ()  # keys of objects that are applied once the others serve: "Service/qwen"
    recreate: bool = False  # of what is made anew the old one goes first
    tasks: Mapping[str, tuple[Json, ...]] = field(
        default_factory=dict
    )  # key of a claim → the objects that fill it, its Job last
    tried: str = ""  # key of the canary: "Deployment/qwen-canary"
    standing: bool = (
        False  # somebody else made its object: mp writes a part of it, and makes no new one where none is
    )


@frozen
class ClusterState(State):
    """The objects of one deployment: of a live one the fields that mp writes, as `shape.shaped` reads them."""

    adoptable: ClassVar[bool] = True
    objects: Mapping[str, Json]  # "Deployment/qwen" → the object; its images have no digest
    recipe: ClusterRecipe | None = field(default=None, compare=False)
    health: str = "Healthy"  # of a live one also why it is not: "Degraded: ImagePullBackOff: …"
    revisions: Mapping[str, str] = field(
        default_factory=dict
    )  # of secrets that restart it, as its pods have them

    def compared(self, applied: Mapping[str, Json]) -> Mapping[str, Json]:
        objects, ignored = applied.get("objects"), self.recipe.ignored if self.recipe else ()
        return {**applied, "objects": without(objects, ignored)} if isinstance(objects, dict) else applied

    def replaces(self, path: str) -> bool:
        """A selector never changes, nor what else is fixed: the object is made anew. Others are made anew for any change."""
        kind, below = _below(path)
        if kind not in WORKLOADS:
            return False
        if WORKLOADS[kind].renamed and self.recipe is not None and self.recipe.standing:
            return bool(below) and below[0] != "metadata" and below != ["spec", "replicas"]
        if WORKLOADS[kind].renamed:
            return not below and _unescaped(path) not in self.objects
        return below[:1] == ["spec"] and below[1:2] in [
            [field] for field in ("selector", *WORKLOADS[kind].fixed)
        ]

    def restarts(self, path: str) -> bool:
        """All of an object that is there but its own labels and marks, and how many pods there are; and what runs pods and goes."""
        kind, below = _below(path)
        if kind in WORKLOADS and not below:
            return _unescaped(path) not in self.objects
        if path.startswith("revisions"):
            return True
        return bool(below) and below[0] != "metadata" and below != ["spec", "replicas"]


def _unescaped(path: str) -> str:
    """The key of the object: "Deployment/qwen"."""
    return path.split("/")[1].replace("~1", "/").replace("~0", "~")


def _below(path: str) -> tuple[str, list[str]]:
    """The kind of the object, and where in it: "objects/Deployment~1qwen/spec/replicas"."""
    room, _, rest = path.partition("/")
    key, *below = rest.split("/")
    return key.partition("~1")[0], below if room == "objects" else []


def recipe_of(resource: Resource[ClusterState]) -> ClusterRecipe:
    assert resource.desired.recipe is not None, "a desired deployment knows how it is made"
    return resource.desired.recipe


def objects_in(found: object) -> dict[str, dict[str, Any]]:
    """The objects of a state, also of one that the inventory kept."""
    if not isinstance(found, Mapping):
        return {}
    return {key: one for key, one in found.items() if isinstance(one, dict)}


def keys_of(entry: Entry | None) -> tuple[str, ...]:
    """Keys of the objects that were applied last and of those that were good, another form of it may have left some.

    What KAITO has is among them also when that was cut off.
    """
    if entry is None:
        return ()
    states = (entry.applied, entry.good, *(one.state for one in entry.versions))
    found = dict.fromkeys(key for state in states for key in objects_in(state.get("objects")))
    return (*found, *(("Workspace/",) if entry.kind == "kaito" else ()))
