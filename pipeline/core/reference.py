"""References: where a model is, in one grammar. Read by manifest and engine in `source:`, and by cli in its arguments.

    [scheme://][host[:port]/]path[:tag][@sha256:<64 hex> | @<commit>]

A path of this machine is one only by its prefix: `/ ./ ../ ~ file://`. What is written in several ways has one canonical
form, `str(reference)`. The rules of each scheme are in the functions below, with where they come from.
"""

import difflib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.spelling import (
    BUCKET,
    COMMIT,
    DIGEST,
    HUB_NAME,
    LAST_DIGEST,
    OCI_NAME,
    OCI_TAG,
    PATHS,
    inside,
    is_printable,
    is_revision,
    pinned,
    require_harmless,
    require_host,
    versioned,
    wrong,
)

HUB = "huggingface.co"
SCHEMES = ("hf", "oci", "s3", "https", "http", "file")
TAGGED = ("hf", "oci")  # schemes that have tags; elsewhere ":" and "@" are ordinary characters
MOST_CHARACTERS = 4096  # the longest path of Linux (PATH_MAX); S3 keys have 1,024 bytes

_HUB_HOSTS = (HUB, "hf.co")  # the second is the Hub's own short name and leads to the first
_OLLAMA = "registry.ollama.ai"  # the registry of `ollama pull` (ollama, types/model/name.go, FillDefault)
_SPELLINGS = {"docker": "oci", "huggingface": "hf"}

_HUB_PAGE = re.compile(r"([^/:@]+/[^/:@]+)/(tree|commit|resolve|blob|raw)/([^/]+)(?:/(.+))?")
_ALIAS = re.compile(r"([^:@/]+)((?!:[0-9]+/|://)[:@].*)?", re.DOTALL)  # "host:5000/x" is no alias with a tag


@frozen
class Reference:
    """A model somewhere, and which version of it. Made by `parse`, so it is always canonical."""

    scheme: str  # one of SCHEMES
    host: str  # "huggingface.co", "quay.io", "localhost:5000", the bucket of s3; "" of file
    path: str  # "Qwen/Qwen3-8B", "ai-lab/models/granite-7b-lab", a key or prefix; of file an absolute path
    tag: str = ""  # a branch or tag: "main", "v1.1", "feature/x"; only of TAGGED schemes
    digest: str = ""  # a commit of 40 hex (hf), or "sha256:<64 hex>"

    @property
    def source(self) -> str:
        """Canonical, without a version: "hf://Qwen/Qwen3-8B", "oci://quay.io/ai-lab/x", "file:///srv/x"."""
        place = self.path if self.scheme in ("hf", "file") else f"{self.host}/{self.path}"
        return f"{self.scheme}://{place}"

    @property
    def version(self) -> str:
        """The most exact version that is said; "" when none is."""
        return self.digest or self.tag

    def at(self, version: str) -> "Reference":
        """The same model at another version: a digest, a commit, or else a branch or tag."""
        if COMMIT.fullmatch(version) or DIGEST.fullmatch(version):
            return replace(self, tag="", digest=version)
        return replace(self, tag=version, digest="")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.source}{tag}@{self.digest}" if self.digest else f"{self.source}{tag}"


def parse(text: str, root: Path, aliases: Mapping[str, str] = {}) -> Reference:
    """What a text means; paths are relative to `root`. Raises UserError with one diagnostic that says what to write.

    Asks no network and no disk. No message holds a password or a query: both may be secrets.
    """
    if len(text) > MOST_CHARACTERS:
        hint = f"write at most {MOST_CHARACTERS:,} characters"
        raise UserError([error(f"a reference of {len(text):,} characters is too long", hint=hint)])
    if name := alias_of(text, aliases):
        return _behind(name, text.removeprefix(name), root, aliases)
    return _parse(text, root, aliases)


def alias_of(text: str, aliases: Collection[str]) -> str | None:
    """The alias that a text begins with, alone or with a tag or digest behind it."""
    found = _ALIAS.fullmatch(text)
    return found[1] if found is not None and found[1] in aliases else None


def scheme_of(source: str) -> str:
    """The scheme of a canonical reference: "hf", "file"."""
    return source.partition("://")[0]


