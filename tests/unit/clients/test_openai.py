"""Requests to a server that was started: what an error may say."""

import socket
import traceback

import pytest

from pipeline.clients.openai import ask
from pipeline.core.errors import BackendError
from pipeline.core.model import Question

KEY = "s3cret\n"


def test_key_that_no_header_can_hold_is_not_in_the_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BackendError, match="does not fit into a header") as failed:
            ask(endpoint, "tiny", Question("hello"), KEY, 1)
    assert "s3cret" not in "".join(traceback.format_exception(failed.value))
