"""What words of `mp pull` ask for: pinned sources, and whether the cache answers without asking anybody. Used by pulling."""

from collections.abc import Mapping, Sequence
from dataclasses import field
from importlib import import_module
from pathlib import Path

from pipeline.cli.cache.storage import Storage, gather
from pipeline.cli.select import folded, found
from pipeline.cli.views.waiting import Waiting
from pipeline.core.errors import BackendError, Missing, MpError, UserError
from pipeline.core.frozen import frozen
from pipeline.core.model import WEIGHTS, Artifact, FileEntry, Filter, Part
from pipeline.core.protocols import Source, SourceSpec
from pipeline.core.reference import Reference, parse, scheme_of
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.entries import choice_of

DEFAULT_VERSIONS = {"hf": "main", "oci": "latest"}  # what the Hub and registries mean when nothing is said
EVERYTHING = Filter()


@frozen
class Wanted:
    """What one word asks for."""

    name: str  # the model's name, or the word
    parts: tuple[Part, ...]
    here: Mapping[str, Cached] = field(
        default_factory=dict
    )  # by role: it was found whole, and nobody was asked

    @property
    def files(self) -> dict[str, FileEntry]:
        """The model's folder: path → file, as `Model.files` has it."""
        return {
            (f"{part.folder}/" if part.folder else "") + entry.path: entry
            for part in self.parts
            for entry in part.artifact.files
        }


def wanted(storage: Storage, words: Sequence[str], chosen: Filter, *, upgrade: bool = False) -> list[Wanted]:
    """What the words mean, pinned. Asks a source only for what the cache does not answer. Raises UserError with all that is wrong."""
    waiting = Waiting()
    with waiting.word("Resolving"):
        each = gather(words, lambda word: _wanted(storage, word, chosen, waiting, upgrade=upgrade))
    return [one for several in each for one in several]


def _wanted(storage: Storage, word: str, chosen: Filter, waiting: Waiting, *, upgrade: bool) -> list[Wanted]:
    if storage.project is not None:
        locked = import_module("pipeline.cli.cache.locked")
        if names := locked.names(storage.project, word):
            if chosen != EVERYTHING:
                hint = "change files: of the model, then run mp lock"
                raise MpError(f"{word}: models.yaml says which of its files are taken", hint)
            return [_model(storage, name, locked.pinned(storage.project, name)) for name in names]
    match _meant(storage, word):
        case Reference() as reference:
            return [_referred(storage, word, reference, chosen, waiting, upgrade=upgrade)]
        case entry:
            version = entry.versions[0] if entry.versions else ""
            artifact = Artifact(entry.source, version, entry.pin, entry.files)
            return [Wanted(word, (Part(WEIGHTS, artifact),), {WEIGHTS: entry})]


def folder_of_model(storage: Storage, word: str) -> Path | None:
    """The folder of a declared model's weights, as they are locked; None when the word names no such model.

    Raises Missing when it is not here whole, Stale when models.lock is not for it.
    """
    if storage.project is None:
        return None
    locked = import_module("pipeline.cli.cache.locked")
    names = [name for name in locked.names(storage.project, word) if name == word]
    if not names:
        return None
    artifact = locked.pinned(storage.project, word)[0].artifact
    if not storage.cache.complete(artifact):
        raise Missing("cache", f'"{word}" is not here, or not whole', f"run mp pull {word}, or add --pull")
    return storage.cache.folder(artifact)


def _model(storage: Storage, name: str, parts: tuple[Part, ...]) -> Wanted:
    entries = {
        part.role: entry
        for part in parts
        if storage.cache.complete(part.artifact)
        for entry in storage.shelf.list(part.artifact.source)
        if entry.pin == part.artifact.pin
    }
    return Wanted(name, parts, entries)


def _meant(storage: Storage, word: str) -> Reference | Cached:
    """A reference, or what only the cache can tell: an entry by its short name."""
    root, aliases = storage.settings.root, storage.aliases
    try:
        reference = parse(word, root, aliases)
    except UserError:
        entry = found(word, storage.shelf.list(), root, aliases, pull=True)
        return _sound(entry) if isinstance(entry, Cached) else entry
    cached = storage.shelf.list()
    same = [entry for entry in cached if folded(entry.source) == folded(reference.source)]
    if same:  # written in other letters, the Hub's model is the same
        reference = parse(same[0].source, root).at(reference.version)
    others = [entry for entry in cached if entry not in same]
    if "://" in word or reference.scheme == "file":
        return reference
    entry = found(word, others, root, aliases, pull=True)
    return _sound(entry) if isinstance(entry, Cached) else reference


def _sound(entry: Cached) -> Cached | Reference:
    """An entry that is not whole is fetched again. Raises Missing where nobody knows from where."""
    if entry.complete:
        return entry
    if not entry.source:
        raise Missing(
            "cache",
            f"{entry.path} is damaged, and where it came from is not known",
            "pull it by its reference",
        )
    versions = (*entry.versions, entry.pin.replace("sha256-", "sha256:"))
    return parse(entry.source, Path("/")).at(versions[0])


def _referred(
    storage: Storage, word: str, reference: Reference, chosen: Filter, waiting: Waiting, *, upgrade: bool
) -> Wanted:
    version = reference.version or DEFAULT_VERSIONS.get(reference.scheme, "")
    spec = SourceSpec(reference.source, version, chosen)
    if not upgrade and (entry := _present(storage, spec)):
        taken = set(entry.choices[choice_of(chosen)])
        files = tuple(file for file in entry.files if file.path in taken)
        artifact = Artifact(spec.reference, version, entry.pin, files, filter=chosen)
        return Wanted(word, (Part(WEIGHTS, artifact),), {WEIGHTS: entry} if entry.complete else {})
    with waiting.named(f"resolving {reference}"):
        artifact = source_of(storage, spec.reference).resolve(spec, None)
    return Wanted(word, (Part(WEIGHTS, artifact),))


def source_of(storage: Storage, reference: str) -> Source:
    """What reads a reference. Raises BackendError where nothing here does."""
    scheme = scheme_of(reference)
    if scheme not in storage.sources:
        raise BackendError(
            "sources", f'"{reference}": nothing here reads "{scheme}://"', "use another source"
        )
    return storage.sources[scheme]


def _present(storage: Storage, spec: SourceSpec) -> Cached | None:
    """The entry that has this version with this choice of files; a folder of this machine is looked at instead.

    What looks different in it, as in a cache that was copied from another disk, is hashed, and fetched only when it is wrong.
    """
    if scheme_of(spec.reference) == "file":
        return None
    choice = choice_of(spec.filter)
    entries = [
        entry
        for entry in storage.shelf.list(spec.reference)
        if entry.source == spec.reference
        and choice in entry.choices
        and (not spec.version or spec.version in (entry.pin, *entry.versions))
    ]
    return entries[0] if len(entries) == 1 else None