def _behind(name: str, version: str, root: Path, aliases: Mapping[str, str]) -> Reference:
    """What an alias stands for, at a version of the user's."""
    if other := alias_of(aliases[name], aliases):
        hint = f'write what "{other}" stands for'
        raise UserError([error(f'alias "{name}" stands for "{other}", which is an alias itself', hint=hint)])
    try:
        found = _parse(aliases[name], root, {})
    except UserError as problem:
        told = [replace(one, summary=f'alias "{name}": {one.summary}') for one in problem.diagnostics]
        raise UserError(told) from None
    if not version:
        return found
    if version[0] == ":" and found.scheme not in TAGGED:
        raise wrong(
            f"{name}{version}", f"asks {found.scheme}:// for a tag, and it has none", f'write "{name}"'
        )
    if found.digest or (found.tag and version[0] == ":"):
        hint = f"write {found.source} and the version that you mean"
        raise wrong(f"{name}{version}", f'says two versions: "{name}" stands for {found}', hint)
    return _parse(f"{found}{version}", root, {})


def _parse(text: str, root: Path, aliases: Mapping[str, str]) -> Reference:
    """What a text means that is no alias; `aliases` are only for the hint."""
    if (path := _path(text)) is not None:
        return _file(text, path, root)
    require_harmless(text)
    scheme, mark, rest = text.partition("://")
    if not mark:
        return _without_scheme(text, aliases)
    scheme = _SPELLINGS.get(scheme.lower(), scheme.lower())
    match scheme:
        case "hf":
            return _hub(text, rest)
        case "oci":
            return _oci(text, rest)
        case "ollama":
            return _ollama(text, rest)
        case "s3":
            return _bucket(text, rest)
        case "https" | "http":
            return _web(text, scheme, rest)
    near = difflib.get_close_matches(scheme, (*SCHEMES, *_SPELLINGS, "ollama"), 1)
    hint = (
        f'did you mean "{near[0]}://{rest}"?'
        if near
        else f"use {', '.join(f'{s}://' for s in SCHEMES)} or a path"
    )
    raise wrong(text, f"has the scheme {scheme}://, which is not known", hint)


def _path(text: str) -> str | None:
    """What is behind `file://`, or the whole text where it begins as a path."""
    if text[:7].lower() == "file://":
        rest = text[7:].removeprefix("localhost") if text[7:].startswith("localhost/") else text[7:]
        if not rest.startswith(PATHS) and LAST_DIGEST.sub("", rest) not in (".", ".."):
            raise wrong(text, "names another machine", "write file:///folder, or ./folder for a path")
        return rest
    return text if text.startswith(PATHS) or LAST_DIGEST.sub("", text) in (".", "..") else None


def _without_scheme(text: str, aliases: Mapping[str, str]) -> Reference:
    """`host/path` of a registry or the Hub, or `org/name` of the Hub."""
    first, mark, _ = text.partition("/")
    if first.endswith(":") and first[:-1].lower() in SCHEMES and mark:
        raise wrong(text, "is no reference", f"did you mean {first}/{text[len(first) :]}?")
    if mark and first.lower() not in _HUB_HOSTS and ("." in first or ":" in first or first == "localhost"):
        return _oci(text, text)
    if mark:
        return _hub(text, text)
    name = re.split("[:@]", text, maxsplit=1)[0]
    near = difflib.get_close_matches(name, aliases, 1)
    hint = f'did you mean "{near[0]}{text.removeprefix(name)}"?' if near else None
    summary = "is neither org/name, nor host/name, nor a path" + (", nor an alias" if aliases else "")
    raise wrong(text, summary, hint or f"write hf://org/{text or 'name'}, or ./{text or 'folder'} for a path")


def _file(text: str, rest: str, root: Path) -> Reference:
    """A path: `~` is a home, what is relative counts from `root`, and `..` is resolved without asking the disk."""
    if not is_printable(f"{root}{rest}"):
        raise wrong(text, "has a control character in it", "rename the file")
    written, digest = pinned(text, rest)
    try:
        path = Path(written).expanduser()
    except RuntimeError:
        raise wrong(text, "names a home folder that is not there", "write the whole path") from None
    # POSIX lets a path begin with two slashes; on Linux they mean one
    absolute = "/" + os.path.normpath(root.absolute() / path).lstrip("/")
    if LAST_DIGEST.search(absolute):
        raise wrong(text, "has a name that ends as a digest", "rename the file")
    return Reference("file", "", absolute, "", digest)


def _hub(text: str, rest: str) -> Reference:
    """`org/name[:revision][@commit]`; the host may be said, and a page of it may be pasted."""
    host, _, behind = rest.partition("/")
    if host.lower() in _HUB_HOSTS:
        if page := _HUB_PAGE.fullmatch(behind.removesuffix("/")):
            return _hub_page(text, page)
        rest = behind
    name, tag, digest = versioned(text, rest)
    name = name.removesuffix("/")
    if not HUB_NAME.fullmatch(name):
        raise wrong(text, "is no repository of the Hub", _hub_hint(name))
    if digest and not COMMIT.fullmatch(digest):
        other = f", or hf://{name}:{digest} for a branch or tag" if is_revision(digest) else ""
        hint = f"write all 40 hex digits of the commit{other}"
        raise wrong(text, f'has "{digest}" after "@", where a commit belongs', hint)
    if tag and not is_revision(tag):
        raise wrong(text, f'asks for "{tag}", which no branch or tag is called', f"write hf://{name}:main")
    if COMMIT.fullmatch(tag) and digest in ("", tag):
        tag, digest = "", tag
    return Reference("hf", HUB, name, tag, digest)


