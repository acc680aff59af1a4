"""Canaries of a kubernetes target: how an entry asks for them, and the label by which a Service finds their pods. Pure."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field

from pipeline.core.diagnostic import Mistake
from pipeline.core.digest import Json
from pipeline.core.model import Model, Stated
from pipeline.core.protocols import Place
from pipeline.resources.cluster.canary import SUFFIX
from pipeline.resources.cluster.marks import SERVES
from pipeline.targets.deployment import option
from pipeline.targets.kubernetes.claims import is_per_replica
from pipeline.targets.objects import key_of_name, labels_of, name_of, selector_of
from pipeline.targets.rollouts import RolloutOptions

_LONGEST = 63  # of a label's value, and of a Service's name


class KubernetesRollout(RolloutOptions):
    """How one model is brought to a new version at a kubernetes target."""

    strategy: Literal["rolling", "canary"] = Field(
        default="rolling",
        description="`rolling`: new pods take the place of the old ones; `canary`: one pod of the new version serves beside "
        "the old ones until `mp promote`, or `mp rollback`",
    )


def is_canary(place: Place[Any]) -> bool:
    found: bool = place.options.rollout.strategy == "canary"
    return found


def pod_labels(place: Place[Any], model: Model) -> dict[str, Json]:
    """Of the pods of a Deployment."""
    return {**labels_of(place, model), **(_serving(place, model) if is_canary(place) else {})}


def front_selector(place: Place[Any], model: Model) -> dict[str, Json]:
    """Which pods the Service sends requests to: with canaries those of two Deployments, whose own selectors differ."""
    return _serving(place, model) if is_canary(place) else selector_of(name_of(place, model))


def last_of(place: Place[Any], model: Model) -> tuple[str, ...]:
    """The Service looks for the label once there are pods that bear it."""
    return (f"Service/{name_of(place, model)}",) if is_canary(place) else ()


def canary_mistakes(place: Place[Any], stated: Stated) -> Iterable[Mistake]:
    """What cannot be tried by one pod beside the others."""
    if not is_canary(place):
        return
    name, strategy = name_of(place, stated), option(place, stated, "rollout", "strategy")
    for wrong, why, hint in (
        (stated.hardware.nodes > 1, "its pods run on several nodes", "use hardware with one node"),
        (is_per_replica(place), "each of its replicas owns a volume", "use weights: baked or volume"),
        (_shares(place), "its pods share a claim", "use weights: baked or volume"),
    ):
        if wrong:
            yield Mistake(strategy, f"has no canary: {why}", f"{hint}, or leave strategy out")
    if len(name) + len(SUFFIX) > _LONGEST:
        text = f'has no canary: "{name}{SUFFIX}" is too long a name: {_LONGEST} characters at most'
        yield Mistake(key_of_name(place, stated), text, "give it a shorter name:, or leave strategy out")


def _shares(place: Place[Any]) -> bool:
    return place.options.weights == "pvc" and not is_per_replica(place)


def _serving(place: Place[Any], model: Model) -> dict[str, Json]:
    return {SERVES: name_of(place, model)}
