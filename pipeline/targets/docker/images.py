"""The image of a container on its Docker engine: pulled by digest, or loaded from a folder of layouts. Used by the driver."""

from pipeline.clients.archive import docker_archive
from pipeline.clients.docker import DockerHost
from pipeline.clients.oci.repository import Repository
from pipeline.core.digest import Digest
from pipeline.core.errors import Missing
from pipeline.core.image import ImageName
from pipeline.core.report import Emit, Progress
from pipeline.core.resource import Address
from pipeline.resources.image.index import is_index, parts


def load(host: DockerHost, address: Address, image: ImageName, repository: Repository, emit: Emit) -> str:
    """Have an image of a layout on the host; what it is called there."""
    local = f"mp/{image.repository}:{image.tag}"
    if not host.has_image(local):
        emit(Progress(address, "load"))
        host.load(docker_archive(repository, _reference(host, image, repository), local), local)
    return local


def pull(host: DockerHost, address: Address, image: ImageName, digest: Digest | None, emit: Emit) -> str:
    """Have an image of a registry on the host; of several platforms the engine takes its own."""
    if digest is None:
        raise Missing(str(image), "its digest is not known", "run mp apply")
    repository = f"{image.registry.url}/{image.repository}"
    if not host.has_image(f"{repository}@{digest}"):
        host.pull(repository, digest, lambda done, total: emit(Progress(address, "pull", done, total)))
    return f"{repository}:{image.tag}@{digest}"


def _reference(host: DockerHost, image: ImageName, repository: Repository) -> str:
    """The image to load: the tag's, or of several platforms that of the host."""
    found = repository.manifest(image.tag)
    if found is None or not is_index(found):
        return image.tag
    own = host.platform()
    named = {part.platform: part.digest for part in parts(found)}
    if own not in named:
        text = f"{image.repository}:{image.tag} is for {', '.join(sorted(named))}, not for {own}"
        raise Missing(host.url, text, "add it to the platforms of the engine, under engines:")
    return named[own]
