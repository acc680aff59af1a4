"""A web server's folder: files by path, with the manners and the bad manners that web servers have. Behind tests/parts/faulty."""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.hub import Request
from tests.parts.faulty import Answer


@dataclass
class WebFolder:
    """Call it with a request. What it can do is switched on and off by its fields."""

    files: dict[str, bytes] = field(default_factory=dict)  # by path: "/models/tiny.gguf"
    moved: dict[str, str] = field(default_factory=dict)  # path → where it is now
    login: str | None = None  # "user:password" that it asks for
    ranges: bool = True
    heads: bool = True  # answers HEAD
    sized: bool = True  # tells the length
    dated: bool = True  # tells an ETag
    headers: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, request: Request, body: bytes) -> Answer:
        path = request.path.partition("?")[0]
        if request.method == "HEAD" and not self.heads:
            return Answer(405)
        if self.login and request.headers.get("authorization") != f"Basic {_base64(self.login)}":
            return Answer(401, {"WWW-Authenticate": "Basic"})
        if path in self.moved:
            return Answer(302, {"Location": self.moved[path]})
        if path not in self.files:
            return Answer(404)
        content = self.files[path]
        headers = {"Content-Type": "application/octet-stream", **self.headers}
        if self.dated:
            headers["ETag"] = f'"{hashlib.md5(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if asked is None or not self.ranges:
            return Answer(200, headers, content, self.sized)
        start = int(asked[1])
        if start >= len(content):
            return Answer(416)
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Answer(206, headers, content[start:], self.sized)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
