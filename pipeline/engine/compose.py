"""Models become resources: each target expands, and what that leans on is supplied by address. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Build, Registry
from pipeline.core.model import WEIGHTS, Model
from pipeline.core.protocols import Place, Target, Template
from pipeline.core.resource import Address, Contents, Resource, owner_of
from pipeline.resources.cache import artifact
from pipeline.resources.engine import environment
from pipeline.resources.engine import resource as engine
from pipeline.resources.filler import resource as filler
from pipeline.resources.image import resource as image
from pipeline.resources.image.fitting import too_large


@frozen
class Placed:
    """A resolved model and where it goes."""

    model: Model
    places: tuple[Place[Any], ...]  # Any: each target kind has a spec of its own
    kinds: tuple[str, ...]  # of the targets, in the same order


@frozen
class Composition:
    """Every desired resource by address: engines and environments first, then models in manifest order."""

    resources: Mapping[Address, Resource[Any]]
    models: frozenset[str]  # those that could be expanded, also to nothing
    diagnostics: tuple[Diagnostic, ...]


def compose(
    placed: Sequence[Placed],
    templates: Mapping[str, Template],
    targets: Mapping[str, Target],
    registries: Mapping[str, Registry],
    project: str,
) -> Composition:
    """Expand every model at every target and close over what the resources need."""
    kitchen = _Kitchen(templates, registries, project)
    problems: list[Diagnostic] = []
    shared: dict[Address, Resource[Any]] = {}
    own: dict[Address, Resource[Any]] = {}
    expanded: set[str] = set()
    for one in placed:
        try:
            resources = _expand(one, targets, kitchen)
        except UserError as problem:
            problems.extend(problem.diagnostics)
            continue
        expanded.add(one.model.name)
        for resource in resources:
            (shared if resource.address.startswith("@") else own).setdefault(resource.address, resource)
    problems.extend(collisions(own.values()))
    problems.extend(too_large(own.values()))
    everything = {**{a: shared[a] for a in sorted(shared)}, **own}
    return Composition(everything, frozenset(expanded), tuple(problems))


def images_of(composition: Composition) -> Composition:
    """Engines, environments among them, and images alone, with all that they need."""
    found: dict[Address, Resource[Any]] = {}

    def add(resource: Resource[Any]) -> None:
        for need in resource.needs:
            if need in composition.resources:
                add(composition.resources[need])
        found.setdefault(resource.address, resource)

    for resource in composition.resources.values():
        if resource.keep:
            add(resource)
    return replace(composition, resources=found)


def collisions(resources: Iterable[Resource[Any]]) -> Iterator[Diagnostic]:
    """Two models that would be one thing in the world: the same name at the same place."""
    first: dict[tuple[str, tuple[tuple[str, str], ...]], Address] = {}
    for resource in resources:
        if not resource.locator or resource.keep:  # images of one repository differ by their tags
            continue
        place = (resource.kind, tuple(sorted(resource.locator.items())))
        other = first.setdefault(place, resource.address)
        if other != resource.address:
            yield error(
                f"{resource.address} and {other} are one and the same {resource.kind}: "
                + ", ".join(f"{key} {value}" for key, value in place[1] if value),
                resource.where,
                "give one of them another name",
                owner_of(resource.address),
            )


class _Kitchen:
    """Makes the resources that targets lean on, from their addresses; builds are made once an engine."""

    def __init__(
        self, templates: Mapping[str, Template], registries: Mapping[str, Registry], project: str
    ) -> None:
        self.templates = templates
        self.registries = registries
        self.project = project
        self._builds: dict[str, Build] = {}

    def build(self, model: Model) -> Build:
        engines = (model.engine, *model.other_engines)
        key = " ".join(f"{e.key} {e.platform} {e.requirements_sha256} {e.base_digest}" for e in engines)
        if key not in self._builds:
            first, *others = (self.templates[model.template].build(engine) for engine in engines)
            self._builds[key] = replace(first, others=tuple(others))
        return self._builds[key]

    def supply(self, address: Address, model: Model) -> Resource[Any]:
        """The resource behind an address that a target or an image named as a need."""
        owner, _, rest = address.partition("/")
        kind, _, place = rest.partition(":")
        supplies: dict[str, Callable[[], Resource[Any]]] = {
            "@environment": lambda: environment.resource(model.engine),
            "@engine": lambda: engine.resource(self.build(model), self.registries[place]),
            "@filler": lambda: filler.resource(self.build(model), self.registries[place]),
            "artifact": lambda: artifact.resource(model, place or WEIGHTS),
            "image": lambda: image.model_image(
                model, self.build(model), self.registries[place], self.project
            ),
            "weights": lambda: image.weights_image(model, self.registries[place], self.project),
            "modelpack": lambda: image.model_artifact(model, self.registries[place], self.project),
        }
        return supplies[owner if owner.startswith("@") else kind]()


def _expand(one: Placed, targets: Mapping[str, Target], kitchen: _Kitchen) -> Iterable[Resource[Any]]:
    """Resources of one model: what is needed comes before what needs it."""
    model = one.model
    template = kitchen.templates[model.template]
    launch = template.launch(model, template.variant(model.engine.version, model.hardware))
    found: dict[Address, Resource[Any]] = {}
    contents = _contents(model, kitchen.build(model))
    for place, kind in zip(one.places, one.kinds, strict=True):
        for resource in targets[kind].expand(place, model, kitchen.build(model), launch):
            found.setdefault(
                resource.address, resource if resource.keep else replace(resource, contents=contents)
            )
    ordered: dict[Address, Resource[Any]] = {}
    for resource in found.values():
        _close(resource, model, kitchen, found, ordered)
    return ordered.values()


def _contents(model: Model, build: Build) -> Contents:
    artifact = model.artifact
    pin = artifact.pin.removeprefix("sha256-")[:7]
    version = f"{artifact.version} ({pin})" if artifact.version else pin
    return Contents(version, f"{model.engine.key} ({build.fingerprint[:12]})")


def _close(
    resource: Resource[Any],
    model: Model,
    kitchen: _Kitchen,
    found: Mapping[Address, Resource[Any]],
    ordered: dict[Address, Resource[Any]],
) -> None:
    """Depth first: needs before the resource itself."""
    if resource.address in ordered:
        return
    for need in resource.needs:
        if need in ordered:
            continue
        _close(found.get(need) or kitchen.supply(need, model), model, kitchen, found, ordered)
    ordered[resource.address] = resource
