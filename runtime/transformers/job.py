"""One answer to make, and how it ended: what the desk hands to the model and gets back."""

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.transformers.asked import Asked
else:
    from asked import Asked


@dataclass(frozen=True)
class Job:
    """One answer to make."""

    tokens: tuple[int, ...]  # of the prompt
    max_tokens: int
    asked: Asked
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Finish:
    """How an answer ended."""

    reason: str  # "stop" or "length"
    tokens: int  # made, the end token included
