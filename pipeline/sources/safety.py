"""What may run code is taken only file by file, by its hash, from a version that cannot move. Pure; every source uses it."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.core.digest import Json
from pipeline.core.errors import Refused
from pipeline.core.protocols import SourceSpec
from pipeline.sources.choice import SHOWN, Choice, listed
from pipeline.sources.kinds import WEIGHTS, Kind, kind_of

SAFE = WEIGHTS | {Kind.TEXT, Kind.MEDIA}
INSTALLED = frozenset(
    {"transformers", "sentence_transformers", "peft", "diffusers"}
)  # of the engine, not of the model
ELSEWHERE = 'exclude it, and take one that names none: config: {source: "…"}'

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}")
# Every JSON file that an engine may read as a configuration: config.json, tokenizer_config.json, config_1.0.json,
# adapter_config.json, generation_config.json, modules.json (sentence-transformers), params.json (mistral).
_CONFIG = re.compile(r".*config.*\.json|(modules|model_index|params)\.json")
_SAYS = {
    Kind.PICKLE: "may run code when it is loaded",
    Kind.CODE: "is code",
    Kind.FOREIGN: "is in a format that no engine here reads",
    Kind.UNKNOWN: "is in no format that mp knows to be safe",
}


@dataclass(frozen=True, order=True)
class _Problem:
    path: str
    says: str
    fix: str = ""
    exclude: str = ""  # what files.exclude could list
    allow: str = ""  # what files.allow could list


def configs(paths: Iterable[str]) -> tuple[str, ...]:
    """The files that may name code to run: require_safe wants their content."""
    return tuple(p for p in sorted(paths) if _CONFIG.fullmatch(PurePosixPath(p).name.lower()))


def is_fixed(spec: SourceSpec) -> bool:
    """The version cannot move: a full commit, a digest, or a folder, which is pinned by its content."""
    if spec.reference.startswith("file://"):
        return True
    form = (
        _COMMIT if spec.reference.startswith("hf://") else _DIGEST
    )  # a registry's tag may look like a commit
    return form.fullmatch(spec.version) is not None


def require_safe(
    spec: SourceSpec,
    choice: Choice,
    content: Mapping[str, bytes],
    hashes: Mapping[str, str] | None = None,
    version: str = "",
) -> None:
    """Raise Refused for everything that runs code and is not allowed, all at once.

    `content` holds at least the chosen `configs`. `hashes` (path: sha256) may wait (None) where they cost a download:
    then call it again with them. `version` is what cannot move: the commit or digest to write instead of a branch.
    """
    allow = dict(spec.filter.allow)
    problems = [
        *_by_name(choice, allow),
        *_by_config(choice, allow, content),
        *_by_hash(choice, allow, hashes),
    ]
    if allow and not is_fixed(spec):
        now = version or "a full commit or a digest"
        moves = f'version "{spec.version}" can move, and files.allow is for one that cannot'
        problems.append(_Problem("", moves, f"write version: {now}"))
    if problems:
        raise _refused(spec, sorted(set(problems)), hashes or {})


def _refused(spec: SourceSpec, problems: Sequence[_Problem], hashes: Mapping[str, str]) -> Refused:
    """One error for all: every file by name, every way out once."""
    says: dict[str, list[str]] = {}
    for problem in problems:
        says.setdefault(problem.says, []).append(problem.path)
    found = [f"{listed(paths)} {text}" if paths[0] else text for text, paths in says.items()]
    fixes = list(dict.fromkeys(problem.fix for problem in problems if problem.fix))
    if exclude := dict.fromkeys(problem.exclude for problem in problems if problem.exclude):
        globs = ", ".join(f'"{glob}"' for glob in exclude)
        fixes.append(f"leave out what is not needed: files: {{exclude: [{globs}]}}")
    if allow := [path for path in dict.fromkeys(problem.allow for problem in problems) if path]:
        pairs = [f'"{path}": "{hashes.get(path, "<sha256>")}"' for path in allow[:SHOWN]]
        more = ", …" if len(allow) > SHOWN else ""
        fixes.append(f"or list what you have read and trust: files: {{allow: {{{', '.join(pairs)}{more}}}}}")
    return Refused(f"{spec.reference}: {'; '.join(found)}", "; ".join(fixes))


def _by_name(choice: Choice, allow: Mapping[str, str]) -> Iterator[_Problem]:
    for path in choice.paths:
        kind = kind_of(path)
        if kind not in SAFE and path not in allow:
            glob = f"*{PurePosixPath(path).suffix}" if PurePosixPath(path).suffix else path
            yield _Problem(path, _SAYS[kind], exclude=glob, allow=path)


def _by_hash(
    choice: Choice, allow: Mapping[str, str], hashes: Mapping[str, str] | None
) -> Iterator[_Problem]:
    for path, wanted in allow.items():
        if path not in choice.paths:
            yield _Problem(path, "is listed in files.allow and is no file of it", f'do not allow "{path}"')
        elif hashes is not None and hashes.get(path) != wanted:
            says = f"has sha256 {hashes.get(path)}, and files.allow lists {wanted}"
            yield _Problem(path, says, f'read what changed in "{path}", then list its new hash')


def _by_config(choice: Choice, allow: Mapping[str, str], content: Mapping[str, bytes]) -> Iterator[_Problem]:
    for path in configs(choice.paths):
        try:
            document: Json = json.loads(content[path])
        except (KeyError, ValueError, RecursionError):
            says = "cannot be read as JSON, so nobody can tell whether it runs code"
            yield _Problem(path, says, exclude=path)
            continue
        for key, code in _named(document, PurePosixPath(path).name.lower()):
            yield from _by_reference(path, key, code, allow)


def _by_reference(path: str, key: str, code: str | None, allow: Mapping[str, str]) -> Iterator[_Problem]:
    """`code` is a file beside the config, None what lies outside of this source: that has no hash here."""
    if code is None:
        yield _Problem(path, f"has {key}, which runs code from elsewhere", f'"{path}": {ELSEWHERE}')
        return
    file = str(PurePosixPath(path).parent / code)
    if file not in allow:
        says = f'has {key}, which runs "{file}" when the model is loaded'
        yield _Problem(path, says, f'"{path}": {ELSEWHERE}', allow=file)


def _named(document: Json, name: str) -> Iterator[tuple[str, str | None]]:
    """(key, file) of all code that a configuration names, at any depth: engines look into nested configurations too."""
    waiting: list[Json] = [document]
    while waiting:
        match waiting.pop():
            case dict() as found:
                for key, value in found.items():
                    yield from ((key, code) for code in _code_of(key, value, name))
                waiting.extend(found.values())
            case list() as found:
                waiting.extend(found)


def _code_of(key: str, value: Json, name: str) -> Iterator[str | None]:
    """The files that one key makes an engine run; None for what lies elsewhere."""
    texts = tuple(_texts(value))
    match key:
        case "auto_map":  # transformers and vLLM
            yield from map(_file_of, texts)
        case "impl":  # of custom_pipelines, for transformers.pipeline
            yield from map(_file_of, texts)
        case "model_file":  # mlx-lm
            yield from (text for text in texts if text and kind_of(text) not in SAFE)
        case "parent_library":  # of auto_mapping, in peft's adapter_config.json
            yield from (None for text in texts if not _is_installed(text))
        case "type" if name == "modules.json":  # sentence-transformers
            yield from (_file_of(text) for text in texts if not _is_installed(text))
        case _ if "attn_implementation" in key:  # "org/repository": a kernel is fetched and run
            yield from (None for text in texts if text and "/" in text)


def _is_installed(reference: str | None) -> bool:
    return reference is not None and reference.partition(".")[0] in INSTALLED


def _file_of(reference: str | None) -> str | None:
    """The file of "module.Class" beside the configuration; None for "org/repository--module.Class", and the unclear."""
    if reference is None or not re.fullmatch(r"\w+(\.\w+)+", reference):
        return None
    return reference.rpartition(".")[0].replace(".", "/") + ".py"


def _texts(value: Json) -> Iterator[str | None]:
    """Every string in it; None for what is neither string, list, object nor null."""
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from _texts(each)
        case dict():
            for each in value.values():
                yield from _texts(each)
        case None:
            return
        case _:
            yield None
