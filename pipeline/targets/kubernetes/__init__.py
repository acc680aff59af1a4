"""A Kubernetes cluster as a target. The driver is in `driver`: importing a manifest loads none of it."""

from pipeline.targets.kubernetes.spec import (
    KubernetesOptions,
    KubernetesSpec,
    KubernetesState,
    KubernetesTarget,
)

__all__ = ["KubernetesOptions", "KubernetesSpec", "KubernetesState", "KubernetesTarget"]
