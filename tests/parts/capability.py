"""What this machine has of the real parts: the reason why a mark's tests cannot run here, or None."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import docker
import docker.errors

from tests.parts import buildkit, cluster, programs

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "mp-test"  # survives between runs, ignored by git


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("true", "1")


def wants_everything() -> bool:
    """`just test-all` and CI make what is missing (engine environments: minutes, gigabytes)."""
    return in_ci() or bool(os.environ.get("MP_TEST_ALL"))


def docker_missing() -> str | None:
    try:
        client = docker.from_env(timeout=10)
        client.ping()
        client.close()
    except docker.errors.DockerException as problem:
        return f"no Docker engine answers ({problem})"
    return None if shutil.which("mmdebstrap") else "mmdebstrap is not installed"


def registry_missing() -> str | None:
    return None if shutil.which("docker-registry") else "docker-registry is not installed"


def engine_missing(template: str) -> str | None:
    made = os.environ.get(f"MP_TEST_{template.upper()}_PYTHON") or any(CACHE.glob(f"{template}-*.json"))
    return None if made or wants_everything() else f"no {template} environment: run just test-all once"


def chromium_missing() -> str | None:
    return None if shutil.which("chromium") else "chromium is not installed"


def cosign_missing() -> str | None:
    return programs.missing("cosign", compiles=wants_everything())


def crane_missing() -> str | None:
    return programs.missing("crane", compiles=wants_everything())


def buildkit_missing() -> str | None:
    return buildkit.missing(wants_everything())


def cluster_missing() -> str | None:
    return cluster.missing(wants_everything())


def gpu_missing() -> str | None:
    if not shutil.which("nvidia-smi"):
        return "no NVIDIA GPU"
    seen = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False, timeout=30)
    return None if seen.returncode == 0 and seen.stdout.strip() else "no NVIDIA GPU"


MARKS: Mapping[str, Callable[[], str | None]] = {
    "docker": docker_missing,
    "registry": registry_missing,
    "transformers": functools.partial(engine_missing, "transformers"),
    "vllm": functools.partial(engine_missing, "vllm"),
    "cluster": cluster_missing,
    "chromium": chromium_missing,
    "cosign": cosign_missing,
    "crane": crane_missing,
    "buildkit": buildkit_missing,
    "gpu": gpu_missing,
}


@functools.cache
def missing(mark: str) -> str | None:
    """Why tests with this mark cannot run here; asked once a run."""
    return MARKS[mark]()
