"""What an image says of itself in words that every registry shows: OCI's annotations. Pure; used by recipes and engines.

OCI image specification 1.1.1, annotations.md. Each is there only when it is known, and never the time of a build: equal
inputs give equal bytes, so `created` is the date of the source's revision, as models.lock has it. They are no part of a fingerprint: an image that stands with fewer of them stays as it is.
"""

from pipeline.core.digest import Digest
from pipeline.core.image import Engine, ImageName
from pipeline.core.model import Artifact
from pipeline.resources.image.trust.naming import licenses, spdx

_START = "org.opencontainers.image."
_HUB = "https://huggingface.co/"


def of_model(
    title: str, artifact: Artifact, engine: ImageName | None, engine_digest: Digest | None
) -> dict[str, str]:
    """Of a model's weights, and of the engine image that they lie upon."""
    scheme, _, path = artifact.source.partition("://")
    named = [spdx(license) for license in licenses(artifact.facts.license)]
    return _known(
        title=title,
        revision=artifact.pin,
        source="" if scheme == "file" else artifact.source,  # a path of this machine means nothing elsewhere
        url=f"{_HUB}{path}" if scheme == "hf" else artifact.source if scheme in ("http", "https") else "",
        version=artifact.version,
        created=artifact.facts.created or "",
        licenses=(named[0] or "")
        if len(named) == 1
        else "",  # of several nobody said whether all hold, or one
        **_base(engine, engine_digest),
    )


def of_engine(engine: Engine) -> dict[str, str]:
    base = {"base.name": engine.base, "base.digest": engine.base_digest or ""}
    return _known(title=engine.key, version=engine.version, **base)


def _base(engine: ImageName | None, digest: Digest | None) -> dict[str, str]:
    if engine is None or digest is None:
        return {}
    # a folder of layouts has no name elsewhere
    return {"base.name": str(engine) if engine.registry.url else "", "base.digest": digest}


def _known(**words: str) -> dict[str, str]:
    return {_START + key: word for key, word in words.items() if word}
