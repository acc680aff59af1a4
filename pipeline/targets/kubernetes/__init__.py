"""A Kubernetes cluster as a target. What it becomes is applied by resources/cluster."""

from pipeline.targets.kubernetes.spec import (
    KubernetesOptions,
    KubernetesSpec,
    KubernetesTarget,
)

__all__ = ["KubernetesOptions", "KubernetesSpec", "KubernetesTarget"]
