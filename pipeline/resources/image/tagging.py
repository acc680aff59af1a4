"""Tags where several projects publish into one repository: which image one may name, and whose it stays. Used by resource.

A human tag ("main") is one for all of them, and so is mp's own where both published equal content at once.
"""

from collections.abc import Mapping

from pipeline.clients.oci.repository import ImageManifest, Repository, Tagged
from pipeline.core.digest import Digest
from pipeline.core.mark import PROJECT
from pipeline.resources.image.publish import Publisher, Shop
from pipeline.resources.image.recipe import version_tag
from pipeline.resources.image.sharing import tell_tag, users

VERSION = "org.opencontainers.image.version"


def version(repository: Repository, wanted: str, own: Tagged, project: str) -> tuple[str, str]:
    """The human tag as it is, and why it stays so: names our image, is not there, names one that may make place for ours,
    or one that another project needs. There it is as wanted, and stays. Asks one question where it names ours.
    """
    found = repository.head(wanted) if wanted else None
    if found is None:
        return "", ""
    if found[0] == own.digest:
        return wanted, ""
    if others := _needed_by(repository, found[0], own.annotations, project):
        names = ", ".join(others)
        return wanted, f'the tag "{wanted}" names an image of project {names}: it stays there'
    return f"{wanted} → {found[0][:19]}", ""


def put_version(repository: Repository, wanted: str, image: ImageManifest, project: str) -> None:
    """Put the human tag, but where it names an image that another project needs."""
    is_there, why = version(repository, wanted, image.tagged(), project)
    if wanted and not why and is_there != wanted:
        if wanted != version_tag(image.annotations().get(VERSION, "")):
            tell_tag(repository, image, wanted)
        repository.put_manifest(wanted, image)


def of_another(publisher: Publisher, shop: Shop, own: ImageManifest | None) -> ImageManifest | None:
    """What our own tag names, where that is the wanted image, whole, and of another project: theirs came first.

    Both would put the tag back to their own for ever otherwise. Where images are signed only one with the same content is
    taken: what is signed is what was made, or seen, by us.
    """
    tag = shop.recipe.name.tag
    named = shop.repository.head(tag) if own else None
    if own and (named is None or named[0] == own.digest):
        return None
    found = publisher.standing(shop, tag)
    if found is None or found.annotations().get(PROJECT) in (None, shop.recipe.project):
        return None
    is_same = own is not None and _content(found) == _content(own)
    return found if is_same or not shop.recipe.name.registry.signed else None


def _needed_by(
    repository: Repository, image: Digest, own: Mapping[str, str], project: str
) -> tuple[str, ...]:
    """Other projects that need what a human tag names, where it is not for this one to move it.

    A project moves the tag from one image of its own to another, whoever shares the first. From what others made, and from
    what others need to what others made, it does not: so no two projects move it to and fro.
    """
    found = repository.describe(image)
    maker = found.annotations.get(PROJECT) if found else None
    if maker is None or maker == project == own.get(PROJECT):
        return ()
    return users(repository, image, maker).besides(project)


def _content(image: ImageManifest) -> object:
    return {key: value for key, value in image.document().items() if key != "annotations"}
