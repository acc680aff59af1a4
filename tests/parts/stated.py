"""What models.yaml would have said of a model that a test made, for tests of what targets refuse."""

from typing import Any

from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError
from pipeline.core.model import Model, Stated
from pipeline.core.protocols import Place, Refuses, Target


def stated(model: Model) -> Stated:
    return Stated(
        name=model.name,
        hardware=model.hardware,
        template=model.template,
        sources={role: artifact.source for role, artifact in model.artifacts.items()},
        cached=model.cached,
        chat_template=bool(model.overlays),
        args=model.args,
        env=model.env,
        secret_env=model.secret_env,
        api_key=model.api_key,
        lifecycle=model.lifecycle,
    )


def require_possible(target: Target, place: Place[Any], model: Model) -> None:
    """What the reader of models.yaml does before anything is expanded. Raises UserError."""
    found = tuple(target.mistakes(place, stated(model))) if isinstance(target, Refuses) else ()
    if found:
        raise UserError([error(f"{model.name}: {one.summary}", None, one.hint) for one in found])
