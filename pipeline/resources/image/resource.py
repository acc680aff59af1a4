"""Model and weights images and ModelPack artifacts: their states and resources, and the driver that observes and publishes them."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field, replace
from typing import Any, TypeAlias

from pipeline.clients.oci.repository import ImageManifest, Repository, Tagged
from pipeline.core.change import Change
from pipeline.core.digest import Digest, image_tag
from pipeline.core.errors import BackendError, Missing, Unreachable
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Registry
from pipeline.core.model import Model
from pipeline.core.protocols import Source
from pipeline.core.report import Emit
from pipeline.core.resource import (
    Absent,
    Address,
    Entry,
    Locator,
    Mark,
    Observed,
    Resource,
    State,
    Unreadable,
    address,
)
from pipeline.resources.cache.artifact import addresses
from pipeline.resources.cache.store import Cache
from pipeline.resources.image import sharing, tagging
from pipeline.resources.image.assembly import FINGERPRINT
from pipeline.resources.image.modelpack import artifact_fingerprint
from pipeline.resources.image.outlook import Outlook, together
from pipeline.resources.image.publish import OpenRepository, Published, Publisher, Shop
from pipeline.resources.image.recipe import (
    Recipe,
    image_fingerprint,
    image_name,
    locator,
    modelpack_name,
    registry_of,
    version_tag,
    weights_fingerprint,
    weights_name,
)
from pipeline.resources.image.trust.attach import Attestor
from pipeline.resources.image.trust.signing import outlives, seen_signed

KIND = "image"
READERS = 16  # registries over HTTP are asked side by side

Answer: TypeAlias = "Observed[ImageState] | Absent | Unreadable"


@frozen
class ImageState(State):
    fingerprint: str  # "": a tag of ours names an image that mp did not make
    version_tag: str  # the human tag beside ours, "" for none; "main → sha256:…" when it names another image
    recipe: Recipe | None = field(default=None, compare=False)
    signed: bool = False  # never where the registry's images are not to be signed
    shared: str = ""  # "with project acme", which made it: it bears a mark that ours needs it too

    def only_marks(self, path: str) -> bool:
        return path == "shared"


def model_image(model: Model, build: Build, registry: Registry, project: str) -> Resource[ImageState]:
    """Engine and weights: what is run."""
    where = address(model.name, KIND, registry.name)
    name, full = image_name(model, build, registry), image_fingerprint(model, build, registry)
    engine = address("@engine", build.engine.key, registry.name)
    return _resource(Recipe(where, name, model, build, project, full), engine)


def weights_image(model: Model, registry: Registry, project: str) -> Resource[ImageState]:
    """Weights alone, under /models: what is mounted."""
    where = address(model.name, "weights", registry.name)
    name, full = weights_name(model, registry), weights_fingerprint(model, registry)
    recipe = Recipe(where, name, model, None, project, full)
    return _resource(recipe)


def model_artifact(model: Model, registry: Registry, project: str) -> Resource[ImageState]:
    """Weights as files, in the form of ModelPack: what other tools read."""
    where = address(model.name, "modelpack", registry.name)
    name, full = modelpack_name(model, registry), artifact_fingerprint(model)
    return _resource(Recipe(where, name, model, None, project, full, packed=True))


def _resource(recipe: Recipe, *engine: Address) -> Resource[ImageState]:
    model = recipe.model
    return Resource(
        recipe.address,
        KIND,
        locator(recipe.name),
        ImageState(
            recipe.fingerprint,
            version_tag(model.artifact.version),
            recipe,
            recipe.name.registry.signed,
        ),
        needs=(*(addresses(model) if model.cached else ()), *engine),
        keep=True,
        lifecycle=model.lifecycle,
        where=model.where,
    )


@frozen
class _Question:
    """One image to look at: wanted, or only known from the inventory."""

    address: Address
    locator: Locator
    wanted: Resource[ImageState] | None
    entry: Entry | None

    def fingerprints(self) -> Iterable[str]:
        """The wanted one; where it is not there yet, the one that was applied last is what is there."""
        if self.wanted:
            yield self.wanted.desired.fingerprint
        if self.entry and (applied := str(self.entry.applied.get("fingerprint") or "")):
            yield applied

    def version(self) -> str:
        if self.wanted:
            return self.wanted.desired.version_tag
        return str(self.entry.applied.get("version_tag") or "") if self.entry else ""

    def shared(self, repository: Repository, found: Tagged) -> tuple[str, str]:
        """As sharing.seen. What is to make place for another image is as it was applied."""
        applied = self.entry.applied if self.entry else {}
        live = found.annotations.get(FINGERPRINT)
        if self.wanted and live == self.wanted.desired.fingerprint:
            project = _recipe(self.wanted).project
            return sharing.seen(repository, found, project, _before(live, self.entry))
        before = str(applied.get("shared") or "")
        return before, before


@frozen
class _Seen:
    """What the questions of one round have come to."""

    silent: dict[str, Unreachable] = field(default_factory=dict)  # by registry
    outlooks: dict[Address, Outlook] = field(default_factory=dict)


class ImageDriver:
    """Images are named by their content: a tag mp-<12 hex> in a repository of ours is ours."""

    def __init__(
        self,
        cache: Cache,
        sources: Mapping[str, Source],
        repositories: OpenRepository,
        owner: Mark,
        attestor: Attestor | None = None,
    ) -> None:
        self._open = repositories
        self._publisher = Publisher(cache, sources, repositories)
        self._owner = owner  # its address is filled in for each
        self._attestor = attestor  # None: nothing is said of new images beside them

    def observe(
        self, wanted: Sequence[Resource[ImageState]], known: Sequence[Entry]
    ) -> Mapping[Address, Answer]:
        """A tag in each repository; layouts one after the other, registries over HTTP side by side."""
        entries = {entry.address: entry for entry in known}
        questions = [_Question(r.address, r.locator, r, entries.pop(r.address, None)) for r in wanted]
        questions += [_Question(e.address, e.locator, None, e) for e in entries.values()]
        remote = [q for q in questions if not q.locator["registry"].startswith("layout:")]
        seen = _Seen()
        answers = {
            q.address: self._answer(q, seen) for q in questions if q.locator["registry"].startswith("layout:")
        }
        if remote:
            with ThreadPoolExecutor(min(READERS, len(remote)), "images") as pool:
                found = pool.map(lambda q: self._answer(q, seen), remote)
                answers.update(zip((q.address for q in remote), found, strict=True))
        return answers | _shared(questions, answers, seen)

    def apply(
        self, change: Change[ImageState], inputs: Mapping[Address, Observed[Any]], emit: Emit
    ) -> Observed[ImageState] | None:
        """Push what is missing, then the tags, ours last. An image that stands is only tagged again."""
        if change.resource is None:  # images are pruned, never deleted by apply
            return None
        desired = change.resource.desired
        recipe = _recipe(change.resource)
        shop = self._publisher.shop(recipe)
        image, shared = self._marked(shop, change, self._standing(shop, change))
        if image is None:
            engine = _engine_digest(recipe, inputs)
            if self._attestor:
                self._attestor.require(recipe.name.registry)
            made = self._publisher.publish(shop, engine, _previous(desired, change.entry), emit)
            self._attest(shop, made)
            image, shared = self._marked(shop, change, tagging.of_another(self._publisher, shop, made.image))
            image = image or made.image
        elif desired.signed and self._attestor:
            self._attestor.sign_standing(shop.repository, recipe.name.registry, image)
        tagging.put_version(shop.repository, desired.version_tag, image, recipe.project)
        shop.repository.put_manifest(recipe.name.tag, image)
        if shared:
            sharing.keep(shop.repository, image, recipe.project)
        return Observed(replace(desired, shared=shared), self._mark(recipe.address), digest=image.digest)

    def _marked(
        self, shop: Shop, change: Change[ImageState], image: ImageManifest | None
    ) -> tuple[ImageManifest | None, str]:
        """An image that stands, and how it is shared. Our mark is there before a tag is put; then it is looked at again:
        who made it may have pruned it meanwhile."""
        if image is None:
            return None, ""
        project = shop.recipe.project
        shared, wanted = sharing.seen(
            shop.repository, image.tagged(), project, _before(shop.recipe.fingerprint, change.entry)
        )
        if shared != wanted:
            sharing.put(shop.repository, image, sharing.USED, project)
            image = self._publisher.standing(shop, image.digest)
        return image, wanted if image else ""

    def _attest(self, shop: Shop, made: Published) -> None:
        """Each platform's image has documents of its own; what stands for all of them is signed."""
        if self._attestor is None:
            return
        for part in made.parts:
            self._attestor.attest_model(shop.repository, part.recipe, part.image, part.engine)
        if len(made.parts) > 1:
            self._attestor.attest_index(shop.repository, shop.recipe.name.registry, made.image)

    def _standing(self, shop: Shop, change: Change[ImageState]) -> ImageManifest | None:
        """The image of the inventory's digest; without one, what our tag names. A moved tag is believed only where another
        project made what it names."""
        entry, recipe = change.entry, shop.recipe
        applied = entry.applied.get("fingerprint") if entry else None
        if entry and entry.digest and applied == recipe.fingerprint:
            own = self._publisher.standing(shop, entry.digest)
            return tagging.of_another(self._publisher, shop, own) or own
        return self._publisher.standing(shop, recipe.name.tag)

    def _answer(self, question: _Question, seen: _Seen) -> Answer:
        """Registries that did not answer are not waited for again."""
        place = question.locator["registry"]
        try:
            if place in seen.silent:
                raise seen.silent[place]
            return self._look(question, seen)
        except Unreachable as problem:
            seen.silent[place] = problem
            return Unreadable(problem.message, problem.hint)
        except BackendError as problem:
            return Unreadable(problem.message, problem.hint)

    def _look(self, question: _Question, seen: _Seen) -> Answer:
        where = question.locator
        recipe = question.wanted.desired.recipe if question.wanted else None
        registry = recipe.name.registry if recipe else registry_of(where)
        repository = self._open(registry, where["repository"])
        for fingerprint in question.fingerprints():
            tagged = repository.describe(image_tag(fingerprint))
            if tagged is not None:
                live = tagged.annotations.get(FINGERPRINT, "")
                project = recipe.project if recipe else self._owner.project
                version, note = tagging.version(repository, question.version(), tagged, project)
                desired = question.wanted.desired if question.wanted else None
                wanted = desired is not None and desired.signed
                signed = seen_signed(repository, tagged.digest, wanted=wanted, entry=question.entry)
                shared, to_be = question.shared(repository, tagged)
                state = ImageState(live, version, recipe, signed, shared)
                self._look_ahead(question, state, seen)
                would_be = _would_be(state, desired, to_be) if desired else None
                mark = self._mark(question.address)
                return Observed(state, mark, digest=tagged.digest, would_be=would_be, note=note)
        self._look_ahead(question, None, seen)
        return Absent()

    def _look_ahead(self, question: _Question, live: ImageState | None, seen: _Seen) -> None:
        """What publishing would move, where that is to be done."""
        wanted = question.wanted
        if wanted is not None and (
            live is None or replace(live, signed=wanted.desired.signed, shared="") != wanted.desired
        ):
            shop = self._publisher.shop(_recipe(wanted))
            previous = _previous(wanted.desired, question.entry)
            seen.outlooks[question.address] = self._publisher.outlook(shop, previous)

    def _mark(self, where: Address) -> Mark:
        return replace(self._owner, address=where)


