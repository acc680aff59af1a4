"""The project a command works on: models.yaml read and found right, settings, and the commit it stands at."""

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.cli.options import Options
from pipeline.cli.views.origin import Origin
from pipeline.clients import process
from pipeline.core.errors import BackendError, UserError
from pipeline.core.frozen import frozen
from pipeline.core.settings import Settings, default_cache
from pipeline.manifest.read import Document, read
from pipeline.manifest.spec import Manifest

FILE = "models.yaml"
_GIT_TIMEOUT_S = 10.0


@frozen
class Project:
    """A manifest that could be read, and its surroundings."""

    options: Options
    document: Document
    manifest: Manifest
    origin: Origin

    @property
    def settings(self) -> Settings:
        folder, environ = self.options.folder, self.options.environ
        return Settings(
            folder,
            default_cache(environ),
            folder / ".mp",
            environ,
            self.options.environment,
            self.origin.commit,
            self.options.offline,
        )

    @property
    def texts(self) -> Mapping[str, str]:
        """What diagnostics quote from."""
        return {self.document.name: self.document.text}


def read_project(options: Options, *, lenient: bool = False) -> Project:
    """Raises UserError with everything that is wrong with models.yaml.

    `lenient`: entries that cannot be made are no reason; for commands that make nothing of what is declared.
    """
    document = read(options.folder / FILE, options.environment)
    if document.manifest is None or (document.impossible and not lenient):
        raise UserError(document.diagnostics)
    return Project(
        options,
        document,
        document.manifest,
        replace(_origin(options.folder, document.name), machine=platform.node()),
    )


def _origin(folder: Path, file: str) -> Origin:
    """The commit of the checkout, and whether the manifest differs from it; neither where git does not answer."""
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return Origin(file, root=str(folder))
    question = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=all", "--", file]
    try:
        answer = process.run(question, cwd=folder, timeout_s=_GIT_TIMEOUT_S, system="git")
    except BackendError:
        return Origin(file, root=str(folder))
    commit = None
    edited = False
    for line in answer.splitlines():
        if line.startswith("# branch.oid "):
            commit = line.removeprefix("# branch.oid ")
        elif not line.startswith("#"):
            edited = True
    if commit == "(initial)":
        return Origin(file, root=str(folder))
    return Origin(file, commit, edited, root=str(folder))
