"""Pools of connections: made once, whoever asks at the same time, and certificates read only where there is TLS."""

import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.clients.oci.pools import Pools
from pipeline.core.errors import BackendError

READERS = 16


def test_readers_that_begin_together_share_one_pool_and_read_the_authorities_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    create = ssl.create_default_context

    def slowly(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(threading.get_ident())
        time.sleep(0.05)
        return create(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", slowly)
    pools = Pools("ghcr.io", {})
    with ThreadPoolExecutor(READERS) as readers:
        found = list(readers.map(lambda _: pools.pool("https://ghcr.io/v2/"), range(READERS)))
    assert len(set(map(id, found))) == 1
    assert len(made) == 1


def test_plain_http_reads_no_authorities(tmp_path: Path) -> None:
    pools = Pools("127.0.0.1:5000", {"SSL_CERT_FILE": str(tmp_path / "missing.pem")})
    pools.pool("http://127.0.0.1:5000/v2/")
    with pytest.raises(BackendError, match="SSL_CERT_FILE"):
        pools.pool("https://elsewhere.example/blob")