def _shared(
    questions: Iterable[_Question], answers: Mapping[Address, Answer], seen: _Seen
) -> dict[Address, Answer]:
    """The answers with what would be moved, in the order of the questions: layers that images share go once."""
    ahead = [q.address for q in questions if q.address in seen.outlooks]
    transfers = together(seen.outlooks[where] for where in ahead)
    found: dict[Address, Answer] = {}
    for where, transfer in zip(ahead, transfers, strict=True):
        answer = answers[where]
        found[where] = answer if isinstance(answer, Unreadable) else replace(answer, transfer=transfer)
    return found


def _recipe(resource: Resource[ImageState]) -> Recipe:
    if resource.desired.recipe is None:
        raise AssertionError(f"{resource.address} is desired without a recipe")
    return resource.desired.recipe


def _previous(desired: ImageState, entry: Entry | None) -> tuple[str, ...]:
    """Tags and digests under which an earlier image of this model may be found."""
    applied = str(entry.applied.get("fingerprint") or "") if entry else ""
    found = (entry.digest if entry else None, image_tag(applied) if applied else None, desired.version_tag)
    return tuple(reference for reference in found if reference)


def _engine_digest(recipe: Recipe, inputs: Mapping[Address, Observed[Any]]) -> Digest | None:
    if recipe.build is None:
        return None
    where = address("@engine", recipe.build.engine.key, recipe.name.registry.name)
    found = inputs[where].digest if where in inputs else None
    if found is None:
        raise Missing("engine", f"{where} has no digest", "run mp apply for it first")
    return found


def _would_be(live: ImageState, desired: ImageState, shared: str) -> ImageState | None:
    """What is wanted of an image that is there, where that is more than what is wanted of a new one."""
    found = replace(desired, signed=desired.signed or outlives(live, desired), shared=shared)
    return found if found != desired else None


def _before(full: str, entry: Entry | None) -> str | None:
    """How an image was shared when it was applied last; None where another one was, or none."""
    applied = entry.applied if entry else {}
    return str(applied.get("shared") or "") if applied.get("fingerprint") == full else None
