"""A tiny engine: speaks the OpenAI shape, answers from a file of its weights, and can fail like a real one.

It is started as an engine is: `python server.py LAUNCH.json`, or with the JSON in MP_LAUNCH. It answers with what
`answer.txt` in the model folder says. Flags: --crash TEXT, --crash-on-request, --empty, --slow SECONDS, --no-chat, --name,
--eat MEGABYTES; also as words in TINY_ARGV of the launch's environment, where a template checks its flags.
"""

import json
import os
import shlex
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LAUNCH = json.loads(Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else os.environ["MP_LAUNCH"])
ARGV = [*LAUNCH["argv"], *shlex.split(LAUNCH["env"].get("TINY_ARGV", ""))]
KEY_FILE = LAUNCH["secrets"].get("MP_API_KEY")


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {})
        elif self.path == "/v1/models" and self._allowed():
            name = ARGV[ARGV.index("--name") + 1] if "--name" in ARGV else LAUNCH["served_name"]
            self._send(200, {"object": "list", "data": [{"id": name}]})
        elif self.path == "/launch":  # what a test wants to see of the inside
            self._send(200, {"argv": ARGV, "uid": os.getuid(), "env": dict(os.environ)})
        else:
            self._send(404, {})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "--crash-on-request" in ARGV:
            print("RuntimeError: head_dim 16 is not supported", file=sys.stderr, flush=True)
            os._exit(1)
        text = "" if "--empty" in ARGV else Path(LAUNCH["model"], "answer.txt").read_text().strip()
        text = " ".join(text.split()[: request["max_tokens"]])
        if self.path == "/v1/chat/completions" and "--no-chat" not in ARGV and self._allowed():
            self._send(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})
        elif self.path == "/v1/completions" and self._allowed():
            self._send(200, {"choices": [{"text": text}]})
        else:
            self._send(400, {"error": {"message": "no chat template"}})

    def log_message(self, format: str, *args: object) -> None:
        return

    def _allowed(self) -> bool:
        if KEY_FILE is None or self.headers["Authorization"] == f"Bearer {Path(KEY_FILE).read_text()}":
            return True
        self._send(401, {"error": {"message": "no key"}})
        return False

    def _send(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


if __name__ == "__main__":
    os.environ.update(LAUNCH["env"])
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(0)
    )  # the first process of a container has no default for it
    if "--crash" in ARGV:
        print(ARGV[ARGV.index("--crash") + 1], "\nEngine core initialization failed.", file=sys.stderr)
        sys.exit(1)
    if "--slow" in ARGV:
        print("loading weights", flush=True)
        time.sleep(float(ARGV[ARGV.index("--slow") + 1]))
    if "--eat" in ARGV:  # more memory than it may have
        eaten = [bytearray(os.urandom(2**20)) for _ in range(int(ARGV[ARGV.index("--eat") + 1]))]
    print("listening", flush=True)
    ThreadingHTTPServer((LAUNCH["host"], LAUNCH["port"]), Engine).serve_forever()
