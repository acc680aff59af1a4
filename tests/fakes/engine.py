"""The tiny engine (server.py) as everything a real one is: a model, a launch, an environment, an image in a registry."""

import hashlib
import io
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import docker

from pipeline.core.digest import Digest
from pipeline.core.image import Build, Engine, ImageName, Launch, Registry
from pipeline.core.model import Hardware, Model, Question, Secret
from pipeline.core.protocols import SourceSpec
from pipeline.core.report import Event
from pipeline.core.resource import Address
from pipeline.resources.cache.store import Cache
from pipeline.sources.local import LocalSource

SERVER = Path(__file__).with_name("server.py")
ENGINE = Engine(
    template="transformers",
    version="0.0.1",
    variant="cpu",
    platform="linux/amd64",
    python="3.11",
    base="debian",
    base_digest=None,
    index="https://pypi.org/simple",
    requirements=(),
)
CPU = Hardware("cpu", gpus=0)


def model(
    folder: Path,
    cache: Cache,
    answer: str = "the sky is blue",
    name: str = "tiny",
    contains: str | None = None,
    api_key: Secret | None = None,
    hardware: Hardware = CPU,
) -> Model:
    """A model of one small file, which is in the cache when this returns."""
    weights = folder / f"{name}-weights"
    weights.mkdir(parents=True, exist_ok=True)
    (weights / "answer.txt").write_text(answer)
    (weights / "tiny.gguf").write_bytes(b"GGUF")  # a model without weights is none
    source = LocalSource(folder / "hashes")
    artifact = source.resolve(SourceSpec(f"file://{weights}", ""), None)
    cache.add(artifact, source, ignore, Address(f"{name}/artifact"))
    questions = (Question("what is blue?", contains),)
    return Model(name, artifact, hardware, ENGINE.template, ENGINE, questions=questions, api_key=api_key)


def launch(model: Model, *argv: str, env: Mapping[str, str] | None = None, timeout_s: int = 30) -> Launch:
    secrets = {} if model.api_key is None else {"MP_API_KEY": model.api_key.name}
    return Launch(ENGINE.template, model.name, argv, env or {}, secrets, start_timeout_s=timeout_s)


def build(folder: Path) -> Build:
    """The tiny engine as runtime files: what a local process runs."""
    (folder / ENGINE.template).mkdir(parents=True, exist_ok=True)
    shutil.copy(SERVER, folder / ENGINE.template / "serve.py")
    sha256 = hashlib.sha256(SERVER.read_bytes()).hexdigest()
    return Build(ENGINE, ((f"{ENGINE.template}/serve.py", sha256),), str(folder))


def make_environment(engine: Engine, folder: Path, on_line: Callable[[str], None]) -> None:
    """What uv does for a real engine: a folder whose bin/python runs it."""
    on_line(f"environment of {engine.key}")
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())


def push_image(
    host: str,
    base: str,
    registry: str,
    fingerprint: str = "0" * 64,
    repository: str = "transformers.engine",
    answer: str | None = None,
) -> tuple[ImageName, Digest]:
    """The tiny engine as an image in a registry, with weights where an answer is given; made without a build."""
    image = ImageName(Registry("main", url=f"{registry}/tiny"), repository, f"mp-{fingerprint[:12]}")
    files = {"opt/mp/serve.py": SERVER.read_bytes()}
    if answer is not None:
        files["models/answer.txt"] = answer.encode()
    client = docker.DockerClient(base_url=host)
    try:
        made = client.containers.create(base, "true")
        made.put_archive("/", _tar(files))
        name = f"{image.registry.url}/{image.repository}"
        made.commit(name, image.tag)
        made.remove()
        lines = client.api.push(name, tag=image.tag, stream=True, decode=True)
        digests = [line["aux"]["Digest"] for line in lines if "aux" in line]
    finally:
        client.close()
    return image, Digest(digests[-1])


def remove_image(client: docker.DockerClient, image: ImageName) -> None:
    """From the Docker engine, by whatever names and digests it is known there."""
    for each in client.images.list(f"{image.registry.url}/{image.repository}"):
        client.images.remove(str(each.id), force=True)


def ignore(event: Event) -> None:
    """An Emit for tests that look at no events."""


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
