"""The door to BuildKit inside a Docker engine: build from a streamed context, export. Used by resources/engine."""

import base64
import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pipeline.clients.docker import DockerHost, open_client
from pipeline.core.diagnostic import Diagnostic
from pipeline.core.errors import BackendError, Denied, Exhausted, Missing, Unreachable
from pipeline.core.frozen import frozen

TIMEOUT_S = 1800  # between two signs of life: a layer of gigabytes is compressed in silence
BLOCK_BYTES = 2**20
_VERTEX, _LOG = 1, 3  # fields of BuildKit's StatusResponse: moby/buildkit api/services/control/control.proto
_VERTEX_NAME, _VERTEX_CACHED, _VERTEX_STARTED, _VERTEX_COMPLETED = 3, 4, 5, 6
_LOG_TEXT = 4
_CONTEXT_LOST = "context not found"

_NOTHING: Mapping[str, str] = {}

OnLine = Callable[[str], None]
OnBytes = Callable[[int, int], None]


@frozen
class Instructions:
    """What to build besides the context, whose Dockerfile says how."""

    name: str  # "127.0.0.1:5000/vllm.engine:mp-0123456789ab"
    platform: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]


class Builds(Protocol):
    """A BuildKit, wherever it is. Every method but `check` raises Unreachable, Denied, Exhausted, BackendError."""

    def check(self, platform: str) -> tuple[Diagnostic, ...]:
        """What is known to stand against building for a platform there, before anything is fetched or built."""
        ...

    def pull(self, repository: str, digest: str, on_bytes: OnBytes) -> None:
        """Have a base image where the build happens."""
        ...

    def build(
        self, instructions: Instructions, context: Callable[[], Iterable[bytes]], on_line: OnLine
    ) -> str:
        """Build an image and keep it under its name; what identifies it. The context is a tar."""
        ...

    def export(self, name: str) -> Iterator[bytes]:
        """The image as `docker save` writes it."""
        ...

    def remove(self, name: str) -> None:
        """Forget the image. May be repeated."""
        ...


class Builder:
    """BuildKit of one Docker engine. Every method raises Unreachable, Denied, Exhausted, BackendError."""

    def __init__(
        self, url: str, environ: Mapping[str, str] = _NOTHING, remarks: tuple[Diagnostic, ...] = ()
    ) -> None:
        """`remarks`: why it is this one that builds, said before it does."""
        self.host = DockerHost(url, environ)
        self._environ = environ
        self._remarks = remarks
        self._client: Any = None  # the SDK's client, of which the stubs lack half

    def check(self, platform: str) -> tuple[Diagnostic, ...]:
        """An engine that does not answer, or does not trust this machine, says so when it is asked for the base."""
        return self._remarks

    def pull(self, repository: str, digest: str, on_bytes: OnBytes) -> None:
        """Have a base image in the engine: BuildKit does not fetch it by itself this way."""
        if not self.host.has_image(f"{repository}@{digest}"):
            self.host.pull(repository, digest, on_bytes)

    def build(
        self, instructions: Instructions, context: Callable[[], Iterable[bytes]], on_line: OnLine
    ) -> str:
        """Build an image and give it its name in the engine; its id. The context is a tar, sent as it is made."""
        try:
            return self._build(instructions, context(), on_line)
        except BackendError as problem:
            # BuildKit's garbage collection may take a context that it has just received; it cannot ask for it again
            if _CONTEXT_LOST not in problem.message:
                raise
            return self._build(instructions, context(), on_line)

    def _build(self, instructions: Instructions, context: Iterable[bytes], on_line: OnLine) -> str:
        parameters = {
            "version": "2",  # BuildKit
            "t": instructions.name,
            "platform": instructions.platform,
            "buildargs": json.dumps(dict(instructions.arguments)),
            "labels": json.dumps(dict(instructions.labels)),
            "networkmode": "none",
        }
        with self._errors(instructions.name):
            api = self._api()
            response = api._post(
                api._url("/build"),
                params=parameters,
                data=iter(context),
                headers={"Content-Type": "application/x-tar"},
                stream=True,
            )
            api._raise_for_status(response)
            return self._follow(instructions.name, api._stream_helper(response, decode=True), on_line)

    def export(self, name: str) -> Iterator[bytes]:
        """The image as `docker save` writes it."""
        with self._errors(name):
            yield from self._api().get_image(name, chunk_size=BLOCK_BYTES)

    def remove(self, name: str) -> None:
        """Take a name from the engine; the image goes with its last name."""
        with contextlib.suppress(Missing), self._errors(name):
            self._api().remove_image(name)

    def _follow(self, name: str, lines: Iterable[Mapping[str, Any]], on_line: OnLine) -> str:
        image = ""
        for line in lines:
            if "error" in line:
                raise _named(f"build {name}", str(line["error"]))
            match line.get("id"):
                case "moby.buildkit.trace":
                    for text in trace_lines(base64.b64decode(line["aux"])):
                        on_line(text)
                case "moby.image.id":
                    image = str(line["aux"]["ID"])
        if not image:
            raise BackendError("docker", f"build {name} ended without an image", "try again")
        return image

    def _api(self) -> Any:
        if self._client is None:
            self._client = open_client(self.host.url, self._environ, TIMEOUT_S)
        return self._client

    @contextlib.contextmanager
    def _errors(self, thing: str) -> Iterator[None]:
        import docker.errors
        import requests.exceptions
        import urllib3.exceptions

        try:
            yield
        except docker.errors.APIError as problem:
            if problem.status_code == 404:
                raise Missing("docker", f"{thing}: {problem.explanation}") from problem
            raise _named(thing, str(problem.explanation or problem)) from problem
        except (
            docker.errors.DockerException,
            docker.errors.StreamParseError,
            requests.exceptions.RequestException,
            urllib3.exceptions.HTTPError,  # of a stream, which the SDK reads past requests
        ) as problem:
            hint = "is the Docker engine running? see docker info"
            raise Unreachable("docker", f"{thing}: the engine does not answer", hint) from problem


