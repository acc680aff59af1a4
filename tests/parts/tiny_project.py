"""A project for a cluster: weights that say what blue is, an engine that is a tiny image, a namespace. Used by tests of clusters."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.image import Engine, Registry
from pipeline.manifest.lock import Lock, engine_key, write_lock
from tests.parts.cluster import RealCluster
from tests.parts.project import Project
from tests.parts.tiny_image import PLATFORM, push_tiny_engine

CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "quickstart" / "checkpoint"
ANSWER = "the sky is blue"


@contextlib.contextmanager
def tiny_project(
    cluster: RealCluster, registry: Registry, folder: Path, *engines: Engine
) -> Iterator[tuple[Project, str]]:
    """A project in `folder` and its namespace. `engines` are pushed and locked; nothing is declared yet."""
    shutil.copytree(CHECKPOINT, folder / "weights")
    (folder / "weights" / "answer.txt").write_text(ANSWER)
    for engine in engines:
        push_tiny_engine(registry, engine)
    write_lock(folder / "models.lock", Lock({}, {engine_key(each, PLATFORM): each for each in engines}))
    environ = {"KUBECONFIG": str(cluster.kubeconfig), "NO_COLOR": "1"}
    with cluster.namespace() as namespace:
        yield Project(folder, folder / "cache", environ), namespace
