"""Where a plan comes from: what its first lines say of the manifest and its lock."""

from collections.abc import Mapping
from dataclasses import field

from pipeline.core.frozen import frozen
from pipeline.core.resource import Address


@frozen
class Origin:
    file: str = "models.yaml"
    commit: str | None = None
    edited: bool = False  # the file differs from that commit
    pins: Mapping[Address, str] = field(
        default_factory=dict
    )  # address of an artifact → its pin in models.lock as it is now
    root: str = ""  # folder of the manifest
    machine: str = ""  # this one's name: what is not kept passes through it
    unlocked: tuple[str, ...] = ()  # what apply writes into models.lock first: "tiny: not in models.lock"