def context_tar(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """A build context as it is read: root's files that everybody may read.

    Times are kept: byte code is only used while it has the time of its source.
    """
    for name, path in files:
        found = path.lstat()
        member = tarfile.TarInfo(name)
        member.mtime = int(found.st_mtime)
        member.mode = 0o755 if found.st_mode & 0o100 else 0o644
        if path.is_dir() and not path.is_symlink():
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            yield member.tobuf(tarfile.PAX_FORMAT)
            continue
        if path.is_symlink():
            member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
            yield member.tobuf(tarfile.PAX_FORMAT)
            continue
        with path.open("rb") as handle:
            member.size = found.st_size
            yield member.tobuf(tarfile.PAX_FORMAT)
            yield from _exactly(handle, name, member.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _exactly(handle: io.BufferedReader, name: str, size_bytes: int) -> Iterator[bytes]:
    left = size_bytes
    while left and (block := handle.read(min(BLOCK_BYTES, left))):
        left -= len(block)
        yield block
    if left:
        raise BackendError("build context", f'"{name}" became shorter while it was read', "try again")
    yield bytes(-size_bytes % tarfile.BLOCKSIZE)


def trace_lines(trace: bytes) -> Iterator[str]:
    """What a build says, from BuildKit's status messages: steps that began or were cached, and their output."""
    for number, message in _fields(trace):
        if not isinstance(message, bytes):
            continue
        fields = dict(_fields(message)) if number in (_VERTEX, _LOG) else {}
        if number == _LOG and isinstance(text := fields.get(_LOG_TEXT), bytes):
            yield from (line for line in text.decode(errors="replace").splitlines() if line.strip())
        elif number == _VERTEX and isinstance(name := fields.get(_VERTEX_NAME), bytes):
            if fields.get(_VERTEX_CACHED):
                yield f"{name.decode(errors='replace')} (cached)"
            elif _VERTEX_STARTED in fields and _VERTEX_COMPLETED not in fields:
                yield name.decode(errors="replace")


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        value, position = _varint(message, position)
        match key & 7:
            case 0:
                yield key >> 3, value
            case 2:  # a string or a message: the number was its length
                yield key >> 3, message[position : position + value]
                position += value
            case _:  # BuildKit's messages have no other
                return


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message):
            return value, position
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _named(thing: str, message: str) -> BackendError:
    lowered = message.lower()
    if "no space left" in lowered:
        return Exhausted("docker", f"{thing}: no space left", "free some: docker system df")
    if "unauthorized" in lowered or "denied" in lowered or "no basic auth" in lowered:
        return Denied("docker", f"{thing}: {message}", "docker login, as the user who runs mp")
    if "connection refused" in lowered or "i/o timeout" in lowered or "eof" in lowered.split():
        return Unreachable("docker", f"{thing}: {message}", "is the registry running?")
    return BackendError("docker", f"{thing}: {message}")
