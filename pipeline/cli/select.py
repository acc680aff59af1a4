"""What words on the command line mean, for every command: models by name, glob or reference, and entries of the cache."""

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.errors import UserError
from pipeline.core.reference import TAGGED, Reference, alias_of, parse, scheme_of

# seven digits are what git shows of a commit when it is short (core.abbrev)
_PIN = re.compile(r"(.+)@(?:sha256[:-])?([0-9a-f]{7,64})", re.DOTALL)


class Cached(Protocol):
    """An entry of the cache, as far as words can name it."""

    @property
    def source(self) -> str:
        """Canonical; "" where it is not known."""
        ...

    @property
    def versions(self) -> tuple[str, ...]: ...

    @property
    def pin(self) -> str:
        """40-hex commit, or "sha256-<64 hex>"."""
        ...


C = TypeVar("C", bound=Cached)


def selected(
    patterns: Sequence[str] | None,
    known: Iterable[str],
    sources: Callable[[str], Iterable[Reference]],
    root: Path,
    aliases: Mapping[str, str],
) -> tuple[str, ...]:
    """The known names that were asked for, in their own order; none asked for is (), which means all.

    A name comes first, then a glob; a reference or an alias means every model that has it among its `sources`.
    Raises UserError naming every pattern that fits nothing.
    """
    if not patterns:
        return ()
    names = list(known)
    asked: set[str] = set()
    problems: list[Diagnostic] = []
    for pattern in patterns:
        fitting = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        try:
            asked.update(fitting or _declared(pattern, names, sources, root, aliases))
        except UserError as problem:
            problems += problem.diagnostics
    if problems:
        raise UserError(problems)
    return tuple(name for name in names if name in asked)


def found(
    word: str, cached: Sequence[C], root: Path, aliases: Mapping[str, str], *, pull: bool = False
) -> C | Reference:
    """The one entry of the cache that a word means; with `pull`, else the reference that is to be fetched.

    A word is a reference, an alias, or a unique end of a cached source; `:v1`, `/v1` and `@4e1a6b0` choose a version.
    Raises UserError for what fits several entries or none.
    """
    reference = _parsed(word, root, aliases)
    certain, short = _fitting(word, cached, root, aliases)
    entries = [*certain, *short]
    unsure = [str(reference)] if pull and reference and short and not certain else []
    if len(entries) + len(unsure) > 1:
        raise _several(word, [*unsure, *_labels(entries)])
    if entries:
        return entries[0]
    if reference is not None and pull:
        return reference
    if pull:
        parse(word, root, aliases)  # says what is wrong with it
    raise _not_cached(word, cached, root, aliases)


def fitting(word: str, cached: Sequence[C], root: Path, aliases: Mapping[str, str]) -> list[C]:
    """The entries of the cache that a word means, all versions of one source where it says none.

    Raises UserError for what fits several sources or none.
    """
    certain, short = _fitting(word, cached, root, aliases)
    entries = [*certain, *short]
    if not entries:
        raise _not_cached(word, cached, root, aliases)
    if len({folded(entry.source) for entry in entries}) > 1:
        raise _several(word, _labels(entries))
    return entries


def _fitting(
    word: str, cached: Sequence[C], root: Path, aliases: Mapping[str, str]
) -> tuple[list[C], list[C]]:
    """Entries that a word names by their reference, and entries whose source only ends with it."""
    if exact := _exactly(word, cached, root, aliases):
        return exact, []
    versioned = _by_slash(word, cached, root, aliases)
    return versioned, [entry for entry in _by_end(word, cached) if entry not in versioned]


def _declared(
    pattern: str,
    names: Sequence[str],
    sources: Callable[[str], Iterable[Reference]],
    root: Path,
    aliases: Mapping[str, str],
) -> list[str]:
    """The models that come from a reference, at its version where it says one."""
    if not alias_of(pattern, aliases) and not re.search("[/:@]", pattern) and pattern not in (".", "..", "~"):
        raise UserError([_unknown(pattern, names, aliases)])
    wanted = parse(pattern, root, aliases)
    fitting = [name for name in names if any(_asks_for(wanted, source) for source in sources(name))]
    if not fitting:
        raise UserError([error(f"no model comes from {wanted}", hint=_some(names))])
    return fitting


def _asks_for(wanted: Reference, source: Reference) -> bool:
    return (
        folded(wanted.source) == folded(source.source)
        and wanted.tag in ("", source.tag)
        and wanted.digest in ("", source.digest)
    )


def _exactly(word: str, cached: Sequence[C], root: Path, aliases: Mapping[str, str]) -> list[C]:
    """Entries that the word means as a reference; the first digits of a pin are enough."""
    name, digits = _without_pin(word)
    reference = _parsed(name, root, aliases)
    if reference is None:
        return []
    pins = (digits, reference.digest.removeprefix("sha256:"))
    return [entry for entry in cached if _is(reference, entry) and _has(entry, reference.tag, *pins)]


