"""The HTTP face: OpenAI's routes, /health, /metrics, and those faces that are asked for. Starlette only; everything about the model is the desk's."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from runtime.transformers.asked import Asked, Rejected, parse
    from runtime.transformers.desk import Desk
    from runtime.transformers.face import Face
    from runtime.transformers.job import Finish, Job
    from runtime.transformers.key import is_allowed
    from runtime.transformers.llama2 import PATHS
else:
    from asked import Asked, Rejected, parse
    from desk import Desk
    from face import Face
    from job import Finish, Job
    from key import is_allowed
    from llama2 import PATHS

# Any in this file: JSON bodies, and ASGI's own messages

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}


@dataclass(frozen=True)
class Answer:
    """One answer in OpenAI's words: whole, or chunk by chunk."""

    name: str
    job: Job
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def _is_chat(self) -> bool:
        return self.job.asked.kind == "chat"

    def whole(self, text: str, finish: Finish) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        return self._object("chat.completion", [self._choice(said, finish.reason)]) | {
            "usage": self.usage(finish)
        }

    def chunk(self, text: str | None, reason: str | None = None, *, first: bool = False) -> dict[str, Any]:
        said: dict[str, Any] = {"text": text or ""}
        if self._is_chat:
            delta = (
                {"role": "assistant", "content": ""} if first else {} if text is None else {"content": text}
            )
            said = {"delta": delta}
        return self._object("chat.completion.chunk", [self._choice(said, reason)])

    def last(self, finish: Finish) -> dict[str, Any]:
        return self._object("chat.completion.chunk", []) | {"usage": self.usage(finish)}

    def usage(self, finish: Finish) -> dict[str, int]:
        prompt = len(self.job.tokens)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": finish.tokens,
            "total_tokens": prompt + finish.tokens,
        }

    def _choice(self, said: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason}

    def _object(self, chat_type: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind, prefix = (chat_type, "chatcmpl") if self._is_chat else ("text_completion", "cmpl")
        return {
            "id": f"{prefix}-{self.identity}",
            "object": kind,
            "created": self.created,
            "model": self.name,
            "choices": choices,
        }


class Routes:
    """The handlers of one served model."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._name = name
        self._created = int(time.time())

    async def health(self, request: Request) -> Response:
        trouble = await self._desk.trouble()
        if trouble is not None:
            return JSONResponse({"status": "failing", "reason": trouble}, 503)
        return JSONResponse({"status": "ok", "model": self._name})

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self._desk.counters.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> Response:
        self._check_name(request.path_params["name"])
        return JSONResponse(self._card())

    async def chat(self, request: Request) -> Response:
        return await self._answer(request, parse("chat", await request.body()))

    async def completion(self, request: Request) -> Response:
        return await self._answer(request, parse("completion", await request.body()))

    async def _answer(self, request: Request, asked: Asked) -> Response:
        self._check_name(asked.model)
        answer = Answer(self._name, self._desk.engine.job(asked))
        if asked.stream:
            return StreamingResponse(self._events(answer), media_type="text/event-stream")
        texts: list[str] = []
        pieces = self._desk.answer(answer.job)
        async for piece in pieces:
            if isinstance(piece, Finish):
                return JSONResponse(answer.whole("".join(texts), piece))
            texts.append(piece)
            if await request.is_disconnected():
                await pieces.aclose()
                break
        return Response(status_code=499)

    async def _events(self, answer: Answer) -> AsyncIterator[str]:
        try:
            if answer.job.asked.kind == "chat":
                yield _event(answer.chunk(None, first=True))
            async for piece in self._desk.answer(answer.job):
                if not isinstance(piece, Finish):
                    yield _event(answer.chunk(piece))
                    continue
                yield _event(answer.chunk(None, piece.reason))
                if answer.job.asked.include_usage:
                    yield _event(answer.last(piece))
        except Exception as problem:  # the status was sent already: the error is an event
            yield _event(_error(500, f"{type(problem).__name__}: {problem}"))
        yield "data: [DONE]\n\n"

    def _check_name(self, name: str | None) -> None:
        if name is not None and name != self._name:
            message = f'model "{name}" is not served here, "{self._name}" is'
            raise Rejected(404, message, "model", "model_not_found")

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._name,
            "object": "model",
            "created": self._created,
            "owned_by": "mp",
            "max_model_len": self._desk.engine.max_model_len,
        }


class Gate:
    """Counts every answer, and asks for the API key under /v1 when there is one; other faces ask for it themselves."""

    def __init__(self, app: Any, desk: Desk, api_key: str | None, paths: frozenset[str]) -> None:
        self._app = app
        self._desk = desk
        self._api_key = api_key
        self._paths = paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._desk.counters.requests[(path, message["status"])] += 1
            await send(message)

        if scope["path"].startswith("/v1") and not is_allowed(scope, self._api_key):
            refused = JSONResponse(_error(401, "the API key is missing or wrong"), 401)
            await refused(scope, receive, counted)
            return
        await self._app(scope, receive, counted)


def application(desk: Desk, name: str, api_key: str | None, faces: Sequence[str] = ()) -> Any:
    """The ASGI application; `faces` are served beside OpenAI's."""
    routes = Routes(desk, name)
    table = [
        Route("/health", routes.health),
        Route("/metrics", routes.metrics),
        Route("/v1/models", routes.models),
        Route("/v1/models/{name:path}", routes.model),
        Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        Route("/v1/completions", routes.completion, methods=["POST"]),
        *(Route(PATHS[face], Face(face, desk, api_key)) for face in faces),
    ]
    gate = Middleware(Gate, desk=desk, api_key=api_key, paths=frozenset(route.path for route in table))
    return Starlette(
        routes=table,
        middleware=[gate],
        exception_handlers={Rejected: _on_rejected, HTTPException: _on_http, Exception: _on_failure},
    )


async def _on_rejected(request: Request, problem: Rejected) -> Response:
    return JSONResponse(
        _error(problem.status, problem.message, problem.parameter, problem.code), problem.status
    )


async def _on_http(request: Request, problem: Any) -> Response:
    return JSONResponse(_error(problem.status_code, problem.detail), problem.status_code)


async def _on_failure(request: Request, problem: Exception) -> Response:
    return JSONResponse(_error(500, f"{type(problem).__name__}: {problem}"), 500)


def _error(
    status: int, message: str, parameter: str | None = None, code: str | None = None
) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
