"""A Docker engine as a target. The driver is in `driver`: importing a manifest loads none of it."""

from pipeline.targets.docker.spec import DockerOptions, DockerSpec, DockerState, DockerTarget

__all__ = ["DockerOptions", "DockerSpec", "DockerState", "DockerTarget"]
