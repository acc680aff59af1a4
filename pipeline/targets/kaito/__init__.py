"""KAITO, an operator of GPU nodes and model servers in a cluster, as a target. What it becomes is applied by resources/cluster."""

from pipeline.targets.kaito.spec import KaitoOptions, KaitoSpec
from pipeline.targets.kaito.target import KaitoTarget

__all__ = ["KaitoOptions", "KaitoSpec", "KaitoTarget"]
