"""Whether a request bears the API key, when there is one."""

import hmac
from typing import Any


def is_allowed(scope: Any, api_key: str | None) -> bool:  # Any: ASGI's own scope
    if api_key is None:
        return True
    given = dict(scope["headers"]).get(b"authorization", b"")
    return hmac.compare_digest(given, f"Bearer {api_key}".encode())
