"""models.lock: what versions resolved to, committed beside models.yaml. Read by wiring, compared and written by engine."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.core.diagnostic import Diagnostic, Where, error
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, UserError
from pipeline.core.frozen import frozen
from pipeline.core.image import Engine, Variant
from pipeline.core.model import WEIGHTS, Artifact, Facts, FileEntry, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.manifest.marks import parse
from pipeline.manifest.pins import FORMAT_VERSION, ArtifactPin, EnginePin, LockFile
from pipeline.manifest.wording import describe_all

AGAIN = "run mp lock to write it anew"


@frozen
class Lock:
    """All pins of a project."""

    models: Mapping[str, Mapping[str, Artifact]] = field(default_factory=dict)  # by name and role
    engines: Mapping[str, Engine] = field(default_factory=dict)  # by engine_key

    def artifact(self, name: str, role: str = WEIGHTS) -> Artifact | None:
        """What is pinned for one role of a model."""
        return self.models.get(name, {}).get(role)

    def stale(self, name: str, role: str, spec: SourceSpec) -> str | None:
        """Why a pin is not for what the manifest says; None when it is. Needs no network."""
        locked = self.artifact(name, role)
        if locked is None:
            return "not in models.lock"
        if locked.source != spec.reference:
            return f'source "{locked.source}" → "{spec.reference}"'
        if locked.version != spec.version:
            return f'version "{locked.version}" → "{spec.version}"'
        if locked.filter != spec.filter:
            return "the choice of files changed"
        return None

    def updated(
        self,
        models: Mapping[str, Mapping[str, Artifact]],
        engines: Mapping[str, Engine],
        keep: frozenset[str],
    ) -> "Lock":
        """With new pins, and without models that `keep` does not name.

        Engines of a platform that was pinned now are dropped unless they are among `engines`, when every model took part.
        """
        kept = {name: parts for name, parts in self.models.items() if name in keep}
        platforms = {engine.platform for engine in engines.values()} if keep <= models.keys() else set()
        others = {key: engine for key, engine in self.engines.items() if engine.platform not in platforms}
        return Lock({**kept, **models}, {**others, **engines})


def engine_key(engine: Engine | Variant, platform: str) -> str:
    """The key of an engine in the lock: "vllm-0.32.0/cpu/linux/amd64"."""
    variant = engine.variant if isinstance(engine, Engine) else engine.name
    return f"{engine.template}-{engine.version}/{variant}/{platform}"


def read_lock(path: Path) -> Lock:
    """The lock of a file; empty when there is none. Raises UserError with the lines of what is damaged."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors put a byte order mark in front
    except FileNotFoundError:
        return Lock()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError([error(f"{path.name} cannot be read: {problem}", hint=AGAIN)]) from problem
    problems = _broken(text, path.name)
    if problems:
        raise UserError(problems)
    try:
        file = LockFile.model_validate_json(text, strict=True)
    except ValidationError as problem:
        raise UserError(_invalid(problem, text, path.name)) from problem
    models = {
        name: {role: _artifact(pin, path.parent) for role, pin in roles.items()}
        for name, roles in file.models.items()
    }
    return Lock(models, {key: _engine(pin) for key, pin in file.engines.items()})


def dump(lock: Lock, root: Path) -> str:
    """The text of a lock: sorted, one line per file and requirement. Folders below `root` are written relative to it."""
    document: dict[str, Json] = {
        "format_version": FORMAT_VERSION,
        "engines": {key: _engine_json(engine) for key, engine in lock.engines.items()},
        "models": {
            name: {role: _artifact_json(artifact, root) for role, artifact in roles.items()}
            for name, roles in lock.models.items()
        },
    }
    return _pretty(document, "") + "\n"


def write_lock(path: Path, lock: Lock) -> None:
    """Replace the file in one step: a kill leaves the old one or the new one. Raises BackendError."""
    text = dump(lock, path.parent)
    try:
        _replace(path, text)
    except OSError as problem:
        hint = "free some space there, or make the folder writable, then run it again"
        raise BackendError(
            path.name, f"cannot be written in {path.parent}: {problem.strerror}", hint
        ) from problem


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _artifact(pin: ArtifactPin, root: Path) -> Artifact:
    files = tuple(FileEntry(file.path, file.size, file.sha256) for file in pin.files)
    allow = tuple(sorted(pin.filter.allow.items()))
    chosen = Filter(pin.filter.include, pin.filter.exclude, pin.filter.format, allow)
    facts = Facts(**pin.facts.model_dump())
    return Artifact(
        _absolute(pin.source, root), pin.version, pin.pin, files, facts, chosen, pin.left_out_bytes
    )


