"""The door to a Docker engine: containers as typed records, images pulled by digest or loaded. Used by targets/docker."""

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pipeline.clients.container import Container, Wanted, container_of
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Denied, Exhausted, Missing, StartFailed, Unreachable

READ_TIMEOUT_S = 10
WRITE_TIMEOUT_S = 900  # of one answer: a large image is loaded in one request
STOP_GRACE_S = 20
_LOG_LINES = 5000
_IS_IT_RUNNING = "is the Docker engine running? see docker info"

_NOTHING: Mapping[str, str] = {}


# Any: the SDK's client, of which the stubs lack half
def open_client(url: str, environ: Mapping[str, str], timeout_s: int) -> Any:
    """The client of one engine; of the environment it gets the certificates (DOCKER_TLS_VERIFY, DOCKER_CERT_PATH)."""
    import docker
    from docker.utils import kwargs_from_env

    given = kwargs_from_env({**environ, "DOCKER_HOST": url})
    return docker.APIClient(
        **given, version="auto", timeout=timeout_s, use_ssh_client=url.startswith("ssh://")
    )


class DockerHost:
    """One Docker engine. Every method raises Unreachable when it does not answer, Denied when it refuses."""

    def __init__(self, url: str, environ: Mapping[str, str] = _NOTHING) -> None:
        self.url = url
        self._environ = environ
        self._clients: dict[int, Any] = {}  # Any: the SDK's client, of which the stubs lack half

    def names(self) -> dict[str, str]:
        """Every container's name → id, stopped ones too: one request."""
        with self._errors("containers"):
            found = self._api(READ_TIMEOUT_S).containers(all=True)
        # a name has one "/" in front; names with more are links of other containers
        return {
            name[1:]: each["Id"] for each in found for name in each["Names"] or () if name.count("/") == 1
        }

    def inspect(self, name: str) -> Container | None:
        """A container by name or id; None when there is none."""
        try:
            with self._errors(name):
                return container_of(self._api(READ_TIMEOUT_S).inspect_container(name))
        except Missing:
            return None

    def platform(self) -> str:
        """What the engine runs: "linux/amd64"."""
        with self._errors("version"):
            told = self._api(READ_TIMEOUT_S).version()
        return f"{told['Os']}/{told['Arch']}"

    def has_image(self, reference: str) -> bool:
        try:
            with self._errors(reference):
                self._api(READ_TIMEOUT_S).inspect_image(reference)
        except Missing:
            return False
        return True

    def pull(self, repository: str, digest: str, on_bytes: Callable[[int, int], None]) -> None:
        """Pull an image by digest; `on_bytes` gets bytes done and in total, of the layers known so far."""
        with self._errors(f"{repository}@{digest}"):
            lines = self._api(WRITE_TIMEOUT_S).pull(repository, tag=digest, stream=True, decode=True)
            _follow(self.url, lines, on_bytes)

    def load(self, archive: Iterable[bytes], name: str) -> None:
        """Load an image archive (docker-archive), streamed."""
        with self._errors(name):
            for line in self._api(WRITE_TIMEOUT_S).load_image(iter(archive)):
                if isinstance(line, dict) and "error" in line:
                    raise _image_error(self.url, str(line["error"]))

    def create(self, wanted: Wanted) -> str:
        """Create a container that is not started; its id."""
        with self._errors(wanted.name):
            api = self._api(WRITE_TIMEOUT_S)
            made = api.create_container(
                wanted.image,
                entrypoint=list(wanted.command[:1]),
                command=list(wanted.command[1:]),
                name=wanted.name,
                environment=dict(wanted.environ),
                labels=dict(wanted.labels),
                user=wanted.user,
                use_config_proxy=False,  # or the user's proxies end up in the container
                ports=[wanted.container_port],
                host_config=_host_config(api, wanted),
            )
        return str(made["Id"])

    def start(self, container: str) -> None:
        """Start a container. Raises StartFailed, with a hint where the engine has no GPUs."""
        with self._errors(container):
            self._api(WRITE_TIMEOUT_S).start(container)

    def stop(self, container: str) -> None:
        with self._errors(container):
            self._api(WRITE_TIMEOUT_S).stop(container, timeout=STOP_GRACE_S)

    def remove(self, container: str) -> None:
        """Remove a container, running or not; nothing to do when it is gone."""
        with contextlib.suppress(Missing), self._errors(container):
            self._api(WRITE_TIMEOUT_S).remove_container(container, force=True, v=True)

    def rename(self, container: str, name: str) -> None:
        with self._errors(container):
            self._api(READ_TIMEOUT_S).rename(container, name)

    def limit(self, container: str, memory_bytes: int | None, cpus: float | None) -> None:
        """Change limits in place. None leaves a limit as it is: an engine cannot lift one."""
        change: dict[str, Json] = {}
        if memory_bytes is not None:
            change |= {"Memory": memory_bytes, "MemorySwap": memory_bytes}
        if cpus is not None:
            change |= {"NanoCpus": _nano(cpus)}
        self._update(container, change)

    def restart_policy(self, container: str, policy: str) -> None:
        self._update(container, {"RestartPolicy": {"Name": policy}})

    def put_secrets(self, container: str, folder: str, secrets: Mapping[str, str], uid: int) -> None:
        """Write files of mode 0400, owned by `uid`, into a container that is not started."""
        with self._errors(container):
            self._api(WRITE_TIMEOUT_S).put_archive(container, "/", _secrets_tar(folder, secrets, uid))

    def logs(self, container: str) -> str:
        with self._errors(container):
            said = self._api(WRITE_TIMEOUT_S).logs(container, tail=_LOG_LINES)
        return bytes(said).decode(errors="replace")

    def _update(self, container: str, change: Mapping[str, Json]) -> None:
        # the SDK's update_container does not know NanoCpus
        with self._errors(container):
            api = self._api(WRITE_TIMEOUT_S)
            api._result(
                api._post_json(api._url("/containers/{0}/update", container), data=dict(change)), True
            )

    def _api(self, timeout_s: int) -> Any:
        if timeout_s not in self._clients:
            self._clients[timeout_s] = open_client(self.url, self._environ, timeout_s)
        return self._clients[timeout_s]

    @contextlib.contextmanager
    def _errors(self, thing: str) -> Iterator[None]:
        import docker.errors
        import requests.exceptions
        import urllib3.exceptions

        try:
            yield
        except docker.errors.APIError as problem:
            raise _api_error(
                self.url, thing, problem.status_code, problem.explanation or str(problem)
            ) from problem
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as problem:
            raise _connection_error(self.url, problem) from problem
        except (urllib3.exceptions.HTTPError, docker.errors.StreamParseError) as problem:
            # the SDK reads a stream past requests: a cut one ends in the middle of a chunk, or of a line
            why = (
                "timed out"
                if isinstance(problem, urllib3.exceptions.TimeoutError)
                else "the connection broke"
            )
            raise Unreachable(self.url, f"does not answer: {why}", _IS_IT_RUNNING) from problem


