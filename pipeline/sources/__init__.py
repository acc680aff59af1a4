"""Where weights come from: one file a source, and the table of them. Only here is a source opened by its scheme."""

from collections.abc import Callable, Mapping
from functools import partial

from pipeline.clients.oci.repositories import Repositories
from pipeline.core.lazily import Lazily
from pipeline.core.model import Artifact
from pipeline.core.protocols import Absorb, Source
from pipeline.core.settings import Settings

NEAR = frozenset({"file"})  # schemes that are read without a network: looked at by every plan


def _huggingface(settings: Settings, absorb: Absorb, repositories: Repositories) -> Source:
    from pipeline.clients.hub import Hub
    from pipeline.sources.huggingface import HuggingFaceSource

    return HuggingFaceSource(Hub(settings.environ.get("HF_ENDPOINT"), settings.environ.get("HF_TOKEN")))


def _local(settings: Settings, absorb: Absorb, repositories: Repositories) -> Source:
    from pipeline.sources.local import LocalSource

    return LocalSource(settings.cache / "hashes")


def _oci(settings: Settings, absorb: Absorb, repositories: Repositories) -> Source:
    from pipeline.sources.oci.source import OciSource

    return OciSource(repositories, absorb)


def _s3(settings: Settings, absorb: Absorb, repositories: Repositories) -> Source:
    from pipeline.clients.s3 import S3
    from pipeline.sources.s3 import S3Source

    return S3Source(S3(), absorb)


def _https(settings: Settings, absorb: Absorb, repositories: Repositories) -> Source:
    from pipeline.clients.web import Web
    from pipeline.sources.https import HttpsSource

    return HttpsSource(Web(settings.environ), absorb)


def _offline(settings: Settings, absorb: Absorb, repositories: Repositories) -> Source:
    from pipeline.sources.offline import Offline

    return Offline()


SOURCES: Mapping[str, Callable[[Settings, Absorb, Repositories], Source]] = {
    "hf": _huggingface,
    "oci": _oci,
    "s3": _s3,
    "https": _https,
    "http": _https,
    "file": _local,
}


def open_sources(
    settings: Settings, absorb: Absorb, repositories: Repositories | None = None
) -> Mapping[str, Source]:
    """Every source by its scheme, made when it is asked for; with `offline` those behind a network answer nothing.

    `repositories` knows what a manifest says of registries; there is not one everywhere.
    """
    opened = repositories or Repositories(settings.environ)
    return Lazily(
        {
            scheme: partial(
                _offline if settings.offline and scheme not in NEAR else make, settings, absorb, opened
            )
            for scheme, make in SOURCES.items()
        }
    )


def trusted_at_first(artifact: Artifact) -> bool:
    """Nobody said which bytes are meant: models.lock holds the sha256 of what the server sent when it was locked."""
    return artifact.source.startswith(("https://", "http://")) and not artifact.version
