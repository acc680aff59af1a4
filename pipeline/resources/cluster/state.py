"""One deployment in a cluster: the objects that it is made of, and what is not compared. Made by targets, used by the driver."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.core.digest import Json
from pipeline.core.model import Question, Secret
from pipeline.core.resource import Address, State


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class ClusterState(State):
    """The objects of one deployment: of a live one the fields that mp writes, as `shape.shaped` reads them."""

    objects: Mapping[str, Json]  # "Deployment/qwen" → the object; its images have no digest
    recipe: ClusterRecipe | None = field(default=None, compare=False)
    health: str = "Healthy"  # of a live one also why it is not: "Degraded: ImagePullBackOff: …"
