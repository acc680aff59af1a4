"""What the parts of a reference may be made of: hosts, tags, digests, paths; and how one is shown. Used by core/reference."""

import re
import unicodedata
from urllib.parse import unquote

from pipeline.core.diagnostic import error
from pipeline.core.errors import UserError

PATHS = ("/", "./", "../", "~")  # what a path of this machine begins with
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAST_DIGEST = re.compile(r"@(sha256:[^/]*)\Z")

# huggingface_hub 2.4.0, utils/_validators.py: both parts of 1 to 96 characters, no "--", no "..", no ".git" at the end
HUB_NAME = re.compile(r"(?!.*(--|\.\.|\.git\Z))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
# OCI distribution specification 1.1.0, "Pulling manifests": <name>, and <reference> as a tag
OCI_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
OCI_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Amazon S3 User Guide, "Bucket naming rules"; stores that are compatible have names with "_" too
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{{1,5}}))?")
# git-check-ref-format(1), 2.39: what no branch or tag holds; "@" may be in one, but here it begins the commit
_NO_REVISION = re.compile(r"[ ~^:?*\[\\@]|\.\.|//|^[/.-]|/\.|[/.]$|\.lock(/|$)")
_CREDENTIALS = re.compile(r"(?<=://)[^/]*@|^[^/]*@(?=[^/]*/)")
_WEB_CREDENTIALS = re.compile(r"^(https?://).*@(?!sha256:[^/]*$)", re.IGNORECASE)  # a password may hold a "/"


def is_revision(tag: str) -> bool:
    """Whether a branch or tag of git can have this name."""
    return tag.isprintable() and _NO_REVISION.search(tag) is None


def is_printable(path: str) -> bool:
    """Whether a path can stand in a line of text: no control characters, no broken UTF-8, no ends of lines."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in path)


def versioned(text: str, rest: str) -> tuple[str, str, str]:
    """`name:tag@digest` in its parts; what is begun and empty is refused."""
    place, at, digest = rest.partition("@")
    name, colon, tag = place.partition(":")
    if (at and not digest) or (colon and not tag):
        raise wrong(
            text,
            f'ends where a version should follow "{":" if colon and not tag else "@"}"',
            "write it, or leave the mark out",
        )
    return name, tag, digest


def pinned(text: str, rest: str) -> tuple[str, str]:
    """A place without tags, and the digest behind it."""
    found = LAST_DIGEST.search(rest)
    if found is None:
        return rest, ""
    if not DIGEST.fullmatch(found[1]):
        raise wrong(text, f'has "{found[1]}" after "@", where a digest belongs', "write @sha256:<64 hex>")
    return rest[: found.start()], found[1]


def inside(text: str, path: str, hint: str) -> str:
    """A path that stays below its host, also after a server or a client has decoded it."""
    parts = unquote(path).split("/")
    if "" in parts:
        raise wrong(text, "has an empty part in its path" if path else "names nothing on its host", hint)
    if not {".", ".."}.isdisjoint(parts):
        raise wrong(text, 'has "." or ".." in its path', "write the path without them")
    return path


def require_host(text: str, host: str) -> None:
    """A name, an IPv4 address or an IPv6 address in brackets, and maybe a port."""
    found = _HOST.fullmatch(host)
    if found is None or not 0 < int(found["port"] or 80) < 65536:
        hint = "write host/name or host:port/name, or ./ before a path"
        raise wrong(text, "begins with what is no host", hint)


def require_harmless(text: str) -> None:
    """No spaces or control characters, which would be read differently elsewhere, and nothing that may be secret."""
    if any(character.isspace() or not character.isprintable() for character in text):
        raise wrong(text, "has a space or a control character in it", "remove it; a path begins with ./ or /")
    if "?" in text:
        hint = f"leave out what follows the ?: it may be a secret, and a manifest holds none: {_shown(text)}"
        raise wrong(text, "has a query", hint)
    if _CREDENTIALS.search(LAST_DIGEST.sub("", text)):
        hint = (
            "leave it out: a manifest holds no secrets, and credentials come from the environment or a login"
        )
        raise wrong(text, "has a user name or a password in it", hint)


def _shown(text: str) -> str:
    """A text for messages: without what may be secret or would disturb a terminal."""
    if text.startswith(PATHS) or text[:7].lower() == "file://":
        shown = text
    else:
        shown = _CREDENTIALS.sub("…@", _WEB_CREDENTIALS.sub(r"\1…@", text.partition("?")[0]))
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown
    )


def wrong(text: str, what: str, hint: str) -> UserError:
    return UserError([error(f'reference "{_shown(text)}" {what}', hint=hint)])
