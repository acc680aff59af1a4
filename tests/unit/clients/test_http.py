"""Manners of HTTP reads that need no server: where secrets go, how long is waited, what a status means."""

import socket
import traceback

import pytest

from pipeline.clients.http import Busy, Http, _next_hop, _problem, patiently, plain, seconds, wait_of
from pipeline.core.errors import BackendError, Corrupt, Denied, Missing, Unreachable

SECRET = {"Authorization": "Bearer hf_secret", "Range": "bytes=5-"}


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("/other/path", True),
        ("https://hub.example/other", True),
        ("https://cdn.example/blob?sig=x", False),
        ("https://hub.example:8443/blob", False),
    ],
)
def test_token_follows_redirects_only_within_its_server(location: str, kept: bool) -> None:
    _, headers = _next_hop("https://hub.example/a", location, SECRET)
    assert ("Authorization" in headers) is kept
    assert headers["Range"] == "bytes=5-"


@pytest.mark.parametrize("location", ["http://hub.example/a", "file:///etc/passwd", "ftp://x/y"])
def test_unsafe_redirect_is_refused(location: str) -> None:
    with pytest.raises(BackendError, match="not safe to follow"):
        _next_hop("https://hub.example/a", location, SECRET)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Denied), (403, Denied), (404, Missing), (410, Missing), (416, Corrupt), (418, BackendError)]
    + [(code, Busy) for code in (408, 429, 500, 502, 503, 504)],
)
def test_status_means_an_error(status: int, kind: type[BackendError]) -> None:
    found = _problem(status, {"retry-after": "3"}, "https://hub.example/a?sig=secret", 0)
    assert type(found) is kind
    assert "secret" not in found.message
    assert not isinstance(found, Busy) or found.wait_s == 3.0


def test_part_that_was_not_asked_for_is_refused() -> None:
    assert _problem(206, {"content-range": "bytes 5-9/10"}, "https://h/a", 5) is None
    assert _problem(206, {"content-range": "bytes 0-9/10"}, "https://h/a", 5) is not None


def test_waits_grow_and_the_last_error_is_raised() -> None:
    waits: list[float] = []

    def fail() -> None:
        raise Unreachable("hub", "no answer")

    with pytest.raises(Unreachable):
        patiently(fail, waits.append)
    assert waits == [0.5, 1.0, 2.0]


def test_denied_is_not_tried_again() -> None:
    waits: list[float] = []

    def fail() -> None:
        raise Denied("hub", "no")

    with pytest.raises(Denied):
        patiently(fail, waits.append)
    assert waits == []


@pytest.mark.parametrize(
    ("header", "wait_s"), [(None, None), ("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None)]
)
def test_retry_after_in_seconds_is_understood(header: str | None, wait_s: float | None) -> None:
    assert seconds(header) == wait_s


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "9"}, 9.0),
        ({"ratelimit": '"api";r=489;t=155'}, None),
        ({"ratelimit": "junk"}, None),
        ({}, None),
    ],
)
def test_an_empty_rate_limit_says_how_long(headers: dict[str, str], wait_s: float | None) -> None:
    assert wait_of(headers) == wait_s


def test_urls_are_shown_without_query_and_user() -> None:
    assert plain("https://user:word@h.example:8443/a/b?X-Amz-Signature=s#f") == "https://h.example:8443/a/b"


BROKEN = {"Authorization": "Bearer s3cret\n"}


def test_token_that_no_header_can_hold_is_not_in_the_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/a"
        with pytest.raises(Denied) as failed, Http().get(url, BROKEN):
            pass
    assert "s3cret" not in "".join(traceback.format_exception(failed.value))
