"""Two projects that publish into one repository: tags come to rest, whatever each of them wants."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.clients.oci.repositories import Repositories
from pipeline.clients.oci.repository import ImageManifest, Repository
from pipeline.core.change import Action, Change, FieldDiff
from pipeline.core.digest import canonical, image_tag
from pipeline.core.image import Registry
from pipeline.core.mark import PROJECT
from pipeline.core.model import Model
from pipeline.core.report import Event
from pipeline.core.resource import Address, Entry, Mark, fields_of
from pipeline.engine.diff import diff
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import reclaim, sharing
from pipeline.resources.image import resource as image
from pipeline.resources.image.reclaim import Place
from pipeline.resources.image.resource import ImageDriver, ImageState
from pipeline.store.inventory import Inventory
from tests.fakes import engine


@dataclass
class Side:
    """One of the projects: its driver and what its inventory says."""

    project: str
    folder: Path
    registry: Registry
    entry: Entry | None = None
    notes: tuple[str, ...] = ()

    @property
    def repository(self) -> Repository:
        return Repositories({})(self.registry, "tiny.weights")

    def __post_init__(self) -> None:
        self.cache = Cache(self.folder / f"cache-{self.project}")
        owner = Mark(self.project, "default", Address(""))
        self.driver = ImageDriver(self.cache, {}, Repositories({}), owner)
        self.mark = owner

    def model(self, answer: str, version: str = "main") -> Model:
        made = engine.model(self.folder / self.project / answer, self.cache, answer)
        return replace(made, artifact=replace(made.artifact, version=version))

    def plan(self, model: Model) -> Change[ImageState]:
        wanted = image.weights_image(model, self.registry, self.project)
        known = [self.entry] if self.entry else []
        answers = self.driver.observe([wanted], known)
        inventory = Inventory({one.address: one for one in known})
        found = diff({wanted.address: wanted}, (), answers, inventory, self.mark)
        self.notes = tuple(one.summary for one in found.diagnostics)
        (change,) = found.changes
        return change

    def apply(self, model: Model, emit: Callable[[Event], None] = lambda _: None) -> None:
        """Plan and carry out; nothing where there is nothing to do."""
        change = self.plan(model)
        if change.action is Action.NOOP:
            return
        made = self.driver.apply(change, {}, emit)
        assert made is not None
        wanted = change.resource
        assert wanted is not None
        state = fields_of(made.state)
        self.entry = Entry(wanted.address, wanted.kind, wanted.locator, None, made.digest, state, state)

    def is_empty(self, model: Model) -> bool:
        return self.plan(model).action is Action.NOOP

    def tag(self, model: Model) -> str:
        wanted = image.weights_image(model, self.registry, self.project)
        return image_tag(wanted.desired.fingerprint)

    def named(self, tag: str) -> ImageManifest:
        found = self.repository.manifest(tag)
        assert found is not None
        return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Side, Side]:
    registry = Registry("main", layout=str(tmp_path / "images"))
    return Side("a", tmp_path, registry), Side("b", tmp_path, registry)


def test_a_human_tag_stays_with_the_project_whose_image_it_names(pair: tuple[Side, Side]) -> None:
    a, b = pair
    first, second = a.model("first"), b.model("second")
    a.apply(first)

    b.apply(second)

    assert a.is_empty(first)
    assert b.is_empty(second)
    assert b.notes == ('tiny/weights:main: the tag "main" names an image of project a: it stays there',)
    assert a.named("main") == a.named(a.tag(first))
    third = a.model("third")
    a.apply(third)
    assert a.named("main") == a.named(a.tag(third)), "among its own a project moves it"
    assert a.is_empty(third)
    assert b.is_empty(second)


def test_a_shared_image_does_not_keep_the_human_tag_of_the_project_that_made_it(
    pair: tuple[Side, Side],
) -> None:
    a, b = pair
    a.apply(a.model("first"))
    b.apply(b.model("first"))

    newer = a.model("second")
    a.apply(newer)

    assert a.named("main") == a.named(a.tag(newer))
    assert a.is_empty(newer)
    assert b.is_empty(b.model("first"))


def test_projects_that_want_what_the_other_one_made_do_not_move_a_tag_to_and_fro(
    pair: tuple[Side, Side],
) -> None:
    a, b = pair
    a.apply(a.model("first"))
    b.apply(b.model("second"))
    for _ in range(2):
        a.apply(a.model("second"))
        b.apply(b.model("first"))

    assert a.is_empty(a.model("second"))
    assert b.is_empty(b.model("first"))


def test_a_human_tag_that_nobody_needs_any_more_is_put_again(pair: tuple[Side, Side]) -> None:
    a, b = pair
    a.apply(a.model("first"))
    b.apply(b.model("second"))
    a.repository.remove([a.named("main").digest])

    assert b.plan(b.model("second")).diffs == (FieldDiff("version_tag", "", "main"),)
    b.apply(b.model("second"))

    assert b.named("main") == b.named(b.tag(b.model("second")))


def twice(a: Side, b: Side) -> tuple[Model, Model]:
    """Both have published the same content, as if nobody else had; the tag names what a made."""
    mine, theirs = a.model("same"), b.model("same")
    a.apply(mine)
    made = a.named(a.tag(mine))
    shutil.rmtree(str(a.registry.layout))
    b.apply(theirs)
    a.repository.put_manifest(made.digest, made)
    a.repository.put_manifest(a.tag(mine), made)
    a.repository.put_manifest("main", made)
    return mine, theirs


def test_one_content_that_two_projects_published_at_once_comes_to_rest(pair: tuple[Side, Side]) -> None:
    a, b = pair
    mine, theirs = twice(a, b)
    assert a.is_empty(mine)
    planned = b.plan(theirs)
    assert FieldDiff("shared", "", "with project a") in planned.diffs
    assert [one.path for one in planned.drift] == ["digest"]

    b.apply(theirs)

    assert a.is_empty(mine)
    assert b.is_empty(theirs)
    assert a.entry and b.entry and a.entry.digest == b.entry.digest


def test_what_another_project_tags_while_this_one_pushes_is_taken(pair: tuple[Side, Side]) -> None:
    a, b = pair
    mine, theirs = a.model("same"), b.model("same")
    a.apply(mine)
    made = a.named(a.tag(mine))
    shutil.rmtree(str(a.registry.layout))

    b.apply(theirs, lambda _: tag(a, made, a.tag(mine)))

    assert b.named(b.tag(theirs)) == made
    assert b.is_empty(theirs)
    assert a.is_empty(mine)


def tag(side: Side, made: ImageManifest, name: str) -> None:
    side.repository.put_manifest(made.digest, made)
    side.repository.put_manifest(name, made)


def test_a_tag_that_was_moved_to_something_else_is_put_back(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    mine = a.model("same")
    a.apply(mine)
    made = a.named(a.tag(mine))
    odd = made.document() | {"annotations": {**made.annotations(), "more": "yes"}}
    tag(a, ImageManifest(canonical(odd), made.media_type), a.tag(mine))

    a.apply(mine)

    assert a.named(a.tag(mine)) == made


def test_where_images_are_signed_a_moved_tag_is_not_believed_but_for_the_same_content(
    pair: tuple[Side, Side],
) -> None:
    a, _ = pair
    a.registry = replace(a.registry, signed=True)
    mine = a.model("same")
    a.apply(mine)
    made = a.named(a.tag(mine))
    by_b = json.loads(made.body) | {"annotations": {**made.annotations(), PROJECT: "b"}}
    forged = by_b | {"layers": by_b["layers"] * 2}
    tag(a, ImageManifest(canonical(forged), made.media_type), a.tag(mine))
    a.apply(mine)
    assert a.named(a.tag(mine)) == made

    same = ImageManifest(canonical(by_b), made.media_type)
    tag(a, same, a.tag(mine))
    a.apply(mine)

    assert a.named(a.tag(mine)) == same


def test_after_an_image_is_wanted_again_a_moved_tag_is_told_and_nothing_else(pair: tuple[Side, Side]) -> None:
    a, _ = pair
    mine = a.model("same")
    a.apply(mine)
    made = a.named(a.tag(mine))
    sharing.put(a.repository, made, sharing.LEFT, "a")
    a.entry = None
    a.apply(mine)
    assert a.entry is not None
    assert dict(a.entry.applied)["shared"] == sharing.AGAIN
    odd = made.document() | {"annotations": {**made.annotations(), "more": "yes"}}
    moved = ImageManifest(canonical(odd), made.media_type)
    tag(a, moved, a.tag(mine))
    tag(a, moved, "main")

    assert [one.path for one in a.plan(mine).drift] == ["digest"]


def test_a_mark_that_a_list_lost_is_put_again_after_the_tags(
    pair: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    a.apply(a.model("same"))
    kept = sharing.keep

    def lost(repository: Repository, image: ImageManifest, project: str) -> None:
        (mark,) = repository.referrers(image.digest, sharing.USED)
        found = repository.manifest(mark.digest)
        assert found is not None
        repository.drop_referrer(found)
        kept(repository, image, project)

    monkeypatch.setattr(sharing, "keep", lost)

    b.apply(b.model("same"))

    assert b.is_empty(b.model("same"))


@pytest.mark.parametrize("giver", [0, 1])
def test_a_tag_that_another_environment_or_project_gave_an_image_is_no_strangers(
    pair: tuple[Side, Side], giver: int
) -> None:
    a, other = pair[0], pair[giver]
    a.apply(a.model("same"))

    other.apply(other.model("same", "v1.0"))

    a.repository.put_manifest("their-own", a.named("v1.0"))
    (held,) = reclaim.read(Repositories({}), a.registry, Place(a.registry.location, "tiny.weights")).images
    assert set(a.repository.tags()) == {held.tag, "main", "v1.0", "their-own"}
    assert held.others == ("their-own",)