def _hub_page(text: str, page: re.Match[str]) -> Reference:
    """The page of a branch: its slashes are `%2F` there, so that what follows is a file."""
    name, kind, revision, file = page[1], page[2], unquote(page[3]), page[4]
    reference = f"hf://{name}:{revision}"
    if file is None and kind in ("tree", "commit"):
        return _hub(text, f"{name}:{revision}")
    if kind == "tree":
        hint = (
            f'write {reference} and files: {{include: ["{file}/*"]}}, or {reference}/{file} for such a branch'
        )
        raise wrong(text, "is a folder of a model, or a branch with a slash in its name", hint)
    hint = f'write {reference}, and files: {{include: ["{unquote(file or "*")}"]}}'
    raise wrong(text, "is one file of a model", hint)


def _hub_hint(name: str) -> str:
    parts = name.split("/")
    if parts[0] in ("datasets", "spaces"):
        return "only models can be served: write hf://org/name"
    if len(parts) == 1 and name:
        return f"write hf://org/{name}: the Hub has moved names without an organisation"
    if len(parts) > 2 and all(parts):
        return f"write hf://{parts[0]}/{parts[1]} for a model of the Hub, or ./{name} for a path"
    return "write hf://org/name"


def _oci(text: str, rest: str) -> Reference:
    """`host[:port]/name[:tag][@digest]`; a colon before the last slash is the port's."""
    place, at, digest = rest.partition("@")
    front, _, last = place.rpartition("/")
    last, colon, tag = last.partition(":")
    host, _, name = f"{front}/{last}".partition("/")
    host = host.lower()
    if not front or not name:
        raise wrong(text, "names no repository", "write oci://host/name:tag")
    require_host(text, host)
    if not OCI_NAME.fullmatch(name):
        lower = OCI_NAME.fullmatch(name.lower()) is not None
        hint = (
            f"write oci://{host}/{name.lower()}"
            if lower
            else "use lower-case letters, digits and . _ - between them"
        )
        raise wrong(text, f'asks {host} for "{name}", which no repository is called', hint)
    if colon and not OCI_TAG.fullmatch(tag):
        hint = "a tag has letters, digits and . _ -, at most 128"
        raise wrong(text, f'has "{tag}" after ":", which no tag is called', hint)
    if at and not DIGEST.fullmatch(digest):
        raise wrong(text, f'has "{digest}" after "@", where a digest belongs', "write @sha256:<64 hex>")
    return Reference("oci", host, name, tag, digest)


def _ollama(text: str, rest: str) -> Reference:
    """`name[:tag]` and `namespace/name[:tag]`, as `ollama pull` reads them."""
    match rest.count("/"):
        case 0:
            return _oci(text, f"{_OLLAMA}/library/{rest}")
        case 1:
            return _oci(text, f"{_OLLAMA}/{rest}")
    raise wrong(text, "names another registry than Ollama's", f"write oci://{rest}")


def _bucket(text: str, rest: str) -> Reference:
    """`bucket/key`, or `bucket/prefix` with or without its last slash."""
    place, digest = pinned(text, rest)
    bucket, _, key = place.partition("/")
    if not BUCKET.fullmatch(bucket):
        hint = "a bucket has 3 to 63 lower-case letters, digits, dots and dashes: write s3://bucket/prefix"
        raise wrong(text, f'asks for "{bucket}", which no bucket is called', hint)
    return Reference(
        "s3", bucket, inside(text, key.removesuffix("/"), "write s3://bucket/prefix"), "", digest
    )


def _web(text: str, scheme: str, rest: str) -> Reference:
    """`host[:port]/path` of one file, exactly as the server is asked for it; pages of the Hub are models there."""
    place, digest = pinned(text, rest)
    host, _, path = place.partition("/")
    host = host.lower()
    if host in _HUB_HOSTS:
        return _hub(text, rest)
    require_host(text, host)
    if "#" in path:
        raise wrong(
            text,
            "has a fragment",
            f"leave out what follows the #: {scheme}://{host}/{path.partition('#')[0]}",
        )
    return Reference(scheme, host, inside(text, path, f"write {scheme}://host/file"), "", digest)
