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
from urllib.parse import urlsplit

from pipeline.clients import buildx, process
from pipeline.clients.buildkit import BLOCK_BYTES, Instructions, OnBytes, OnLine
from pipeline.clients.buildx import Endpoint
from pipeline.clients.handshake import Certificates, Fault, file_faults, refusal
from pipeline.core.diagnostic import Diagnostic, Where, error, warning
from pipeline.core.errors import BackendError, Denied, Missing, Unreachable

TIMEOUT_S = 3600.0  # of one build: a base of gigabytes may come from far
_SILENT = (
    "connection refused",
    "no such host",
    "deadline exceeded",
    "no such file or directory",
    "i/o timeout",
    "is not running",  # the container of a buildx builder that was not started
    "no such container",
)
# What buildctl does first. Where it fails at that, the builder closed the connection: it wants TLS, or a certificate.
_FIRST = "listing workers"
_IS_IT_THERE = (
    "is a buildkitd listening there? builder: under engines: names it, or BUILDKIT_HOST; a builder of buildx is "
    "started by docker buildx inspect --bootstrap"
)

WhereIs = Callable[[str], Where | None]


class RemoteBuilder:
    """A buildkitd, at "tcp://builder:1234" or "docker-container://buildkitd", or buildx's at "buildx://NAME".

    Images lie in a folder here until `remove`. Methods raise Unreachable, Denied, Missing, BackendError; `check` nothing.
    """

    def __init__(
        self,
        address: str,
        environ: Mapping[str, str],
        certificates: Certificates | None = None,
        where: WhereIs = lambda part: None,
    ) -> None:
        """`where`: of "builder", "ca", "cert", "key" and "server_name" in the file that names them."""
        self._address = address
        self._environ = environ
        self._certificates = certificates
        self._where = where
        self._folders: dict[str, Path] = {}  # image name → folder with its archive

    def check(self, platform: str) -> tuple[Diagnostic, ...]:
        """What its certificates, and TLS with it, have against a build. A builder without TLS is not asked."""
        try:
            endpoint = self._endpoint(platform)
        except BackendError as problem:
            return (error(problem.message, self._where("builder"), problem.hint),)
        if endpoint.certificates is None:
            return ()
        if faults := file_faults(endpoint.certificates):
            return tuple(self._told(fault) for fault in faults)
        if not endpoint.address.startswith("tcp://"):
            return ()
        try:
            host, port = _host_and_port(endpoint.address)
        except ValueError:
            return (
                self._told(Fault("", f'"{endpoint.address}" names no port', "write it as tcp://HOST:PORT")),
            )
        return tuple(self._greeted(host, port, endpoint.certificates))

    def _greeted(self, host: str, port: int, certificates: Certificates) -> Iterator[Diagnostic]:
        try:
            if fault := refusal(host, port, certificates):
                yield self._told(fault)
        except OSError as problem:
            why = problem.strerror or str(problem)
            summary = f"the builder at {self._address} does not answer: {why.lower()}"
            yield warning(summary, self._where("builder"), _IS_IT_THERE)

    def _told(self, fault: Fault) -> Diagnostic:
        part = fault.part if fault.part and self._certificates else "builder"
        return error(f"the builder at {self._address}: {fault.summary}", self._where(part), fault.hint)

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
            endpoint = self._endpoint(instructions.platform)
            process.run(
                self._command(endpoint, instructions, folder),
                env={**self._environ, **endpoint.environ},
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

    def _endpoint(self, platform: str) -> Endpoint:
        if self._address.startswith(buildx.SCHEME):
            return buildx.endpoint(self._address.removeprefix(buildx.SCHEME), platform, self._environ)
        return Endpoint(self._address, self._certificates)

    def _command(self, endpoint: Endpoint, instructions: Instructions, folder: Path) -> list[str]:
        options = {
            "platform": instructions.platform,
            "force-network-mode": "none",
            **{f"build-arg:{key}": value for key, value in instructions.arguments.items()},
            **{f"label:{key}": value for key, value in instructions.labels.items()},
        }
        return [
            "buildctl",
            f"--addr={endpoint.address}",
            *_trust(endpoint.certificates),
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
        said = problem.message.splitlines()[-1].strip()
        if any(word in problem.message.lower() for word in _SILENT):
            summary = f"the builder at {self._address} does not answer: {said}"
            return Unreachable("buildkit", summary, _IS_IT_THERE)
        if _FIRST in said:
            return Denied(
                "buildkit",
                f"the builder at {self._address} ends the connection: {said}",
                "it may want TLS: name its certificates with builder_tls: under engines:, or name a builder of buildx "
                "that has them: buildx://NAME",
            )
        return problem


def unusable(name: str, platform: str, environ: Mapping[str, str]) -> Diagnostic | None:
    """Why BUILDX_BUILDER's builder cannot be used from here, as far as this machine knows; nobody is asked."""
    try:
        certificates = buildx.endpoint(name, platform, environ).certificates
    except BackendError as problem:
        return _instead(name, problem.message)
    if not shutil.which("buildctl", path=environ.get("PATH")):
        return _instead(name, "buildctl is not on PATH, and reaches it")
    faults = file_faults(certificates) if certificates else ()
    return _instead(name, faults[0].summary) if faults else None


def _instead(name: str, why: str) -> Diagnostic:
    summary = f'the Docker engine builds, and not "{name}" of BUILDX_BUILDER: {why}'
    hint = f"unset BUILDX_BUILDER, or name it where it has to be that one: builder: buildx://{name} under engines:"
    return warning(summary, hint=hint)


def _host_and_port(address: str) -> tuple[str, int]:
    """Of "tcp://builder:1234". Raises ValueError."""
    there = urlsplit(address)
    if not there.hostname or not there.port:
        raise ValueError(address)
    return there.hostname, there.port


def _trust(certificates: Certificates | None) -> list[str]:
    if certificates is None:
        return []
    words = {
        "tlscacert": certificates.ca,
        "tlscert": certificates.cert,
        "tlskey": certificates.key,
        "tlsservername": certificates.server_name,
    }
    return [f"--{word}={value}" for word, value in words.items() if value]


def _unpack(context: Iterable[bytes], folder: Path) -> None:
    """buildctl takes folders, no streams."""
    with (folder / "context.tar").open("w+b") as held:
        held.writelines(context)
        held.seek(0)
        with tarfile.open(fileobj=held) as tar:
            tar.extractall(folder / "context", filter="data")
    (folder / "context.tar").unlink()
