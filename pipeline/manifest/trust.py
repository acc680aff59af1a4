"""What models.yaml says of signatures: `verify:` and `sign:`. Part of Manifest; the files they name are looked for by check."""

from collections.abc import Iterator, Mapping
from pathlib import Path as Folder
from typing import Self

from pydantic import Field, model_validator

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.digest import Json
from pipeline.manifest.marks import Path, Tree
from pipeline.manifest.places import SecretReference
from pipeline.manifest.scalars import Spec, Text, mistake

SERVICE = "://"  # in a key: it is kept by a key service, not in a file


class CosignRuleSpec(Spec):
    """Whose signature an image must have: a key's, or an identity's that an issuer vouches for."""

    key: Text | None = Field(
        default=None,
        description="File with the public key, relative to models.yaml, or a key service: `awskms://…`",
    )
    identity: Text | None = Field(
        default=None, description="Without a key: who signed, as the certificate says it"
    )
    issuer: Text | None = Field(
        default=None,
        description="Who vouches for the identity: `https://token.actions.githubusercontent.com`",
    )
    transparency_log: bool = Field(
        default=False, description="The public log must have the signature; without a key it always must"
    )

    @model_validator(mode="after")
    def _one_authority(self) -> Self:
        named = self.identity is not None or self.issuer is not None
        if (self.key is not None) == named or (self.identity is None) != (self.issuer is None):
            raise mistake('needs either "key", or "identity" and "issuer"', "key: keys/acme.pub, for example")
        return self


class ModelSigningRuleSpec(Spec):
    """Whose `model.sig` (OpenSSF model-signing) must lie among the files of a source."""

    key: Text | None = Field(
        default=None, description="File with the public key (elliptic, PEM), relative to models.yaml"
    )
    certificates: tuple[Text, ...] = Field(
        default=(), description="Files with the root certificates that the signer's must come from (PEM)"
    )

    @model_validator(mode="after")
    def _one_authority(self) -> Self:
        if (self.key is None) == (not self.certificates):
            raise mistake('needs either "key" or "certificates"', "key: keys/acme.pub, for example")
        return self


class SourceRuleSpec(Spec):
    """Sources, and the signature that each of them must have."""

    match: Text = Field(
        description="Glob over references of sources: `hf://acme/*`, `oci://ghcr.io/*`, `./checkpoints/*`"
    )
    cosign: CosignRuleSpec | None = Field(
        default=None, description="A signature on the image: `oci://` alone"
    )
    model_signing: ModelSigningRuleSpec | None = Field(
        default=None, description="A signature over the files, in a file `model.sig` beside the weights"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.cosign is None) == (self.model_signing is None):
            raise mistake('needs either "cosign" or "model_signing"', "cosign: {key: keys/acme.pub}")
        return self


class VerifySpec(Spec):
    """Signatures without which a plan is refused."""

    sources: tuple[SourceRuleSpec, ...] = Field(
        default=(), description="Every rule holds for every source it matches"
    )


class CosignSpec(Spec):
    """How cosign signs; without a key it asks for an identity as its own environment says."""

    key: SecretReference | None = Field(
        default=None, description="The private key, as cosign writes it: the whole text of the file"
    )
    password: SecretReference | None = Field(
        default=None, description="The password of the key; none when left out"
    )
    transparency_log: bool = Field(
        default=False, description="Enter signatures into the public log; without a key they always are"
    )

    @model_validator(mode="after")
    def _password_of_key(self) -> Self:
        if self.password is not None and self.key is None:
            raise mistake('"password" is for a key', "add key: {secret: NAME}, or remove it")
        return self


class SignSpec(Spec):
    """How new images, their SBOMs and their statements are signed."""

    cosign: CosignSpec = Field(description="With cosign, which must be on PATH; images in registries alone")


def check_trust(sections: Mapping[str, Json], tree: Tree, folder: Folder) -> Iterator[Diagnostic]:
    """Keys and certificates that are files are there."""
    rules = _mapping(sections.get("verify")).get("sources")
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        for way in ("cosign", "model_signing"):
            written = _mapping(_mapping(rule).get(way))
            path: Path = ("verify", "sources", index, way)
            for place, name in _files(path, written):
                if not _is_file(folder, name):
                    summary = f'verify: "{name}" is not there'
                    hint = f"the path is relative to the folder of {tree.file}"
                    yield error(summary, tree.where_value(*place), hint)


def _files(path: Path, written: Mapping[str, Json]) -> Iterator[tuple[Path, str]]:
    key = written.get("key")
    if isinstance(key, str) and key and SERVICE not in key:
        yield (*path, "key"), key
    certificates = written.get("certificates")
    for index, name in enumerate(certificates if isinstance(certificates, list) else ()):
        if isinstance(name, str) and name:
            yield (*path, "certificates", index), name


def _is_file(folder: Folder, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):  # too long, a NUL: no file has such a name
        return False


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
