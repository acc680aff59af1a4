"""Trying a new version beside the good one before it takes its place: the protocol of drivers that can."""

from typing import Protocol, runtime_checkable

from pipeline.core.resource import Resource, S


@runtime_checkable
class Tries(Protocol[S]):
    """What a driver has besides that can run a little of a new version beside the good one."""

    def beside(self, wanted: Resource[S], good: Resource[S]) -> Resource[S] | None:
        """The good version with a canary of the wanted one beside it, its `trial` set. Pure.

        None where there is nothing to try: what runs would not be made anew. Raises MpError where a canary cannot be.
        """
        ...
