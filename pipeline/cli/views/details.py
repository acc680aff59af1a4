"""`mp show` as text: where each source of a model comes from and where its copy is, then everything that was made of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field

from pipeline.cli.views import cluster, units
from pipeline.cli.views.entries import day
from pipeline.cli.views.text import WIDTH, Ink, clean, columns, cut, hanging, pad, plain, sides
from pipeline.core.change import FieldDiff
from pipeline.core.digest import Json
from pipeline.core.frozen import frozen
from pipeline.core.model import WEIGHTS, Facts, FileEntry, Filter
from pipeline.core.resource import Transfer, said_of


@frozen
class Kept:
    """The copy on this machine."""

    path: str  # the entry's folder
    complete: bool
    fetched_at: str | None  # "2026-01-31T12:00:00Z"
    tool: str | None  # what brought it: "mp"


@frozen
class Provenance:
    """One source: what was asked for, what it is pinned to, and where its copy is."""

    role: str  # "weights", "tokenizer", "adapters.fr"
    source: str
    versions: tuple[str, ...]  # what was asked for; of a cached entry all names that lead to the pin
    pin: str
    files: tuple[FileEntry, ...]
    filter: Filter | None = None  # None: not known
    left_out_bytes: int | None = None
    facts: Facts = Facts()
    kept: Kept | None = None
    missing_bytes: int = 0  # what is still to be fetched


@frozen
class Live:
    """One image or deployment of a model: what is there, else what is wanted."""

    address: str
    kind: str
    state: str  # "running", "drifted", "not applied", "not read"
    action: str | None = None  # what a plan would do: "create"; None: it could not be read
    reason: str = ""  # why; of what could not be read, why not
    transfer: Transfer = Transfer()  # what that would move
    remarks: tuple[str, ...] = ()  # the same in words
    drift: tuple[FieldDiff, ...] = ()
    drifted: str = ""  # the same in words
    url: str | None = None
    remote_id: str | None = None
    digest: str | None = None
    commit: str | None = None  # at which it was applied
    fields: Mapping[str, Json] = field(default_factory=dict)


@frozen
class Details:
    """Everything that is known of one model, or of one entry of the cache."""

    name: str
    where: str | None  # "models.yaml:31:3"; None: nobody declares it here
    sources: tuple[Provenance, ...]
    resources: tuple[Live, ...] = ()


def details(one: Details, root: str, ink: Ink = plain) -> str:
    """Sections of named texts; folders of the project are shown relative to `root`."""
    alone = len(one.sources) == 1 and one.sources[0].role == WEIGHTS
    sections = [("" if alone else each.role, list(_source(each, root))) for each in one.sources]
    sections += [(said_of(each.address), list(_live(each))) for each in one.resources]
    sections += [
        ("files" if alone else f"files of {each.role}", [(file.path, _file(file)) for file in each.files])
        for each in one.sources
    ]
    head = sides(ink("bold", cut(clean(one.name), WIDTH * 2 // 3)), ink("dim", clean(one.where or "")))
    return "\n".join([head, *_sections([each for each in sections if each[1]], ink)])


def _sections(sections: Sequence[tuple[str, Sequence[tuple[str, str]]]], ink: Ink) -> Iterator[str]:
    names = [columns(clean(name)) for _, texts in sections for name, _ in texts]
    begin = min(36, max(names, default=0) + 4)
    for title, texts in sections:
        if title:
            yield ""
            yield ink("bold", cut(clean(title), WIDTH))
        for name, text in texts:
            first, text = pad("  " + cut(clean(name), begin - 4), begin), clean(text)
            if " " not in text and columns(text) > WIDTH - begin:  # a path: below, to be copied whole
                yield first.rstrip()
                first = "    "
            yield from (line.rstrip() for line in hanging(first, text))


def _source(one: Provenance, root: str) -> Iterator[tuple[str, str]]:
    yield "source", units.source(one.source, root) or "n/a"
    yield "version", ", ".join(one.versions) or ("n/a" if one.filter is None else "none")
    yield "pin", one.pin
    size_bytes = sum({file.sha256: file.size_bytes for file in one.files}.values())
    yield "size", f"{units.transferred(size_bytes)} in {units.counted(len(one.files), 'file')}"
    if one.left_out_bytes:
        yield "left out", f"{units.transferred(one.left_out_bytes)} of duplicates that the source has"
    yield from _choice(one.filter)
    yield "cache", _kept(one)
    if one.kept is not None:
        yield "folder", one.kept.path
    for fact, held in sorted(vars(one.facts).items()):
        if held is not None:
            yield units.label(fact), units.value(fact, held)


def _choice(chosen: Filter | None) -> Iterator[tuple[str, str]]:
    """How files were chosen, where the user said something."""
    if chosen is None:
        return
    if chosen.include:
        yield "include", ", ".join(chosen.include)
    if chosen.exclude:
        yield "exclude", ", ".join(chosen.exclude)
    if chosen.format not in ("auto", "text"):
        yield "format", chosen.format
    if chosen.allow:
        yield "allowed code", ", ".join(path for path, _ in chosen.allow)


def _kept(one: Provenance) -> str:
    missing = f"{units.transferred(one.missing_bytes)} to fetch" if one.missing_bytes else "not here"
    if one.kept is None:
        return missing if one.missing_bytes else "the files are here, under other names"
    if not one.kept.complete:
        return f"damaged or incomplete: {missing}" if one.missing_bytes else "damaged or incomplete"
    since = f" since {day(one.kept.fetched_at)}" if one.kept.fetched_at else ""
    return f"here{since}{f', brought by {one.kept.tool}' if one.kept.tool else ''}"


def _file(entry: FileEntry) -> str:
    return f"sha256 {entry.sha256[:12]}, {units.transferred(entry.size_bytes)}"


def _live(one: Live) -> Iterator[tuple[str, str]]:
    yield "state", "; ".join([one.state, *one.remarks])
    named = (
        ("drift", one.drifted),
        ("url", one.url),
        ("id", one.remote_id),
        ("digest", one.digest),
        ("applied at", one.commit),
    )
    yield from ((name, text) for name, text in named if text)
    fields = dict(one.fields)
    for path, value in _leaves(cluster.running(fields) if cluster.is_cluster(fields) else fields, ""):
        yield units.label(path), value


def _leaves(held: Json, path: str) -> Iterator[tuple[str, str]]:
    """Every field of a state that says something, an engine's flags on one line."""
    if isinstance(held, dict):
        for key, inner in held.items():
            yield from _leaves(inner, f"{path}/{key}" if path else key)
    elif isinstance(held, list) and path.rpartition("/")[2] in ("argv", "command"):
        yield path, " ".join(map(str, held))
    elif held not in (None, "", []):
        yield path, units.value(path, held)
