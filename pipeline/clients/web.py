"""Files of web servers: one address, one file, with the login that ~/.netrc has for the host. Used by sources/https."""

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.clients.http import Head, Http, Reply, host_of, plain
from pipeline.clients.loopback import is_loopback
from pipeline.core.errors import BackendError, Denied

_PAGES = ("text/html", "application/xhtml+xml")


class Web:
    """Any web server. Every method raises Denied, Missing, Unreachable, BackendError."""

    def __init__(self, environ: Mapping[str, str], http: Http | None = None) -> None:
        self._environ = environ
        self._http = http or Http()

    def head(self, url: str) -> Head:
        """What the server says of a file; none of its bytes is read."""
        with _signing_in(url):
            found = self._http.head(url, self._login(url))
        _require_file(url, found)
        return found

    @contextlib.contextmanager
    def open(self, url: str, start: int) -> Iterator[Reply]:
        """The bytes of a file from an offset. Raises Corrupt when it ends before `start`."""
        with contextlib.ExitStack() as stack:
            with _signing_in(url):
                reply = stack.enter_context(self._http.get(url, self._login(url), start))
            _require_file(url, reply.head)
            yield reply

    def _login(self, url: str) -> Mapping[str, str]:
        """Nothing is sent in the clear, but to this machine."""
        if urlsplit(url).scheme != "https" and not is_loopback(host_of(url)):
            return {}
        found = basic_credentials(urlsplit(url).hostname or "", self._environ)
        return {"Authorization": f"Basic {found}"} if found else {}


def basic_credentials(host: str, environ: Mapping[str, str]) -> str | None:
    """The base64 "user:password" for a host without its port; None where the file does not name it.

    The file is NETRC's, else ~/.netrc. Its `default` entry is for every host, so nothing is sent because of it.
    """
    import netrc

    file = Path(environ.get("NETRC") or f"{environ.get('HOME', '')}/.netrc")
    try:
        found = netrc.netrc(str(file)).hosts.get(host)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise BackendError("netrc", f"{file} cannot be read", "make it readable, or remove it") from problem
    except netrc.NetrcParseError as problem:  # its message may repeat a password
        hint = "an entry is: machine HOST login USER password PASSWORD"
        raise BackendError("netrc", f"{file}:{problem.lineno} is not understood", hint) from None
    if found is None:
        return None
    user, _, password = found
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@contextlib.contextmanager
def _signing_in(url: str) -> Iterator[None]:
    try:
        yield
    except Denied as problem:
        host = urlsplit(url).hostname
        hint = f"if {host} wants a login: put machine {host} login USER password PASSWORD into ~/.netrc"
        raise Denied(host_of(url), f"may not read {plain(url)}", hint) from problem


def _require_file(url: str, head: Head) -> None:
    """A page that asks for a login is answered as if it were the file; a compressed answer is not the file's bytes."""
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _PAGES and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        hint = "open the address in a browser: it may ask for a login, or name a page about the file"
        raise BackendError(host_of(url), f"{plain(url)} is a web page and not the file", hint)
    coding = head.headers.get("content-encoding", "identity").lower()
    if coding not in ("", "identity"):
        hint = "have the server send the file as it is"
        raise BackendError(host_of(url), f"{plain(url)} comes compressed ({coding})", hint)
