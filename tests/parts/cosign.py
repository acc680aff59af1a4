"""The real cosign: from PATH, or compiled once from its Go module and kept. `python -m tests.parts.cosign` compiles it."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.parts.capability import CACHE

MODULE = "github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5"
FOLDER = CACHE / "bin"
TIMEOUT_S = 1800  # 340 s of CPU on an empty build cache


def program() -> Path:
    """The program; compiled now, or waited for while another process does."""
    if found := shutil.which("cosign"):
        return Path(found)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "cosign.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (FOLDER / "cosign").exists():
            environ = {**os.environ, "GOBIN": str(FOLDER), "GOTOOLCHAIN": "auto", "CGO_ENABLED": "0"}
            argv = ["go", "install", "-trimpath", "-ldflags=-s -w", MODULE]
            subprocess.run(argv, env=environ, check=True, timeout=TIMEOUT_S)
    return FOLDER / "cosign"


def path() -> str:
    """PATH with cosign on it."""
    return f"{program().parent}{os.pathsep}{os.environ['PATH']}"


def run(*words: str, environ: Mapping[str, str] | None = None) -> str:
    """Its standard output."""
    done = subprocess.run(
        [str(program()), *words],
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__":
    program()
