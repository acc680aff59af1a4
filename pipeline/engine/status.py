"""How deployments are right now: the inventory says which there are, their targets say how they are. Reads only."""

from collections.abc import Sequence

from pipeline.core.frozen import frozen
from pipeline.core.protocols import Answer
from pipeline.core.resource import Absent, Entry, Unreadable, current_of, fields_of, owner_of, place_of
from pipeline.engine.identity import checked
from pipeline.engine.observe import observe
from pipeline.engine.world import World

HEALTHY, DEGRADED, MISSING, UNKNOWN = "Healthy", "Degraded", "Missing", "Unknown"


@frozen
class Standing:
    """One deployment as it is now."""

    entry: Entry
    answer: Answer
    health: str  # one of the six words: Healthy, Progressing, Degraded, Suspended, Missing, Unknown
    reason: str = ""

    @property
    def model(self) -> str:
        return owner_of(self.entry.address)

    @property
    def target(self) -> str:
        return place_of(current_of(self.entry.address)) or self.entry.kind


def status(world: World, models: Sequence[str] = ()) -> tuple[Standing, ...]:
    """Every deployment of these models, of all when none is named. Asks targets, and no source or registry."""
    inventory = world.store.load()
    entries = [
        entry
        for address, entry in sorted(inventory.entries.items())
        if not entry.keep and (not models or owner_of(address) in models)
    ]
    answers, _ = checked(observe({}, entries, world.drivers), inventory)
    return tuple(_standing(entry, answers[entry.address]) for entry in entries)


def _standing(entry: Entry, answer: Answer) -> Standing:
    match answer:
        case Unreadable():
            return Standing(entry, answer, UNKNOWN, answer.reason)
        case Absent():
            return Standing(
                entry, answer, MISSING, "it was applied and is not there" if entry.applied else ""
            )
    fields = fields_of(answer.state)
    if isinstance(said := fields.get("health"), str):
        word, _, reason = said.partition(": ")
        return Standing(entry, answer, word, reason)
    if fields.get("running") is False:
        return Standing(entry, answer, DEGRADED, "it does not run")
    return Standing(entry, answer, HEALTHY)