def _engine(pin: EnginePin) -> Engine:
    return Engine(**dict(pin))


def _artifact_json(artifact: Artifact, root: Path) -> dict[str, Json]:
    chosen = artifact.filter
    return {
        "source": _relative(artifact.source, root),
        "version": artifact.version,
        "filter": {
            "include": list(chosen.include),
            "exclude": list(chosen.exclude),
            "format": chosen.format,
            "allow": dict(chosen.allow),
        },
        "pin": artifact.pin,
        "files": [{"path": f.path, "size": f.size_bytes, "sha256": f.sha256} for f in sorted(artifact.files)],
        "left_out_bytes": artifact.left_out_bytes,
        "facts": {key: value for key, value in asdict(artifact.facts).items() if value is not None},
    }


def _engine_json(engine: Engine) -> dict[str, Json]:
    return {**asdict(engine), "requirements": list(engine.requirements)}


def _relative(source: str, root: Path) -> str:
    """A folder of this checkout as another machine finds it: "./checkpoint"."""
    below = _folder(root) + "/"
    return "./" + f"{source}/".removeprefix(below).rstrip("/") if f"{source}/".startswith(below) else source


def _absolute(source: str, root: Path) -> str:
    return f"{_folder(root)}/{source[2:]}".rstrip("/") if source.startswith("./") else source


def _folder(root: Path) -> str:
    return f"file://{os.path.normpath(root.absolute())}"  # as core.reference spells it


def _pretty(value: Json, indent: str) -> str:
    """JSON with sorted keys in which everything that holds no mapping or list is one line."""
    inner = indent + "  "
    match value:
        case dict() if indent == "" or any(isinstance(v, dict | list) for v in value.values()):
            lines = [f"{inner}{json.dumps(key)}: {_pretty(value[key], inner)}" for key in sorted(value)]
            return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
        case list() if value:
            return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
        case _:
            return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _broken(text: str, name: str) -> list[Diagnostic]:
    """What keeps the text from being JSON: a merge that was not finished, a syntax error, a key that is there twice."""
    if conflict := re.search(r"^(<{7}|={7}|>{7})( |$)", text, re.MULTILINE):
        line = text.count("\n", 0, conflict.start()) + 1
        hint = "finish the merge: keep either side whole, then run mp lock"
        return [error("a merge conflict is not resolved", Where(name, line, 1), hint)]
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:  # Any: JSON, as the parser gives it
        values = dict(found)
        if len(values) != len(found):
            keys = [key for key, _ in found]
            twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return values

    try:
        json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as problem:
        where = Where(name, problem.lineno, problem.colno)
        return [error(f"not valid JSON: {problem.msg.lower()}", where, AGAIN)]
    except (RecursionError, ValueError):
        return [error("not the JSON that mp writes", Where(name, 1, 1), AGAIN)]
    return [_doubled(key, text, name) for key in twice]


def _doubled(key: str, text: str, name: str) -> Diagnostic:
    """Where a key stands for the second time."""
    places = [found.start() for found in re.finditer(re.escape(json.dumps(key)) + r"\s*:", text)]
    line = text.count("\n", 0, places[-1]) + 1 if places else 1
    return error(f'key "{key}" is there twice', Where(name, line, 1), "keep one of the two, then run mp lock")


def _invalid(problem: ValidationError, text: str, name: str) -> list[Diagnostic]:
    tree = parse(text, name)  # JSON is YAML: the same table of places
    found = problem.errors(include_url=False)
    if any(one["loc"] == ("format_version",) and isinstance(one["input"], int) for one in found):
        hint = f"this mp reads format_version {FORMAT_VERSION}: install the mp that wrote the file"
        return [error("written by another version of mp", tree.where("format_version"), hint)]
    schema = LockFile.model_json_schema()
    return describe_all(found, tree, lambda loc: (schema, loc))
