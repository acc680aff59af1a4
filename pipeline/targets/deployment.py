"""What every kind of deployment says in its state: which files, which launch, which secrets. Shared by the targets."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.core.diagnostic import Diagnostic, Mistake, error
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.image import Launch
from pipeline.core.model import FileEntry, Model, Overlay, Question, Secret, Stated
from pipeline.core.protocols import Place

# Parts of a launch document that say where, not what: they differ between machines and are no drift.
_WHERE = ("format_version", "model", "host", "port", "secrets", "group")


@frozen
class Recipe:
    """What a driver needs to make a deployment and does not compare."""

    files: tuple[FileEntry, ...]  # of the model's folder
    overlays: tuple[Overlay, ...]
    launch: Launch
    secrets: Mapping[str, Secret]  # environment variable → secret
    api_key: Secret | None
    questions: tuple[Question, ...]


def recipe_of(model: Model, launch: Launch) -> Recipe:
    return Recipe(
        model.files, model.overlays, launch, _secrets(model, launch), model.api_key, model.questions
    )


def option(place: Place[Any], stated: Stated, *keys: str) -> tuple[str, ...]:
    """Where an option of an entry at a target stands in models.yaml."""
    return (*stated.path, "targets", place.name, *keys)


def others_made(manage: object, runs: object) -> bool:
    """Whether these options of an entry describe what runs at a target already, by others' hands."""
    return manage == "observe" or runs is not None


def keeps_nothing(place: Place[Any], model: Model, instead: str) -> Diagnostic:
    """What is wrong with mounting the weights of a model that this run keeps none of."""
    summary, hint = _nothing(place), f"{instead}, or run it without --no-cache"
    return error(f"{model.name}: {summary}", place.where, hint, model.name)


def cacheless(place: Place[Any], stated: Stated, instead: str) -> Iterator[Mistake]:
    """What is wrong with mounting the weights of an entry that goes straight from its source into images."""
    if not stated.cached:
        yield Mistake(
            (*stated.path, "cache"), _nothing(place), f"{instead}, or keep them: remove cache: none"
        )


def one_machine(place: Place[Any], stated: Stated) -> Iterator[Mistake]:
    """What is wrong with an entry that spans several nodes at a target that is one machine."""
    hardware = stated.hardware
    if hardware.nodes > 1:
        yield Mistake(
            (*stated.path, "hardware"),
            f'"{place.name}" is one machine, and {hardware.name} has {hardware.nodes} nodes',
            "use a kubernetes target, or another hardware class",
        )


def launch_of(launch: Launch) -> dict[str, Json]:
    """The launch as compared: what the engine is told, with the names of its secrets."""
    return {
        "template": launch.template,
        "served_name": launch.served_name,
        "adapters": dict(launch.adapters),
        "argv": list(launch.argv),
        "env": dict(launch.env),
        "secrets": dict(launch.secrets),
    }


def launch_in(document: Mapping[str, Json], secret_names: Mapping[str, Json]) -> dict[str, Json]:
    """The same of a launch document that was found; `secret_names` were kept beside it (environment variable → name)."""
    seen = {key: value for key, value in document.items() if key not in _WHERE}
    files = document.get("secrets")
    seen["secrets"] = {key: secret_names.get(key) for key in sorted(files if isinstance(files, dict) else {})}
    return seen


def _secrets(model: Model, launch: Launch) -> dict[str, Secret]:
    return {variable: model.secrets[name] for variable, name in launch.secrets.items()}


def _nothing(place: Place[Any]) -> str:
    return f'"{place.name}" reads the weights from the cache, and this model keeps none there'
