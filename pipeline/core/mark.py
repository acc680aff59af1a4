"""The owner mark as things bear it: labels of containers, annotations of objects and images. Used by drivers and targets."""

from collections.abc import Mapping

from pipeline.core.resource import Address, Mark

PROJECT, ENVIRONMENT, ADDRESS = "dev.mp.project", "dev.mp.environment", "dev.mp.address"


def as_texts(mark: Mark) -> dict[str, str]:
    """By the names of labels or annotations."""
    return {PROJECT: mark.project, ENVIRONMENT: mark.environment, ADDRESS: mark.address}


def mark_in(found: Mapping[str, object]) -> Mark | None:
    """The mark among labels or annotations; None where one of its parts is missing."""
    if not {PROJECT, ENVIRONMENT, ADDRESS} <= found.keys():
        return None
    return Mark(str(found[PROJECT]), str(found[ENVIRONMENT]), Address(str(found[ADDRESS])))
