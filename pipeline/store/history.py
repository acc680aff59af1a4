"""What was done, a line for each change of every run: kept beside the inventory, read by `mp history`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pipeline.core.frozen import frozen
from pipeline.core.resource import Address, Contents, Proof


@frozen
class Side:
    """One thing before or after a change."""

    contents: Contents = Contents()
    fingerprint: str = ""  # 12 hex of its state; "" when it was not there, or is not known


@frozen
class Past:
    """One change that was begun, and how it ended."""

    at: float  # when it ended: seconds since 1970
    command: str  # "apply", "destroy", "rollback"
    run: str  # URL of the run that did it; "" for one by hand
    commit: str | None
    address: Address
    action: str
    result: str
    seconds: float
    before: Side
    after: Side  # what was wanted
    changed: tuple[str, ...]  # fields, of an update
    error: str | None = None
    proof: Proof | None = None


def past_to_json(past: Past) -> dict[str, Any]:
    return asdict(past)


def past_from_json(record: Mapping[str, Any]) -> Past:
    """Raises KeyError, TypeError or ValueError on damage."""
    proof = record["proof"]
    return Past(
        **{
            **record,
            "address": Address(record["address"]),
            "before": _side(record["before"]),
            "after": _side(record["after"]),
            "changed": tuple(record["changed"]),
            "proof": Proof(**proof) if proof else None,
        }
    )


def _side(record: Mapping[str, Any]) -> Side:
    return Side(Contents(**record["contents"]), record["fingerprint"])
