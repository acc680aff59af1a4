"""Images of mp in their repositories: which there are, and what comes free when some of them go. Used by engine/prune.

An image is ours by its annotations and its tag. Tags of others are counted and left; what a kept image names stays.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.clients.oci import unlinking
from pipeline.clients.oci.closure import Closure, closure
from pipeline.clients.oci.referrers import list_tag
from pipeline.clients.oci.repository import Repository
from pipeline.core.digest import Digest, image_tag
from pipeline.core.frozen import frozen
from pipeline.core.image import Registry
from pipeline.core.mark import PROJECT
from pipeline.resources.image.assembly import FINGERPRINT
from pipeline.resources.image.publish import OpenRepository
from pipeline.resources.image.recipe import version_tag
from pipeline.resources.image.sharing import Users, let_go, users
from pipeline.resources.image.tagging import VERSION

# Signatures and the like under tags, as cosign 1 and 2 keep them: "sha256-<hex>.sig".
COMPANIONS = (".sig", ".att", ".sbom")
READERS = 8  # requests to one registry at a time


@dataclass(frozen=True, order=True)
class Place:
    """One repository."""

    location: str  # of the registry: "127.0.0.1:5000/acme", "layout:/srv/images"
    repository: str


@frozen
class Held:
    """One image that mp made."""

    place: Place
    tag: str  # "mp-<12 hex>"
    digest: Digest
    project: str | None  # None: an engine image, which any project may use
    version: str  # of the model or engine; "" where it is not told
    others: tuple[str, ...]  # tags that somebody else gave it
    size_bytes: int  # all that it names, also what other images name
    users: Users | None = None  # None: of an engine image


@frozen
class Stock:
    """One repository as it was read."""

    place: Place
    repository: Repository
    images: tuple[Held, ...]
    left: int  # tags that name nothing of ours
    closures: Mapping[Digest, Closure]  # of everything that is listed, also of others
    companions: Mapping[Digest, tuple[Digest, ...]]  # image → what points at it by a tag
    loose: tuple[Digest, ...]


@frozen
class Removed:
    """What went from one repository."""

    freed_bytes: int  # of this machine's disk
    images: tuple[Held, ...]


@frozen
class Removal:
    """What goes from one repository."""

    stock: Stock
    images: tuple[Held, ...]
    manifests: tuple[Digest, ...]  # in the order in which they go
    blobs: Mapping[Digest, int]  # that nothing of this repository names then, manifests too, with their sizes


def read(open_repository: OpenRepository, registry: Registry, place: Place) -> Stock:
    """Every image with all that it names. Raises what repositories raise: what is not known is not pruned."""
    repository = open_repository(registry, place.repository)
    with ThreadPoolExecutor(READERS, "stock") as pool:
        tags = repository.tags()
        heads = dict(zip(tags, pool.map(repository.head, tags), strict=True))
        named = {tag: head[0] for tag, head in heads.items() if head}
        every = sorted({*named.values(), *repository.untagged()})
        whole: Callable[[Digest], Closure] = lambda image: closure(repository, image)  # noqa: E731
        closures = dict(zip(every, pool.map(whole, every), strict=True))
        made = {each: found.annotations[PROJECT] for each, found in closures.items() if _is_ours(found)}
        asked: Callable[[Digest], Users] = lambda image: users(repository, image, made[image])  # noqa: E731
        needed = dict(zip(made, pool.map(asked, made), strict=True))
    companions = {
        image: tuple(named[tag] for end in COMPANIONS if (tag := list_tag(image) + end) in named)
        for image in every
    }
    images = tuple(_held(place, named, closures, needed))
    strange, ours = {tag for one in images for tag in one.others}, {one.digest for one in images}
    own = {tag for tag, image in named.items() if image in ours} - strange
    own |= {list_tag(one.digest) + end for one in images for end in COMPANIONS}
    return Stock(place, repository, images, len(named.keys() - own), closures, companions, repository.loose())


def removals(stocks: Sequence[Stock], going: Collection[Held]) -> tuple[Removal, ...]:
    """What has to be done in each repository for these images to go; loose blobs go anyway."""
    found = (_removal(stock, [one for one in stock.images if one in going]) for stock in stocks)
    return tuple(one for one in found if one.images or one.blobs)


def disk_bytes(removed: Iterable[Removal]) -> int:
    """What comes free on this machine's disk: layouts share files between repositories by hard links."""
    return unlinking.freed_bytes(path for one in removed for path in one.stock.repository.paths(one.blobs))


