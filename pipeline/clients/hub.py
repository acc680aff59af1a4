"""The Hugging Face Hub: metadata through huggingface_hub, bytes by our own ranged reads with its headers and token."""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar
from urllib.parse import quote

from pipeline.clients.http import BUSY, Busy, Http, host_of, patiently, wait_of
from pipeline.clients.xet import Xet, XetFile
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Unreachable
from pipeline.core.frozen import frozen

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

T = TypeVar("T")

ENDPOINT = "https://huggingface.co"
SMALL_BYTES = 10 << 20  # the Hub wants LFS for what is larger
METADATA_TIMEOUT_S = 30.0
NEW_TOKEN = "check HF_TOKEN, or run hf auth login again"
COMMIT = re.compile(r"[0-9a-f]{40}")


@frozen
class HubFile:
    """One file of a repository. LFS files come with their sha256, the others with the id git gave them."""

    path: str
    size_bytes: int
    sha256: str | None
    git_sha1: str | None


@frozen
class Revision:
    """A repository at one commit."""

    commit: str
    files: tuple[HubFile, ...]
    licenses: tuple[str, ...]  # what its card says: "apache-2.0", "other"
    license_name: str | None  # of a licence that is "other"
    gated: bool


class Hub:
    """One Hub or mirror. Without a token huggingface_hub's own is used (`hf auth login`); with False none is."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | Literal[False] | None = None,
        http: Http | None = None,
        pause: Callable[[float], None] = time.sleep,
        xet: Xet | None = None,
    ) -> None:
        self.endpoint = (endpoint or ENDPOINT).rstrip("/")
        self._token = token if token is False else (token or "").strip() or None  # CI sets empty ones
        self._http = http or Http(pause=pause)
        self._pause = pause
        self._xet = xet or Xet()

    def revision(self, repository: str, version: str) -> Revision:
        """What a branch, tag or commit is now. Raises Missing, Denied, Unreachable; never answers from a cache."""
        model = self._call(
            repository,
            lambda: self._api.model_info(
                repository, revision=version, files_metadata=True, timeout=METADATA_TIMEOUT_S
            ),
        )
        if model.sha is None:
            raise BackendError(self._system, f'"{repository}" came without a commit')
        if COMMIT.fullmatch(version):
            self._require_commit(repository, model.sha, version)
        files = tuple(sorted((_file(each) for each in model.siblings or ()), key=lambda file: file.path))
        return Revision(model.sha, files, *_license(model), bool(model.gated))

    def committed(self, repository: str, commit: str) -> str | None:
        """When a commit was made: "2024-02-19T10:57:45.000Z"; None where a Hub does not tell, as mirrors do not.

        Raises Unreachable: another machine would lock another answer. The revision's own `lastModified` is no such date:
        nothing says whether it is the commit's or the repository's.
        """
        url = f"{self.endpoint}/api/models/{repository}/commits/{commit}?limit=1"
        try:
            with self._http.get(url, self._headers) as reply:
                first = json.loads(reply.body.read(SMALL_BYTES))[0]
                return str(first["date"]) if first["id"] == commit else None
        except Unreachable:
            raise
        except (BackendError, ValueError, LookupError, TypeError):
            return None

    @contextlib.contextmanager
    def open(
        self, repository: str, commit: str, path: str, start: int, size_bytes: int = 0
    ) -> Iterator[BinaryIO]:
        """The bytes of one file at one commit, from an offset. By `size_bytes` it is known which the Hub keeps in Xet only."""
        self._require_token()
        with contextlib.ExitStack() as stack:
            with self._reading(repository, path):
                file = None
                if size_bytes > self._xet.above_bytes:
                    file = self._in_xet(repository, commit, path, size_bytes)
                if file is None:
                    body = stack.enter_context(self._over_http(repository, commit, path, start))
                else:
                    body = stack.enter_context(self._xet.open(file, start, self._system))
            yield body

    @contextlib.contextmanager
    def _over_http(self, repository: str, commit: str, path: str, start: int) -> Iterator[BinaryIO]:
        with self._http.get(self._url(repository, commit, path), self._headers, start) as reply:
            self._require_commit(repository, reply.headers.get("x-repo-commit", commit), commit)
            yield reply.body

    def _in_xet(self, repository: str, commit: str, path: str, size_bytes: int) -> XetFile | None:
        """Where Xet has a file; None when this Hub keeps it otherwise, as mirrors do."""
        from huggingface_hub import get_hf_file_metadata

        url = self._url(repository, commit, path)
        said = self._call(
            repository,
            lambda: get_hf_file_metadata(
                url, token=self._token, timeout=METADATA_TIMEOUT_S, endpoint=self.endpoint, library_name="mp"
            ),
        )
        self._require_commit(repository, said.commit_hash or commit, commit)
        found = said.xet_file_data
        if found is None:
            return None
        if host_of(found.refresh_route) != host_of(self.endpoint):  # our token would go there
            raise BackendError(
                self._system,
                f'"{path}" of "{repository}" is in Xet, and its key at {host_of(found.refresh_route)}',
            )
        return XetFile(found.file_hash, size_bytes, found.refresh_route, self._headers)

    def _url(self, repository: str, commit: str, path: str) -> str:
        return f"{self.endpoint}/{repository}/resolve/{commit}/{quote(path)}"

    def _require_commit(self, repository: str, found: str, wanted: str) -> None:
        if found != wanted:
            raise Corrupt(self._system, f'"{repository}" answered for commit {found[:12]}, not {wanted[:12]}')

    def small(self, repository: str, commit: str, file: HubFile) -> bytes:
        """A whole small file, checked against the id that git or LFS gave it."""
        if file.size_bytes > SMALL_BYTES:
            raise BackendError(
                self._system,
                f'"{file.path}" of "{repository}" is large and has no sha256',
                "exclude it: files.exclude",
            )
        with self.open(repository, commit, file.path, 0) as stream:
            content = stream.read(SMALL_BYTES + 1)
        if not _is_listed(file, content):
            raise Corrupt(
                self._system, f'"{file.path}" of "{repository}" is not what the Hub lists', "run it again"
            )
        return content

    @property
    def _system(self) -> str:
        return f"hub {host_of(self.endpoint)}"

    @cached_property
    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self._token, library_name="mp")

    @cached_property
    def _headers(self) -> Mapping[str, str]:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it loads lazily

        return build_hf_headers(token=self._token, library_name="mp")

    def _require_token(self) -> None:
        """Raises Denied for a token that could not even be sent; none at all is fine."""
        token = self._headers.get("authorization", "")
        if not (token.isascii() and token.isprintable()):
            raise Denied(self._system, "the token has characters in it that no token has", NEW_TOKEN)

    @contextlib.contextmanager
    def _reading(self, repository: str, path: str) -> Iterator[None]:
        """Say which repository and file, and how to get in."""
        try:
            yield
        except Denied as problem:
            raise Denied(
                self._system, f'may not read "{path}" of "{repository}"', self._way_in(repository)
            ) from problem
        except Missing as problem:
            raise Missing(
                self._system, f'"{repository}" has no "{path}" any more', "run mp lock --upgrade"
            ) from problem

    def _way_in(self, repository: str) -> str:
        scheme, _, rest = self.endpoint.partition("://")
        page = f"{scheme}://{rest.rpartition('@')[2]}/{repository}"  # a mirror's password stays out of it
        return f"accept the terms at {page}, then set HF_TOKEN or run hf auth login"

    def _call(self, repository: str, work: Callable[[], T]) -> T:
        """Run an SDK call; its errors end here. It retries little itself, so we do."""

        def once() -> T:
            from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
            from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # it loads lazily

            self._require_token()
            try:
                return work()
            except HfHubHTTPError as problem:
                raise self._mapped(repository, problem) from problem
            except OfflineModeIsEnabled as problem:
                raise Unreachable(
                    self._system, "HF_HUB_OFFLINE is set", "unset it to resolve versions"
                ) from problem
            except httpx.HTTPError as problem:
                raise Unreachable(
                    self._system, f"no answer: {type(problem).__name__}", "check the network and HF_ENDPOINT"
                ) from problem
            except HFValidationError as problem:
                raise Missing(
                    self._system, f'"{repository}" is no repository name', "write hf://org/name"
                ) from problem

        return patiently(once, self._pause)

    def _mapped(self, repository: str, problem: "HfHubHTTPError") -> BackendError:
        from huggingface_hub.errors import (
            GatedRepoError,
            RemoteEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        status, headers = problem.response.status_code, problem.response.headers
        match problem:
            case GatedRepoError():
                return Denied(self._system, f'"{repository}" is gated', self._way_in(repository))
            case RevisionNotFoundError():
                return Missing(
                    self._system, f'"{repository}" has no such version', self._versions(repository)
                )
            case RemoteEntryNotFoundError():
                return Missing(
                    self._system, f'"{repository}" has no such file any more', "run mp lock --upgrade"
                )
            case RepositoryNotFoundError():
                hint = "check the spelling; a private one needs HF_TOKEN or hf auth login"
                return Missing(self._system, f'no repository "{repository}"', hint)
        said = headers.get("X-Error-Message") or f"status {status}"
        if status in BUSY:
            return Busy(self._system, f'{said} for "{repository}"', wait_of(headers))
        if status == 401:  # of an unknown token: a closed gate and a private repository say so, see above
            return Denied(self._system, f'{said} for "{repository}"', NEW_TOKEN)
        if status == 403:
            return Denied(self._system, f'{said} for "{repository}"', self._way_in(repository))
        return BackendError(self._system, f'{said} for "{repository}"')

    def _versions(self, repository: str) -> str:
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # it loads lazily

        try:
            refs = self._api.list_repo_refs(repository)
        except (HfHubHTTPError, httpx.HTTPError):
            return "check the spelling of version"
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
        return f"it has {', '.join(names[:12])}{' and others' if len(names) > 12 else ''}, and its commits"


def _file(sibling: "RepoSibling") -> HubFile:
    lfs = sibling.lfs
    size_bytes = (lfs.size if lfs is not None else sibling.size) or 0
    sha256 = lfs.sha256 if lfs is not None else None
    return HubFile(sibling.rfilename, size_bytes, sha256, None if lfs is not None else sibling.blob_id)


def _license(model: "ModelInfo") -> tuple[tuple[str, ...], str | None]:
    if model.card_data is None:
        return (), None
    said, name = model.card_data.get("license"), model.card_data.get("license_name")
    licenses = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    return tuple(each for each in licenses if isinstance(each, str)), name if isinstance(name, str) else None


def _is_listed(file: HubFile, content: bytes) -> bool:
    if len(content) != file.size_bytes:
        return False
    if file.sha256 is not None:
        return hashlib.sha256(content).hexdigest() == file.sha256
    return file.git_sha1 in (None, _git_sha1(content))


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
