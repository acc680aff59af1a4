"""A real BuildKit of its own (buildkitd, with runc), and the buildctl that speaks to it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.core.frozen import frozen
from tests.parts import programs
from tests.parts.certificates import Certificate
from tests.parts.ports import free_port
from tests.parts.processes import stop
from tests.parts.project import Manifest

UP_S = 30.0


def missing(compiles: bool) -> str | None:
    """Why none can be started here."""
    if os.geteuid() != 0:
        return "only root starts a buildkitd"
    if not shutil.which("runc"):
        return "runc is not installed"
    return programs.missing("buildctl", "buildkitd", compiles=compiles)


def published(registry: str, engine: Manifest) -> Manifest:
    """One model of the folder `weights`, published with an engine of its own."""
    return {
        "version": 1,
        "project": "acme",
        "defaults": {"template": "transformers"},
        "registries": {"main": {"url": registry}},
        "engines": {"transformers": engine},
        "targets": {"shelf": {"kind": "registry", "publish": ["model"]}},
        "models": {"tiny": {"source": "./weights", "targets": {"shelf": {}}}},
    }


@frozen
class RealBuilder:
    """One buildkitd at two addresses; with certificates, only that of tcp:// wants them."""

    unix: str
    tcp: str
    log: Path

    @property
    def environ(self) -> Mapping[str, str]:
        """With buildctl on PATH."""
        return {"PATH": f"{programs.program('buildctl').parent}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def running_buildkit(
    certificate: Certificate | None = None, clients: Certificate | None = None
) -> Iterator[RealBuilder]:
    """Steps of a Dockerfile get no network and no control groups of their own: the engines' only copy.

    `certificate` is its own, for TLS; `clients` the authority that signed those of its clients.
    """
    with tempfile.TemporaryDirectory(prefix="mpb", dir="/tmp") as made:  # sockets need a short path
        folder = Path(made)
        builder = RealBuilder(f"unix://{folder}/s", f"tcp://127.0.0.1:{free_port()}", folder / "log")
        words = [
            "--oci-worker=true",
            "--containerd-worker=false",
            f"--root={folder}/root",
            f"--config={folder}/none",
        ]
        if certificate:
            words += [f"--tlscert={certificate.file}", f"--tlskey={certificate.key}"]
        if clients:
            words += [f"--tlscacert={clients.file}"]
        with builder.log.open("wb") as out:
            process = subprocess.Popen(
                [programs.program("buildkitd"), *words, f"--addr={builder.unix}", f"--addr={builder.tcp}"],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            _wait(builder, process)
            yield builder
        finally:
            stop(process)


def _wait(builder: RealBuilder, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + UP_S
    argv = [str(programs.program("buildctl")), f"--addr={builder.unix}", "debug", "workers"]
    while subprocess.run(argv, capture_output=True, check=False).returncode:
        said = builder.log.read_text(errors="replace")
        assert process.poll() is None, f"buildkitd ended: {said}"
        assert time.monotonic() < deadline, f"buildkitd is not ready: {said}"
        time.sleep(0.2)
