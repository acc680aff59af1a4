"""How long to wait between two looks at a cluster. Used by rollout and filling."""

from collections.abc import Iterator

FIRST_S, LONGEST_S, GROWTH = 0.5, 3.0, 1.3


def pauses() -> Iterator[float]:
    """Seconds; without end."""
    pause_s = FIRST_S
    while True:
        yield pause_s
        pause_s = min(pause_s * GROWTH, LONGEST_S)
