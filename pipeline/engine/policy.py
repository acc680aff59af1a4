"""What `policy:` says of pinned sources: formats, code, gating, licences. Pure; a plan that breaks it is refused."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from pipeline.core.diagnostic import Diagnostic, Where, error
from pipeline.core.model import Artifact
from pipeline.engine.parts import Key, label
from pipeline.manifest.read import Document
from pipeline.manifest.spec import LicensesSpec, PolicySpec
from pipeline.sources.kinds import Kind, kind_of

FORMATS = {Kind.SAFETENSORS: "safetensors", Kind.GGUF: "gguf", Kind.PICKLE: "pickle"}


def breaches(
    policy: PolicySpec, models: Mapping[str, Mapping[str, Artifact]], document: Document
) -> tuple[Diagnostic, ...]:
    """A refusal for everything that a rule forbids, at the rule's place in the manifest."""
    found = []
    for name, parts in models.items():
        for role, artifact in parts.items():
            for path, summary, hint in _of_one(policy, (name, role), artifact):
                found.append(error(summary, _where(document, path), hint, name))
    return tuple(found)


def _of_one(
    policy: PolicySpec, key: Key, artifact: Artifact
) -> Iterator[tuple[tuple[str, ...], str, str | None]]:
    """The rule's path, what is wrong, and a hint."""
    owner, facts = label(key), artifact.facts
    for kind in sorted(_formats(artifact) - set(policy.formats)):
        allowed = ", ".join(policy.formats) or "none"
        yield ("formats",), f"{owner}: weights as {kind}; policy allows {allowed}", None
    code = [entry.path for entry in artifact.files if kind_of(entry.path) is Kind.CODE]
    if code and policy.remote_code == "deny":
        yield ("remote_code",), f"{owner}: {_some(code)} is code; policy denies all of it", None
    if facts.gated and policy.gated == "deny":
        yield ("gated",), f"{owner}: {artifact.source} is gated; policy denies that", None
    if reason := _license(policy.licenses, facts.license):
        yield ("licenses",), f"{owner}: {reason}", "take another model, or have the policy changed"


def _formats(artifact: Artifact) -> set[str]:
    return {FORMATS[kind] for entry in artifact.files if (kind := kind_of(entry.path)) in FORMATS}


def _license(rule: LicensesSpec, license: str | None) -> str | None:
    """Why a licence is not allowed; None when it is."""
    if license is None:
        return None if "*" in rule.allow else "its source names no licence; policy allows only named ones"
    said = license.lower()
    if _fits(said, rule.deny):
        return f'licence "{license}" is denied by policy'
    if not _fits(said, rule.allow):
        return f'licence "{license}" is not one that policy allows: {", ".join(rule.allow)}'
    return None


def _fits(license: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(license, glob.lower()) for glob in globs)


def _some(paths: list[str]) -> str:
    return f'"{paths[0]}"' + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def _where(document: Document, path: tuple[str, ...]) -> Where | None:
    return document.where("policy", *path)
