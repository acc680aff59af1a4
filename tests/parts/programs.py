"""Real programs written in Go: from PATH, or compiled once from their modules and kept. `python -m tests.parts.programs` compiles all."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "mp-test" / "bin"
MODULES: Mapping[str, str] = {
    "cosign": "github.com/sigstore/cosign/v2@v2.6.5",
    "crane": "github.com/google/go-containerregistry@v0.22.1",
    "buildctl": "github.com/moby/buildkit@v0.32.2",
    "buildkitd": "github.com/moby/buildkit@v0.32.2",
}
TIMEOUT_S = 1800


def found(name: str) -> Path | None:
    """The program where it is there already: on PATH, where `go install` puts it, or compiled by an earlier run."""
    there = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], str(Path.home() / "go" / "bin")]))
    own = FOLDER / name
    return Path(there) if there else own if own.exists() else None


def missing(*names: str, compiles: bool) -> str | None:
    """Why one of them cannot be had; `compiles`: what is not there may be compiled, which takes minutes."""
    lacking = [name for name in names if found(name) is None]
    if not lacking:
        return None
    if not shutil.which("go"):
        return f"neither {' and '.join(lacking)} nor Go is installed"
    return None if compiles else f"{', '.join(lacking)} not installed: run just test-all once"


def program(name: str) -> Path:
    """The program; compiled now, or waited for while another process does."""
    if there := found(name):
        return there
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (FOLDER / name).exists():
            _compile(name)
    return FOLDER / name


def _compile(name: str) -> None:
    """As the main module: `go install` refuses one that excludes versions of others, as BuildKit's does."""
    environ = {**os.environ, "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    words = ["go", "mod", "download", "-json", MODULES[name]]
    module = json.loads(subprocess.check_output(words, env=environ, cwd=FOLDER, timeout=TIMEOUT_S))["Dir"]
    made = FOLDER / f"{name}.part"
    words = ["go", "build", "-trimpath", "-ldflags=-s -w", f"-o={made}", f"./cmd/{name}"]
    subprocess.run(words, env=environ, cwd=module, check=True, timeout=TIMEOUT_S)
    made.rename(FOLDER / name)


def run(name: str, *words: str, environ: Mapping[str, str] | None = None) -> bytes:
    """Its standard output."""
    done = subprocess.run(
        [str(program(name)), *words],
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{name} {' '.join(words)}: {done.stderr.decode(errors='replace')}"
    return done.stdout


if __name__ == "__main__":
    for each in MODULES:
        program(each)
