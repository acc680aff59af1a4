"""The API of KAITO's Llama 2 images, which KAITO has given up: what a body may hold, its limits and its errors. Used by face.

Paths, fields, defaults and answers are those of KAITO's own server and documentation (presets/workspace/inference/llama2-* and
presets/workspace/models/llama2*, removed in May 2025). Where these contradict each other, docs/templates.md says what holds here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from runtime.transformers.asked import Asked, Rejected, decoded
    from runtime.transformers.desk import Desk
    from runtime.transformers.engine import Engine
    from runtime.transformers.job import Finish, Job
else:
    from asked import Asked, Rejected, decoded
    from job import Finish

# Any in this file: a body is whatever a client sent, an answer is JSON

PATHS = {"llama2-generate": "/generate", "llama2-chat": "/chat"}  # by the face's name in models.yaml
MAX_BATCH_SIZE = (
    32  # of one request: as documented; KAITO's server said 4, and its operator started it with 8
)
TEMPERATURE, TOP_P = 0.6, 0.9  # where a request says nothing, whatever the model's own defaults are
TIMEOUT_S = 180.0  # of a whole request, from its arrival to the last of its answers
LOOK_S = 1.0  # how often it is asked whether the client is still there
ROLES = ("system", "user", "assistant")

Place: TypeAlias = tuple[str | int, ...]  # in the body: ("body", "parameters", "top_p")


class Refused(Exception):
    """A request without an answer: one reason as a text, or a list of the places that are wrong."""

    def __init__(self, status: int, detail: str | Sequence[Mapping[str, Any]]) -> None:
        super().__init__(str(detail))
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Parameters:
    """How a request wants its answers; lengths are tokens."""

    max_seq_len: int | None  # of a prompt and its answer together; None: the server's context
    max_gen_len: int | None  # of an answer; None: as many as fit
    max_batch_size: int
    temperature: float  # 0 takes the likeliest token
    top_p: float


class Reader:
    """Reads a body place by place, and gathers all that is wrong with it."""

    def __init__(self) -> None:
        self.wrong: list[dict[str, Any]] = []

    def refuse(self, place: Place, message: str, kind: str = "value_error") -> None:
        self.wrong.append({"loc": list(place), "msg": message, "type": kind})

    def fields(self, place: Place, value: Any, known: Sequence[str]) -> Mapping[str, Any]:
        """The fields of an object that say something: null is the same as left out."""
        if not isinstance(value, dict):
            self.refuse(place, "must be an object")
            return {}
        for name in sorted(value.keys() - set(known)):
            self.refuse((*place, name), f"is not known here: {', '.join(known)} are", "extra_forbidden")
        return {name: given for name, given in value.items() if given is not None}

    def items(self, place: Place, given: Mapping[str, Any], name: str) -> Sequence[Any]:
        """A list that has to be there; it may be empty."""
        if name not in given:
            self.refuse((*place, name), "is missing", "missing")
            return ()
        if not isinstance(given[name], list):
            self.refuse((*place, name), "must be a list")
            return ()
        return list(given[name])

    def text(self, place: Place, value: Any) -> str:
        if not isinstance(value, str):
            self.refuse(place, "must be text")
            return ""
        return value

    def whole(self, place: Place, given: Mapping[str, Any], name: str, most: int) -> int | None:
        value = given.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            self.refuse((*place, name), f"must be a whole number from 1 to {most}")
            return None
        return value

    def number(
        self, place: Place, given: Mapping[str, Any], name: str, bounds: tuple[float, float], default: float
    ) -> float:
        value, (least, most) = given.get(name, default), bounds
        if type(value) not in (int, float) or not least <= value <= most:
            self.refuse((*place, name), f"must be a number from {least:g} to {most:g}")
            return default
        return float(value)


def parse(face: str, body: bytes, context: int) -> tuple[Asked, ...]:
    """What is asked, one of each prompt; `context` is the server's, in tokens.

    Raises Refused: 422 with every place of the body that is wrong, 400 for no prompt or too many.
    """
    reader, decoded = Reader(), _decoded(body)
    is_chat = face == "llama2-chat"
    given = reader.fields(("body",), decoded, ("input_data" if is_chat else "prompts", "parameters"))
    asked = _dialogs(reader, given) if is_chat else _prompts(reader, given)
    said = _parameters(reader, given, context)
    if reader.wrong:
        raise Refused(422, reader.wrong)
    if not 1 <= len(asked) <= said.max_batch_size:
        raise Refused(400, f"{len(asked)} prompts: 1 to {said.max_batch_size} are answered at once")
    return tuple(_asked(one, said) for one in asked)


def jobs_of(engine: "Engine", asked: Sequence[Asked]) -> tuple["Job", ...]:
    """The answers to make. Raises Refused (400) with every prompt that the model cannot take."""
    jobs: list[Job] = []
    wrong: list[str] = []
    for number, one in enumerate(asked, 1):
        try:
            jobs.append(engine.job(one))
        except Rejected as problem:
            wrong.append(f"prompt {number}: {problem.message}")
    if wrong:
        raise Refused(400, "; ".join(wrong))
    return tuple(jobs)


async def answers(
    desk: "Desk", jobs: Sequence["Job"], is_gone: Callable[[], Awaitable[bool]], timeout_s: float = TIMEOUT_S
) -> list[str]:
    """One text for each job, one job after the other. Raises Refused: 408 after the time, 499 when the client has left."""
    work = asyncio.ensure_future(_texts(desk, jobs))
    ends = time.monotonic() + timeout_s
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=min(LOOK_S, max(ends - time.monotonic(), 0)))
            if not work.done():
                await _check(is_gone, ends, timeout_s)
        return work.result()
    finally:
        work.cancel()


def results(asked: Sequence[Asked], texts: Sequence[str]) -> dict[str, Any]:
    """The body of an answer: a pair for each prompt, and each dialog with what was answered."""
    return {"results": [_result(one, text) for one, text in zip(asked, texts, strict=True)]}


def _result(asked: Asked, text: str) -> Any:
    if asked.kind == "completion":
        return {"prompt": asked.prompt, "response": text}
    turns = [*asked.messages, {"role": "assistant", "content": text}]
    return [{"role": str(turn["role"]).capitalize(), "content": turn["content"]} for turn in turns]


async def _check(is_gone: Callable[[], Awaitable[bool]], ends: float, timeout_s: float) -> None:
    if time.monotonic() >= ends:
        raise Refused(408, f"not answered within {timeout_s:g} s: ask for less at once")
    if await is_gone():
        raise Refused(499, "the client has left")


async def _texts(desk: "Desk", jobs: Sequence["Job"]) -> list[str]:
    return [await _text(desk, job) for job in jobs]


async def _text(desk: "Desk", job: "Job") -> str:
    async with aclosing(desk.answer(job)) as pieces:
        return "".join([piece async for piece in pieces if not isinstance(piece, Finish)])


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        value = decoded(body)
    except ValueError as problem:
        wrong = {"loc": ["body"], "msg": f"is not JSON: {problem}", "type": "json_invalid"}
        raise Refused(422, [wrong]) from problem
    if not isinstance(value, dict):
        raise Refused(422, [{"loc": ["body"], "msg": "must be an object", "type": "value_error"}])
    return value


def _prompts(reader: Reader, given: Mapping[str, Any]) -> list[str]:
    prompts = reader.items(("body",), given, "prompts")
    return [reader.text(("body", "prompts", index), prompt) for index, prompt in enumerate(prompts)]


def _dialogs(reader: Reader, given: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], ...]]:
    if "input_data" not in given:
        reader.refuse(("body", "input_data"), "is missing", "missing")
        return []
    inside: Place = ("body", "input_data")
    fields = reader.fields(inside, given["input_data"], ("input_string",))
    dialogs = reader.items(inside, fields, "input_string") if isinstance(given["input_data"], dict) else ()
    return [_turns(reader, (*inside, "input_string", index), dialog) for index, dialog in enumerate(dialogs)]


def _turns(reader: Reader, place: Place, dialog: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(dialog, list) or not dialog:
        reader.refuse(place, "must be a list of one message or more")
        return ()
    return tuple(_turn(reader, (*place, index), turn) for index, turn in enumerate(dialog))


def _turn(reader: Reader, place: Place, turn: Any) -> Mapping[str, Any]:
    fields = reader.fields(place, turn, ("role", "content"))
    if isinstance(turn, dict) and fields.get("role") not in ROLES:
        reader.refuse((*place, "role"), f"must be one of {', '.join(ROLES)}")
    if isinstance(turn, dict):
        reader.text((*place, "content"), fields.get("content"))
    return fields


def _parameters(reader: Reader, given: Mapping[str, Any], context: int) -> Parameters:
    place: Place = ("body", "parameters")
    fields = reader.fields(place, given.get("parameters", {}), tuple(Parameters.__annotations__))
    return Parameters(
        max_seq_len=reader.whole(place, fields, "max_seq_len", context),
        max_gen_len=reader.whole(place, fields, "max_gen_len", context),
        max_batch_size=reader.whole(place, fields, "max_batch_size", MAX_BATCH_SIZE) or MAX_BATCH_SIZE,
        temperature=reader.number(place, fields, "temperature", (0, 2), TEMPERATURE),
        top_p=reader.number(place, fields, "top_p", (0.000001, 1), TOP_P),
    )


def _asked(prompt: str | tuple[Mapping[str, Any], ...], said: Parameters) -> Asked:
    is_text = isinstance(prompt, str)
    return Asked(
        kind="completion" if is_text else "chat",
        model=None,
        prompt=prompt if isinstance(prompt, str) else "",
        messages=() if isinstance(prompt, str) else prompt,
        max_tokens=said.max_gen_len,
        context=said.max_seq_len,
        temperature=said.temperature,
        top_p=said.top_p,
    )
