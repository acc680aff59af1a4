"""Pin an engine: its base image by digest, its environment by package index and hashes. Used through World.pin_engine."""

from pipeline.clients import oci, uv
from pipeline.core.errors import BackendError
from pipeline.core.image import Engine, Registry, Variant


def pin_engine(variant: Variant, platform: str, base: str | None) -> Engine:
    """A variant with everything fixed. A base whose registry does not answer stays open (base_digest None).

    `base` overrides the variant's own, with or without "@sha256:…". Raises BackendError when the packages cannot be
    resolved.
    """
    reference = base or variant.base
    index, requirements = uv.resolve(variant, platform, lambda line: None)
    name, _, digest = reference.partition("@")
    return Engine(
        variant.template,
        variant.version,
        variant.name,
        platform,
        variant.python,
        name,
        digest or _digest_of(name),
        index,
        requirements,
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


def _digest_of(reference: str) -> str | None:
    path, _, tag = (
        reference.rpartition(":") if ":" in reference.rsplit("/", 1)[-1] else (reference, "", "latest")
    )
    host, _, repository = path.partition("/")
    try:
        head = oci.repository(Registry("base", url=host), repository).head(tag)
    except BackendError:
        return None  # design: a base digest is never invented; the plan says that it is open
    return head[0] if head else None