def _nano(cpus: float | None) -> int:
    return 0 if cpus is None else round(cpus * 1e9)


def _host_config(api: Any, wanted: Wanted) -> Any:  # Any: the SDK's own dictionary, handed back to it
    from docker.types import DeviceRequest
    from docker.types import Mount as Bind

    gpus = [DeviceRequest(count=wanted.gpus, capabilities=[["gpu"]])] if wanted.gpus else None
    binding = (wanted.bind,) if wanted.port is None else (wanted.bind, wanted.port)
    return api.create_host_config(
        port_bindings={wanted.container_port: binding},
        mounts=[Bind(m.destination, m.source, type="bind", read_only=m.read_only) for m in wanted.mounts],
        device_requests=gpus,
        nano_cpus=_nano(wanted.cpus) or None,
        mem_limit=wanted.memory_bytes,
        memswap_limit=wanted.memory_bytes,  # no swap: an engine that swaps does not answer
        shm_size=wanted.shm_bytes,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        init=True,  # engines leave zombies
    )


def _secrets_tar(folder: str, secrets: Mapping[str, str], uid: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        parts = folder.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            entry = tarfile.TarInfo("/".join(parts[:depth]))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, value in sorted(secrets.items()):
            content = value.encode()
            entry = tarfile.TarInfo(f"{'/'.join(parts)}/{name}")
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o400, uid, uid
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _follow(url: str, lines: Iterable[Mapping[str, Any]], on_bytes: Callable[[int, int], None]) -> None:
    layers: dict[str, tuple[int, int]] = {}
    for line in lines:
        if "error" in line:
            raise _image_error(url, str(line["error"]))
        progress = line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and progress.get("total"):
            layers[line["id"]] = (progress["current"], progress["total"])
            on_bytes(sum(done for done, _ in layers.values()), sum(total for _, total in layers.values()))


def _image_error(url: str, message: str) -> BackendError:
    if "no space left" in message:
        return Exhausted(url, message, "free some disk space of the Docker engine: docker system df")
    if "unauthorized" in message or "denied" in message:
        return Denied(url, message, "docker login, as the user who runs mp")
    if "no matching manifest" in message:
        return Missing(url, message, "add its platform to the platforms of the engine, under engines:")
    if "not found" in message or "manifest unknown" in message:
        return Missing(url, message, "run mp apply")
    return BackendError(url, message)


def _api_error(url: str, thing: str, status: int | None, message: str) -> BackendError:
    if "could not select device driver" in message:
        return StartFailed(
            url,
            f"{thing}: the engine has no GPU driver",
            "install the NVIDIA container toolkit on that host, or choose a hardware class with gpus: 0",
        )
    if "port is already allocated" in message or "address already in use" in message:
        return StartFailed(url, f"{thing}: {message}", "end what listens there, or declare another port")
    if status == 404:
        return Missing(url, f"{thing}: {message}")
    if status in (401, 403):
        return Denied(url, f"{thing}: {message}")
    return _image_error(url, f"{thing}: {message}")


def _connection_error(url: str, problem: Exception) -> BackendError:
    text = str(problem)
    if "PermissionError" in text or isinstance(problem, PermissionError):
        return Denied(url, "this user may not talk to it", 'add the user to the group "docker"')
    reason = next(
        (words for words in ("Connection refused", "timed out", "No such file") if words in text), text
    )
    return Unreachable(url, f"does not answer: {reason}", _IS_IT_RUNNING)
