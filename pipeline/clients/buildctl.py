"""The door to a BuildKit of its own, by its address: `buildctl` as a subprocess. Used by engine images instead of a Docker engine's.

buildctl opens a session with the builder, over which the context goes there and the passwords of registries are asked for; the
Docker engine's HTTP API has no such thing for another builder. Flags: buildkit v0.32, docs/reference/buildctl.md.
"""

import contextlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.clients import process
from pipeline.clients.buildkit import BLOCK_BYTES, Instructions, OnBytes, OnLine
from pipeline.core.errors import BackendError, Missing, Unreachable

TIMEOUT_S = 3600.0  # of one build: a base of gigabytes may come from far
_SILENT = (
    "connection refused",
    "no such host",
    "deadline exceeded",
    "no such file or directory",
    "i/o timeout",
)


class RemoteBuilder:
    """One buildkitd, at "tcp://builder:1234" or "docker-container://buildkitd". Images lie in a folder here until `remove`.

    Every method raises Unreachable, Missing, BackendError.
    """

    def __init__(self, address: str, environ: Mapping[str, str]) -> None:
        self._address = address
        self._environ = environ
        self._folders: dict[str, Path] = {}  # image name → folder with its archive

    def pull(self, repository: str, digest: str, on_bytes: OnBytes) -> None:
        """Nothing to do: this BuildKit fetches a base by itself."""

    def build(
        self, instructions: Instructions, context: Callable[[], Iterable[bytes]], on_line: OnLine
    ) -> str:
        """Build an image; its archive is brought here."""
        self.remove(instructions.name)
        folder = self._folders[instructions.name] = Path(tempfile.mkdtemp(prefix="mp-build-"))
        try:
            _unpack(context(), folder)
            process.run(
                self._command(instructions, folder),
                env=self._environ,
                timeout_s=TIMEOUT_S,
                on_line=on_line,
                system="buildkit",
            )
        except BaseException as problem:
            self.remove(instructions.name)
            if isinstance(problem, BackendError):
                raise self._named(problem) from problem
            raise
        return instructions.name

    def export(self, name: str) -> Iterator[bytes]:
        """The image as `docker save` writes it."""
        with self._archive(name).open("rb") as archive:
            while block := archive.read(BLOCK_BYTES):
                yield block

    def remove(self, name: str) -> None:
        with contextlib.suppress(KeyError):
            shutil.rmtree(self._folders.pop(name), ignore_errors=True)

    def _archive(self, name: str) -> Path:
        if name not in self._folders:
            raise Missing("buildkit", f"{name} was not built", "run it again")
        return self._folders[name] / "image.tar"

    def _command(self, instructions: Instructions, folder: Path) -> list[str]:
        options = {
            "platform": instructions.platform,
            "force-network-mode": "none",
            **{f"build-arg:{key}": value for key, value in instructions.arguments.items()},
            **{f"label:{key}": value for key, value in instructions.labels.items()},
        }
        return [
            "buildctl",
            f"--addr={self._address}",
            "build",
            "--progress=plain",
            "--frontend=dockerfile.v0",
            f"--local=context={folder / 'context'}",
            f"--local=dockerfile={folder / 'context'}",
            *(f"--opt={key}={value}" for key, value in options.items()),
            f"--output=type=docker,name={instructions.name},dest={self._archive(instructions.name)}",
        ]

    def _named(self, problem: BackendError) -> BackendError:
        if isinstance(problem, Missing):
            return Missing(
                "buildkit",
                "buildctl is not there",
                "install it (releases of BuildKit have it), or remove builder: under engines: and unset BUILDKIT_HOST: "
                "then the Docker engine builds",
            )
        if any(word in problem.message.lower() for word in _SILENT):
            return Unreachable(
                "buildkit",
                f"the builder at {self._address} does not answer: {problem.message.splitlines()[-1]}",
                "is a buildkitd listening there? builder: under engines: names it, or BUILDKIT_HOST",
            )
        return problem


def _unpack(context: Iterable[bytes], folder: Path) -> None:
    """buildctl takes folders, no streams."""
    with (folder / "context.tar").open("w+b") as held:
        held.writelines(context)
        held.seek(0)
        with tarfile.open(fileobj=held) as tar:
            tar.extractall(folder / "context", filter="data")
    (folder / "context.tar").unlink()
