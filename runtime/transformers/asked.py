"""Requests: an OpenAI-shaped JSON body, checked field by field, as a plain value. What is not understood is refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Any in this file: a body is whatever a client sent

COMPLETION_MAX_TOKENS = 16  # OpenAI's default for /v1/completions

_SHARED = frozenset(
    {"model", "max_tokens", "temperature", "top_p", "stop", "seed", "n", "stream", "stream_options", "user"}
)
FIELDS = {
    "chat": _SHARED | {"messages", "max_completion_tokens"},
    "completion": _SHARED | {"prompt"},
}
# Fields that clients send with their default value: accepted as long as they ask for nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "metadata": ({},),
}


class Rejected(Exception):
    """A request that is not served, and why; becomes an OpenAI-shaped error."""

    def __init__(
        self, status: int, message: str, parameter: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.parameter = parameter
        self.code = code


@dataclass(frozen=True)
class Asked:
    """One request."""

    kind: str  # "chat" or "completion"
    model: str | None
    messages: tuple[Mapping[str, Any], ...] = ()
    prompt: str | tuple[int, ...] = ""  # text, or token ids
    max_tokens: int | None = None  # None: as many as fit
    context: int | None = None  # tokens of prompt and answer; None: as many as the server has
    temperature: float | None = None  # None: the model's own default; 0 is greedy
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    include_usage: bool = False  # a last chunk with the token counts


def parse(kind: str, body: bytes) -> Asked:
    """The request in a body. Raises Rejected (400) for what is malformed, unknown or not supported."""
    try:
        fields = decoded(body)
    except ValueError as problem:
        raise Rejected(400, f"the body is not JSON: {problem}") from problem
    if not isinstance(fields, dict):
        raise Rejected(400, "the body is not a JSON object")
    _check_known(kind, fields)
    given = {name: value for name, value in fields.items() if value is not None}
    if given.get("n", 1) != 1:
        raise Rejected(400, "only n=1 is supported", "n")
    is_chat = kind == "chat"
    tokens = _integer(given, "max_tokens", 1)
    if is_chat:
        tokens = _integer(given, "max_completion_tokens", 1) or tokens
    return Asked(
        kind=kind,
        model=_text(given, "model"),
        messages=_messages(given) if is_chat else (),
        prompt="" if is_chat else _prompt(given),
        max_tokens=tokens if is_chat else tokens or COMPLETION_MAX_TOKENS,
        temperature=_number(given, "temperature", 0, 2),
        top_p=_number(given, "top_p", 0.000001, 1),
        stop=_stop(given),
        seed=_integer(given, "seed", -(2**63)),
        stream=_flag(given, "stream"),
        include_usage=_include_usage(given),
    )


def decoded(body: bytes) -> Any:
    """The JSON of a body, as far as it can be answered. Raises ValueError."""
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()  # half a character is JSON, but no text
    except RecursionError as problem:
        raise ValueError("it is nested too deeply") from problem
    return value


def _check_known(kind: str, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in FIELDS[kind] or value is None:
            continue
        if name not in NEUTRAL:
            raise Rejected(400, f'unknown field "{name}"', name)
        if value not in NEUTRAL[name]:
            raise Rejected(400, f'"{name}" is not supported by this server', name)


def _messages(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Rejected(400, "messages must be a list of one message or more", "messages")
    return tuple(_message(index, message) for index, message in enumerate(messages))


def _message(index: int, message: object) -> Mapping[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Rejected(400, f"messages[{index}] needs a role", "messages")
    return {**message, "content": _content(index, message.get("content"))}


def _content(index: int, content: object) -> str:
    """Text, or the texts of a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise Rejected(400, f"messages[{index}].content must be text or a list of text parts", "messages")
    return "".join(map(str, texts))


def _prompt(given: Mapping[str, Any]) -> str | tuple[int, ...]:
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return tuple(prompt)
    raise Rejected(400, "prompt must be one text or one list of token ids", "prompt")


def _stop(given: Mapping[str, Any]) -> tuple[str, ...]:
    stop = given.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) and text for text in stops):
        raise Rejected(400, "stop must be a text or a list of texts, none of them empty", "stop")
    return tuple(stops)


def _include_usage(given: Mapping[str, Any]) -> bool:
    options = given.get("stream_options", {})
    if not isinstance(options, dict) or set(options) - {"include_usage"}:
        raise Rejected(400, "stream_options knows only include_usage", "stream_options")
    return _flag(options, "include_usage")


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise Rejected(400, f"{name} must be text", name)
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise Rejected(400, f"{name} must be true or false", name)
    return value


def _integer(given: Mapping[str, Any], name: str, least: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value < 2**63:
        raise Rejected(400, f"{name} must be a whole number of at least {least}", name)
    return value


def _number(given: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not least <= value <= most:
        raise Rejected(400, f"{name} must be a number from {least:g} to {most:g}", name)
    return float(value)
