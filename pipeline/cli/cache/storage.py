"""This machine's cache as commands meet it, in any folder: with a manifest's names and aliases where there is one."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from pipeline.cli.options import Options
from pipeline.cli.select import fitting
from pipeline.core.diagnostic import Diagnostic, error
from pipeline.core.errors import MpError, UserError
from pipeline.core.frozen import frozen
from pipeline.core.protocols import Source
from pipeline.core.settings import Settings, default_cache
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.shelf import Shelf
from pipeline.resources.cache.store import Cache

if TYPE_CHECKING:
    from pipeline.cli.project import Project  # reading a manifest loads much that a quick pull does not need

MANIFEST = "models.yaml"
T = TypeVar("T")


@frozen
class Storage:
    options: Options
    settings: Settings
    cache: Cache
    shelf: Shelf
    project: "Project | None"  # of the current folder, where it has one and a word may speak of it

    @property
    def aliases(self) -> Mapping[str, str]:
        return self.project.manifest.aliases if self.project else {}

    @cached_property
    def sources(self) -> Mapping[str, Source]:
        """Loaded when one is asked: a pull of what is here asks none."""
        made: Mapping[str, Source] = import_module("pipeline.sources").open_sources(
            self.settings, self.cache.absorb
        )
        return made

    def entries(self, words: Sequence[str] | None) -> list[Cached]:
        """What the words mean of the cache, each entry once; no words mean everything. Raises UserError with every wrong word."""
        cached = self.shelf.list()
        if not words:
            return list(cached)
        root = self.settings.root
        meant = [
            one for each in gather(words, lambda w: fitting(w, cached, root, self.aliases)) for one in each
        ]
        return [one for one in cached if one in meant]


def open_storage(options: Options, words: Sequence[str] | None = None) -> Storage:
    """The manifest is read when there is one; with `words` only if one of them may be its name or alias."""
    wanted = words is None or any(may_be_name(word) for word in words)
    project = None
    if wanted and (options.folder / MANIFEST).exists():
        project = import_module("pipeline.cli.project").read_project(options, lenient=True)
    folder, environ = options.folder, options.environ
    root = default_cache(environ)
    settings = Settings(folder, root, folder / ".mp", environ, options.environment, offline=options.offline)
    return Storage(options, settings, Cache(root), Shelf(root), project)


def may_be_name(word: str) -> bool:
    """Whether a word could be a name or an alias of a manifest: neither has a slash."""
    return "/" not in word.partition(":")[0]


def gather(words: Sequence[str], read: Callable[[str], T]) -> list[T]:
    """What each word means; every wrong one is told of at once."""
    found: list[T] = []
    problems: list[MpError] = []
    for word in words:
        try:
            found.append(read(word))
        except MpError as problem:
            problems.append(problem)
    raise_all(problems)
    return found


def raise_all(problems: Sequence[MpError]) -> None:
    """One problem as it is, several as a list."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise UserError([one for problem in problems for one in _told(problem)])


def _told(problem: MpError) -> Sequence[Diagnostic]:
    if isinstance(problem, UserError):
        return problem.diagnostics
    return [error(problem.message, hint=problem.hint)]