def _by_slash(word: str, cached: Sequence[C], root: Path, aliases: Mapping[str, str]) -> list[C]:
    """Entries whose version stands behind a slash; a branch may have slashes of its own."""
    name, digits = _without_pin(word)
    cuts = [(_parsed(head, root, aliases), tail) for head, tail in _cuts(name, "/")]
    return [
        entry
        for entry in cached
        if any(
            each and not each.version and _is(each, entry) and _has(entry, tail, digits)
            for each, tail in cuts
        )
    ]


def _by_end(word: str, cached: Sequence[C]) -> list[C]:
    """Entries whose source ends with the word: whole parts between slashes, and maybe a version."""
    name, digits = _without_pin(word)
    if not name or "://" in name or name.startswith(("/", ".", "~")):
        return []
    cuts = [(name, ""), *_cuts(name, ":"), *_cuts(name, "/")]
    return [
        entry
        for entry in cached
        if any(_ends(entry, head) and _has(entry, tail, digits) for head, tail in cuts)
    ]


def _without_pin(word: str) -> tuple[str, str]:
    """A word and the hex digits of a pin behind its "@"; "" where there are none."""
    pin = _PIN.fullmatch(word)
    return (pin[1], pin[2]) if pin else (word, "")


def _cuts(name: str, mark: str) -> Iterator[tuple[str, str]]:
    """Every way to read a name as one and a version behind a mark."""
    for place in re.finditer(re.escape(mark), name):
        if place.start() and place.end() < len(name):
            yield name[: place.start()], name[place.end() :]


def _is(reference: Reference, entry: Cached) -> bool:
    return folded(reference.source) == folded(entry.source)


def _ends(entry: Cached, name: str) -> bool:
    """Whole parts of the place only."""
    scheme, _, place = entry.source.partition("://")
    return folded(f"{scheme}:///{place}").endswith(folded(f"{scheme}:///{name}").removeprefix(f"{scheme}://"))


def folded(source: str) -> str:
    """The Hub finds a model in any case of its letters; nothing else does."""
    return source.casefold() if scheme_of(source) == "hf" else source


def _has(entry: Cached, version: str, *digits: str) -> bool:
    """Whether an entry is of a version ("" is any), and its pin or a digest it was asked by begins with all these digits."""
    digests = [each.removeprefix("sha256:") for each in entry.versions if each.startswith("sha256:")]
    pins = (entry.pin.removeprefix("sha256-"), *digests)
    return version in ("", *entry.versions) and all(
        any(pin.startswith(each) for pin in pins) for each in digits
    )


def _parsed(word: str, root: Path, aliases: Mapping[str, str]) -> Reference | None:
    try:
        return parse(word, root, aliases)
    except UserError:
        return None


def _labels(entries: Sequence[Cached]) -> list[str]:
    """What to write for each of several entries: its version where that tells them apart, else its pin."""
    versions = [
        f"{entry.source}:{entry.versions[0]}"
        if scheme_of(entry.source) in TAGGED and entry.versions
        else f"{entry.source}@{entry.pin.removeprefix('sha256-')[:12]}"
        for entry in entries
    ]
    if len(set(versions)) == len(versions):
        return versions
    return [f"{entry.source}@{entry.pin.removeprefix('sha256-')[:12]}" for entry in entries]


def _several(word: str, candidates: Sequence[str]) -> UserError:
    return UserError([error(f'"{word}" may be each of several', hint=f"say which: {', '.join(candidates)}")])


def _not_cached(word: str, cached: Sequence[Cached], root: Path, aliases: Mapping[str, str]) -> UserError:
    """What is damaged is told as such: it may hold a secret, which this message would repeat."""
    reference = _parsed(word, root, aliases) if "/" not in word else parse(word, root, aliases)
    if reference is None:
        name = re.split("[:@]", word, maxsplit=1)[0]
        ends = {entry.source.rpartition("/")[2] for entry in cached if entry.source}
        close = difflib.get_close_matches(name, sorted({*ends, *aliases}), 1)
        ask = "run mp pull REF, or add --pull, with a whole reference"
        hint = f'did you mean "{close[0]}"?' if close else ask
    else:
        here = _labels([entry for entry in cached if _is(reference, entry)])
        have = f"; the cache has {', '.join(here)}" if here else ""
        hint = f"run mp pull {reference}, or add --pull{have}"
    return UserError([error(f'"{word}" is not in the manifest and not in the cache', hint=hint)])


def _unknown(pattern: str, names: Sequence[str], aliases: Mapping[str, str]) -> Diagnostic:
    if any(character in pattern for character in "*?["):
        return error(f'no model fits "{pattern}"', hint=_some(names))
    close = difflib.get_close_matches(pattern, [*names, *aliases], n=1)
    return error(
        f'there is no model "{pattern}"', hint=f'did you mean "{close[0]}"?' if close else _some(names)
    )


def _some(names: Sequence[str]) -> str:
    if not names:
        return "models.yaml declares no model"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"there are {', '.join(names[:5])}{more}"
