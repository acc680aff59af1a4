"""Images that several projects use: who made one stands in it, who else needs it points at it. Used by resource and reclaim.

A registry lists what points at an image, and deletes it by its own digest: a tag alone docker-registry 2.8 does not delete.
"""

from pipeline.clients.oci.referrers import told
from pipeline.clients.oci.repository import Descriptor, ImageManifest, Repository, Tagged
from pipeline.core.digest import Digest
from pipeline.core.frozen import frozen
from pipeline.core.mark import PROJECT
from pipeline.resources.image.trust.attach import EMPTY, Attachment, attach, pointing

USED = "application/vnd.dev.mp.used.v1+json"  # the project that it names needs the image
LEFT = "application/vnd.dev.mp.left.v1+json"  # the project that made the image has pruned it
TAGGED = "application/vnd.dev.mp.tagged.v1+json"  # mp gave the image one more human tag
_TAG = "dev.mp.tag"  # annotation of that note
AGAIN = "again, after it was left to others"
_SOMEBODY = "?"  # what a note does not tell


@frozen
class Users:
    """The projects that need one image."""

    maker: str  # as its annotations say
    marked: frozenset[str] = frozenset()
    left: bool = False  # the maker needs it only where it has a mark as well
    tags: frozenset[str] = frozenset()  # that mp gave it besides the one of its own annotations

    @property
    def projects(self) -> frozenset[str]:
        return self.marked if self.left else self.marked | {self.maker}

    def besides(self, project: str) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted(self.projects - {project}))


def users(repository: Repository, image: Digest, maker: str) -> Users:
    """What points at the image is asked for: one request, two where a registry keeps no list of it, and one for each mark:
    a list under a tag goes on naming what was deleted by its digest."""
    found = [*told(repository.referrers(image), repository.manifest)]
    used = [each for each in found if each.artifact_type == USED and repository.head(each.digest)]
    marked = frozenset(_said(repository, each, PROJECT) for each in used)
    left = any(_is_left(repository, each, maker) for each in found if each.artifact_type == LEFT)
    tags = frozenset(_said(repository, each, _TAG) for each in found if each.artifact_type == TAGGED)
    return Users(maker, marked, left, tags)


def seen(repository: Repository, image: Tagged, project: str, before: str | None) -> tuple[str, str]:
    """What a plan says of an image that `project` wants: how it is shared as it is marked now, and as it has to be.

    `before`: as it was applied last; None where it was not. Nothing is asked of an image that the project made then.
    """
    maker = image.annotations.get(PROJECT)
    if maker is None:
        return "", ""
    wanted = f"with project {maker}"
    if maker == project:
        if before is not None:
            return (before, before) if before == AGAIN else ("", "")
        if repository.head(pointing(image, _note(LEFT, project)).digest) is None:
            return "", ""
        wanted = AGAIN
    marked = users(repository, image.digest, maker).marked
    return wanted if project in marked else "", wanted


def put(repository: Repository, image: ImageManifest, kind: str, project: str) -> None:
    """Say that a project uses or has left an image. May be repeated."""
    attach(repository, image, (_note(kind, project),))


def tell_tag(repository: Repository, image: ImageManifest, tag: str) -> None:
    """Say that a human tag is mp's: no prune takes it for somebody else's then. It goes with the image; may be repeated."""
    attach(repository, image, (Attachment(TAGGED, EMPTY, {_TAG: tag}),))


def keep(repository: Repository, image: ImageManifest, project: str) -> None:
    """Put a mark again that is not in the list any more: a list under a tag is read and written, also by others."""
    if project not in users(repository, image.digest, image.annotations().get(PROJECT, "")).marked:
        put(repository, image, USED, project)


def let_go(repository: Repository, image: Digest, found: Users, project: str) -> None:
    """The project needs the image no more, and others do. May be repeated; an image that is gone needs nothing."""
    manifest = repository.manifest(image)
    if manifest is None:
        return
    if project == found.maker and not found.left:
        put(repository, manifest, LEFT, project)
    if project in found.marked:
        repository.drop_referrer(pointing(manifest.tagged(), _note(USED, project)))


def _is_left(repository: Repository, note: Descriptor, maker: str) -> bool:
    """Whether it is the maker who says so: anybody else's note says nothing. A list may name what was deleted."""
    return _said(repository, note, PROJECT) == maker and repository.head(note.digest) is not None


def _note(kind: str, project: str) -> Attachment:
    return Attachment(kind, EMPTY, {PROJECT: project})


def _said(repository: Repository, note: Descriptor, key: str) -> str:
    """A list need not repeat annotations: then the note itself is read."""
    if key in note.annotations:
        return note.annotations[key]
    manifest = repository.manifest(note.digest)
    return manifest.annotations().get(key, _SOMEBODY) if manifest else _SOMEBODY
