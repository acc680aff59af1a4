"""One face of the server beside OpenAI's routes: a path that speaks the API of KAITO's Llama 2 images, errors included."""

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from runtime.transformers.desk import Desk
    from runtime.transformers.key import is_allowed
    from runtime.transformers.llama2 import Refused, answers, jobs_of, parse, results
else:
    from desk import Desk
    from key import is_allowed
    from llama2 import Refused, answers, jobs_of, parse, results

# Any in this file: ASGI's own messages


class Face:
    """The ASGI application behind one path."""

    def __init__(self, face: str, desk: Desk, api_key: str | None) -> None:
        self._face = face
        self._desk = desk
        self._api_key = api_key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        try:
            response: Response = JSONResponse(await self._answer(request))
        except Refused as problem:
            headers = {"Allow": "POST"} if problem.status == 405 else None
            response = JSONResponse({"detail": problem.detail}, problem.status, headers)
        except Exception as problem:  # whatever the model's code raises: told here, and then logged
            failed = JSONResponse({"detail": f"{type(problem).__name__}: {problem}"}, 500)
            await failed(scope, receive, send)
            raise
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> dict[str, Any]:
        if request.method != "POST":
            raise Refused(405, "only POST is answered here")
        if not is_allowed(request.scope, self._api_key):
            raise Refused(401, "the API key is missing or wrong")
        engine = self._desk.engine
        asked = parse(self._face, await request.body(), engine.max_model_len)
        texts = await answers(self._desk, jobs_of(engine, asked), request.is_disconnected)
        return results(asked, texts)
