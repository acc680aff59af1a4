"""The door to an OpenAI-shaped server: wait until it is up, and prove with one real request that it answers."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from pipeline.clients.enginelog import first_error
from pipeline.core.digest import Json
from pipeline.core.errors import BackendError, Denied, Missing, StartFailed, Unreachable
from pipeline.core.frozen import frozen
from pipeline.core.model import Question
from pipeline.core.resource import Proof

DEFAULT_QUESTION = Question("Hello")
MAX_TOKENS = 40
_HEALTH_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 120.0  # the first answer of an engine compiles
_FIRST_POLL_S, _LAST_POLL_S = 0.1, 1.0


@frozen
class Server:
    """A server that was started and what is known of it from outside."""

    system: str  # for messages: "qwen3-8b/local:laptop"
    endpoint: str  # "http://127.0.0.1:8000"
    served_name: str
    api_key: str | None
    alive: Callable[[], str | None]  # None while it runs, else how it ended: "exit code 1"
    log: Callable[[], str]


def wait_until_answering(
    server: Server, questions: Sequence[Question], timeout_s: float, on_wait: Callable[[], None]
) -> Proof:
    """Wait for /health, then ask every question (one of our own when there is none); the first one's proof.

    A healthy server may still fail every request, so /health alone proves nothing. Raises StartFailed with the first
    error of the log, or with the answer when it is not what was expected.
    """
    _wait_until_healthy(server, timeout_s, on_wait)
    asked = tuple(questions) or (DEFAULT_QUESTION,)
    try:
        proofs = [
            ask(server.endpoint, server.served_name, question, server.api_key, _ANSWER_TIMEOUT_S)
            for question in asked
        ]
    except (StartFailed, Denied, Missing):
        raise
    except BackendError as problem:
        time.sleep(_LAST_POLL_S)  # a dying engine writes its reason after it has dropped the request
        ended = server.alive()
        raise _failed(server, "it is healthy and does not answer: " + (ended or problem.message)) from problem
    return proofs[0]


def ask(endpoint: str, served_name: str, question: Question, api_key: str | None, timeout_s: float) -> Proof:
    """One real request, greedy: chat where the model has a chat template, else a plain completion.

    Raises Missing when another model is served, StartFailed when the answer is empty or lacks what it must hold,
    Denied, Unreachable, BackendError.
    """
    began = time.monotonic()
    _check_name(endpoint, served_name, api_key, timeout_s)
    path, said = _said(endpoint, served_name, question, api_key, timeout_s)
    if not said:
        raise StartFailed(endpoint, f'"{served_name}" gave an empty answer to "{question.prompt}"')
    if question.contains is not None and question.contains not in said:
        raise StartFailed(
            endpoint,
            f'"{served_name}" answered "{said.strip()}" to "{question.prompt}", without "{question.contains}"',
            "the test of the model is wrong, or its weights, chat template or arguments are",
        )
    return Proof(endpoint + path, question.prompt, said, time.monotonic() - began)


def is_healthy(endpoint: str) -> bool:
    try:
        status, _ = _request("GET", endpoint, "/health", None, None, _HEALTH_TIMEOUT_S)
    except Unreachable:
        return False
    return status == 200


def _wait_until_healthy(server: Server, timeout_s: float, on_wait: Callable[[], None]) -> None:
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_POLL_S
    while not is_healthy(server.endpoint):
        if (ended := server.alive()) is not None:
            raise _failed(server, ended)
        if time.monotonic() > deadline:
            raise _failed(server, f"it is not healthy after {timeout_s:g} s")
        on_wait()
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, _LAST_POLL_S)


def _failed(server: Server, how: str) -> StartFailed:
    log = server.log()
    cause = first_error(log) or next(
        (line.strip() for line in reversed(log.splitlines()) if line.strip()), ""
    )
    return StartFailed(server.system, f"did not start: {how}" + (f"; first error: {cause}" if cause else ""))


def _check_name(endpoint: str, served_name: str, api_key: str | None, timeout_s: float) -> None:
    listed = _json("GET", endpoint, "/v1/models", None, api_key, timeout_s).get("data")
    names = (
        [entry.get("id") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )
    if served_name not in names:
        known = ", ".join(f'"{name}"' for name in names) or "nothing"
        raise Missing(endpoint, f'"{served_name}" is not served here, but {known}', "is the port another's?")


def _said(
    endpoint: str, served_name: str, question: Question, api_key: str | None, timeout_s: float
) -> tuple[str, str]:
    """Path that was asked, and the text of the answer. Only a model without a chat template may fall back to plain text."""
    common: dict[str, Json] = {"model": served_name, "max_tokens": MAX_TOKENS, "temperature": 0}
    path = "/v1/chat/completions"
    chat: dict[str, Json] = {**common, "messages": [{"role": "user", "content": question.prompt}]}
    status, body = _request("POST", endpoint, path, chat, api_key, timeout_s)
    if status in (400, 404, 405) and not question.chat:
        path = "/v1/completions"
        status, body = _request(
            "POST", endpoint, path, {**common, "prompt": question.prompt}, api_key, timeout_s
        )
    return path, _text(_checked(endpoint, path, status, body))


def _text(answer: Mapping[str, Json]) -> str:
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    assert isinstance(choice, dict)
    message = choice.get("message")
    if isinstance(message, dict):  # a thinking model may not be done thinking after a few tokens
        spoken = message.get("content") or message.get("reasoning_content") or message.get("reasoning")
    else:
        spoken = choice.get("text")
    return spoken if isinstance(spoken, str) else ""


def _json(
    method: str, endpoint: str, path: str, body: Json, api_key: str | None, timeout_s: float
) -> dict[str, Json]:
    return _checked(endpoint, path, *_request(method, endpoint, path, body, api_key, timeout_s))


def _checked(endpoint: str, path: str, status: int, body: bytes) -> dict[str, Json]:
    if status in (401, 403):
        raise Denied(endpoint, f"{path} answers {status}", "check the model's api_key secret")
    if status != 200:
        raise BackendError(endpoint, f"{path} answers {status}: {body[:300].decode(errors='replace')}")
    try:
        answer = json.loads(body)
    except ValueError as problem:
        raise BackendError(endpoint, f"{path} answers no JSON: {body[:100]!r}") from problem
    if not isinstance(answer, dict):
        raise BackendError(endpoint, f"{path} answers no JSON object")
    return answer


def _request(
    method: str, endpoint: str, path: str, body: Json, api_key: str | None, timeout_s: float
) -> tuple[int, bytes]:
    # imported late: the http package is slow to load and most commands ask nothing
    import http.client

    url = urlsplit(endpoint)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    connection = kind(url.hostname or "127.0.0.1", url.port, timeout=timeout_s)
    try:
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, url.path.rstrip("/") + path, payload, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as problem:
        raise Unreachable(
            endpoint, f"{path} does not answer: {problem or type(problem).__name__}"
        ) from problem
    except ValueError:  # http.client repeats a header that it refuses: the key
        raise BackendError(
            endpoint,
            f"{path} cannot be asked: the key does not fit into a header",
            "set the api_key secret anew",
        ) from None
    finally:
        connection.close()
