"""Pin an engine: its base image by digest, its environment by package index and hashes. Used through World.pin_engine."""

from dataclasses import replace

from pipeline.clients import uv
from pipeline.clients.oci import repositories as oci
from pipeline.core.errors import BackendError
from pipeline.core.image import Engine, Variant


def pin_engine(variant: Variant, platform: str, base: str | None, repositories: oci.Repositories) -> Engine:
    """A variant with everything fixed. A base whose registry does not answer stays open (base_digest None).

    `base` overrides the variant's own, with or without "@sha256:…". Raises BackendError when the packages cannot be
    resolved.
    """
    engine = unpinned(variant, platform, base)
    index, requirements = uv.resolve(variant, platform, lambda line: None)
    digest = engine.base_digest or _digest_of(engine.base, repositories)
    return replace(engine, base_digest=digest, index=index, requirements=requirements)


def pin_nothing(variant: Variant, platform: str, base: str | None) -> Engine:
    """Stands for `pin_engine` where nothing may be asked. Raises BackendError."""
    raise BackendError(
        "offline",
        f"engine {variant.key} for {platform} is not pinned in models.lock",
        "run mp lock where there is a network, and commit models.lock",
    )


def unpinned(variant: Variant, platform: str, base: str | None) -> Engine:
    """The same engine before anything is fixed: enough to compose with, never to build."""
    name, _, digest = (base or variant.base).partition("@")
    return Engine(
        variant.template,
        variant.version,
        variant.name,
        platform,
        variant.python,
        name,
        digest or None,
        "",
        (),
    )


def _digest_of(base: str, repositories: oci.Repositories) -> str | None:
    """What the base's tag names now, asked of the mirrors first. A digest is never invented: no answer is None, and the plan says so."""
    for reference in repositories.places(oci.parse_image(base)):
        try:
            head = repositories(*reference.registry()).head(reference.tag or "latest")
        except BackendError:
            continue
        if head:
            return head[0]
    return None
