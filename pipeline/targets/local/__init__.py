"""This machine as a target. The driver is in `driver`: importing a manifest loads none of it."""

from pipeline.targets.local.spec import LocalOptions, LocalSpec, LocalState, LocalTarget

__all__ = ["LocalOptions", "LocalSpec", "LocalState", "LocalTarget"]
