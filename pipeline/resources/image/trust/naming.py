"""What models, packages and licences are called outside: package URLs and SPDX identifiers. Pure; used by trust."""

import re
from urllib.parse import quote

from pipeline.core.model import Artifact

# Licences as sources name them that are identifiers of SPDX, whatever their case. The names are those that the Hub knows
# (its documentation, "Licenses", 2026-07); the spelling is that of the SPDX list 3.28, which CycloneDX 1.6 refers to.
_SPDX = (
    "AFL-3.0", "AGPL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0",
    "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-3.0",
    "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0",
    "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-1.0",
    "EPL-2.0", "etalab-2.0", "EUPL-1.1", "EUPL-1.2", "GPL-2.0", "GPL-3.0", "ISC", "LGPL-2.1", "LGPL-3.0", "LPPL-1.3c", "MIT",
    "MPL-2.0", "MS-PL", "NCSA", "OFL-1.1", "OSL-3.0", "PostgreSQL", "Unlicense", "WTFPL", "Zlib",
)  # fmt: skip
_OF_NAME = {identifier.lower(): identifier for identifier in _SPDX}
_COMMIT = re.compile(r"[0-9a-f]{40}")


def licenses(said: str | None) -> tuple[str, ...]:
    """The licences that a source names, one by one: "mit, llama3.1" is two."""
    return tuple(name for name in (part.strip() for part in (said or "").split(",")) if name)


def spdx(license: str) -> str | None:
    """The SPDX identifier, where the source's name is one."""
    return _OF_NAME.get(license.lower())


def model_url(artifact: Artifact) -> str | None:
    """The package URL of a pinned source, where its type has one: models of the Hub and what lies in registries."""
    scheme, _, path = artifact.source.partition("://")
    if scheme == "hf" and _COMMIT.fullmatch(
        artifact.pin
    ):  # purl-spec, types/huggingface: the commit is the version
        return f"pkg:huggingface/{quote(path)}@{artifact.pin}"
    if scheme == "oci":
        return image_url(path, artifact.pin.replace("-", ":", 1))
    return None


def image_url(name: str, digest: str) -> str:
    """The package URL of an image (purl-spec, types/oci): "docker.io/library/python" by its digest."""
    last = name.rpartition("/")[2].lower()
    found = f"pkg:oci/{quote(last)}@{quote(digest, safe='')}"
    return f"{found}?repository_url={quote(name, safe='/')}" if "/" in name else found


def package_url(name: str, version: str) -> str:
    """The package URL of a Python package (purl-spec, types/pypi)."""
    return f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version, safe='')}"