def unreferenced_bytes(stocks: Sequence[Stock], removed: Sequence[Removal]) -> Mapping[str, int]:
    """By registry over HTTP: bytes that no image of any repository read here names then; it frees them itself, later."""
    found: dict[str, int] = {}
    gone = {one.stock.place: one for one in removed}
    for location in sorted({place.location for place in gone if not place.location.startswith("layout:")}):
        here = [stock for stock in stocks if stock.place.location == location]
        dropped = {k: v for stock in here if stock.place in gone for k, v in gone[stock.place].blobs.items()}
        for stock in here:
            leaving = gone[stock.place].blobs.keys() if stock.place in gone else set()
            for each in stock.closures.values():
                for blob in each.sizes.keys() - leaving:
                    dropped.pop(blob, None)
        found[location] = sum(dropped.values())
    return found


def remove(removal: Removal, project: str) -> Removed:
    """Take the images away but for those that another project has marked since they were read.

    Over HTTP each is looked at right before its own delete. May be repeated. Raises Denied where deletion is not allowed.
    """
    stock, going, manifests = removal.stock, list(removal.images), removal.manifests
    if stock.place.location.startswith("layout:"):  # all in one step: the folder's index is written once
        going = [one for one in going if not _besides(stock, one, project)]
        return Removed(stock.repository.remove(_removal(stock, going).manifests), tuple(going))
    freed_bytes, shared = 0, _named_often(removal)
    for one in removal.images:
        if _besides(stock, one, project):
            going.remove(one)
            continue
        own = _closing(stock, one) - shared
        freed_bytes += stock.repository.remove([each for each in manifests if each in own])
    last = set(_removal(stock, going).manifests) & shared
    freed_bytes += stock.repository.remove([each for each in manifests if each in last])
    return Removed(freed_bytes, tuple(going))


def leave(stock: Stock, image: Held, project: str) -> None:
    """Leave an image to the other projects that need it. May be repeated."""
    if image.users:
        let_go(stock.repository, image.digest, image.users, project)


def _besides(stock: Stock, image: Held, project: str) -> tuple[str, ...]:
    """Other projects that need an image now."""
    if image.users is None:
        return ()
    return users(stock.repository, image.digest, image.users.maker).besides(project)


def _named_often(removal: Removal) -> set[Digest]:
    """Manifests that several of the images name: such as the image of one platform that two indexes share."""
    count = Counter(each for one in removal.images for each in _closing(removal.stock, one))
    return {each for each, times in count.items() if times > 1}


def _closing(stock: Stock, image: Held) -> set[Digest]:
    """Every manifest that goes with an image."""
    whole = (image.digest, *stock.companions.get(image.digest, ()))
    return {each for one in whole for each in stock.closures[one].manifests}


def _is_ours(found: Closure) -> bool:
    return {FINGERPRINT, PROJECT} <= found.annotations.keys()


def _held(
    place: Place,
    named: Mapping[str, Digest],
    closures: Mapping[Digest, Closure],
    needed: Mapping[Digest, Users],
) -> Iterable[Held]:
    for tag, image in sorted(named.items()):
        found = closures[image]
        full = found.annotations.get(FINGERPRINT, "")
        if not full or tag != image_tag(full):
            continue
        version = found.annotations.get(VERSION, "")
        own = {tag, version_tag(version), *(needed[image].tags if image in needed else ())}
        others = tuple(sorted(name for name, where in named.items() if where == image and name not in own))
        project, size_bytes = found.annotations.get(PROJECT), sum(found.sizes.values())
        yield Held(place, tag, image, project, version, others, size_bytes, needed.get(image))


def _removal(stock: Stock, going: Sequence[Held]) -> Removal:
    leaving = {one.digest for one in going}
    leaving |= {each for one in going for each in stock.companions.get(one.digest, ())}
    kept = {blob for image, each in stock.closures.items() if image not in leaving for blob in each.sizes}
    ordered = [each for one in going for each in (*stock.companions.get(one.digest, ()), one.digest)]
    manifests = dict.fromkeys(
        manifest for image in ordered for manifest in stock.closures[image].manifests if manifest not in kept
    )
    blobs = {blob: size for image in ordered for blob, size in stock.closures[image].sizes.items()}
    blobs |= dict.fromkeys(stock.loose, 0)
    return Removal(stock, tuple(going), tuple(manifests), {k: v for k, v in blobs.items() if k not in kept})
