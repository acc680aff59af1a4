"""The model itself: loaded once, asked by one thread at a time. Everything here blocks; routes runs it in a worker."""

import json
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

if TYPE_CHECKING:
    from runtime.transformers.asked import Asked, Rejected
    from runtime.transformers.job import Finish, Job
    from runtime.transformers.pieces import Pieces
else:
    from asked import Asked, Rejected
    from job import Finish, Job
    from pieces import Pieces

TemplateError: type[Exception] = import_module("jinja2").TemplateError  # untyped where this is checked


class Engine:
    """One causal language model with its tokenizer."""

    # Any: torch and transformers are not typed for us
    def __init__(self, model: Any, tokenizer: Any, max_model_len: int, sampling: dict[str, Any]) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._sampling = sampling  # the model's own defaults, of generation_config.json
        self.max_model_len = max_model_len
        self.stopping = threading.Event()  # ends what is being generated

    def job(self, asked: Asked) -> Job:
        """Tokenize and check the length. Raises Rejected (400)."""
        tokens = self._chat_tokens(asked) if asked.kind == "chat" else self._prompt_tokens(asked)
        context = asked.context or self.max_model_len
        room = context - len(tokens)
        wanted = asked.max_tokens or room
        if not tokens:
            raise Rejected(400, "the prompt is empty", "prompt")
        if wanted > room or room < 1:
            raise Rejected(
                400,
                f"the context is {context} tokens: {len(tokens)} of the prompt and {max(wanted, 1)} of the "
                "answer are more",
                "messages" if asked.kind == "chat" else "prompt",
                "context_length_exceeded",
            )
        return Job(tokens, wanted, asked)

    def generate(self, job: Job, on_text: Callable[[str], None], on_token: Callable[[], None]) -> Finish:
        """Make the answer; text is handed over as soon as it is certain."""
        pieces = Pieces(self._text, job.asked.stop)
        made: list[int] = []

        def take(token: int) -> bool:
            made.append(token)
            on_token()
            if (text := pieces.feed(token)) and not job.cancelled.is_set():
                on_text(text)
            return pieces.stopped or job.cancelled.is_set() or self.stopping.is_set()

        inputs = torch.tensor([job.tokens], device=self._model.device)
        with torch.inference_mode():
            self._model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                max_new_tokens=job.max_tokens,
                stopping_criteria=[_EachToken(take)],
                **self._choice(job.asked),
            )
        if rest := pieces.finish():
            on_text(rest)
        whole = pieces.stopped or (bool(made) and made[-1] in self._ends())
        return Finish("stop" if whole else "length", len(made))

    def probe(self) -> None:
        """One real forward pass of one token; raises when the model does not answer."""
        token = torch.tensor([[0]], device=self._model.device)
        with torch.inference_mode():
            scores = self._model(input_ids=token, use_cache=False).logits
        if not bool(torch.isfinite(scores).all()):
            raise RuntimeError("the model answers with scores that are no numbers")

    def _chat_tokens(self, asked: Asked) -> tuple[int, ...]:
        if not self._tokenizer.chat_template:
            raise Rejected(400, "this model has no chat template: use /v1/completions", "messages")
        try:
            tokens = self._tokenizer.apply_chat_template(
                [dict(message) for message in asked.messages], add_generation_prompt=True, return_dict=False
            )
        except TemplateError as problem:
            raise Rejected(
                400, f"the chat template refuses these messages: {problem}", "messages"
            ) from problem
        return tuple(tokens)

    def _prompt_tokens(self, asked: Asked) -> tuple[int, ...]:
        if isinstance(asked.prompt, str):
            return tuple(self._tokenizer(asked.prompt)["input_ids"])
        if wrong := [token for token in asked.prompt if not 0 <= token < self._model.config.vocab_size]:
            raise Rejected(400, f"token {wrong[0]} is not in the vocabulary", "prompt")
        return asked.prompt

    def _choice(self, asked: Asked) -> dict[str, Any]:
        """How the next token is chosen; what the request leaves open is the model's own default, then OpenAI's."""
        temperature = _first(asked.temperature, self._sampling.get("temperature"), 1.0)
        if temperature == 0:
            return {"do_sample": False}
        torch.manual_seed(asked.seed) if asked.seed is not None else torch.seed()
        return {
            "do_sample": True,
            "temperature": temperature,
            "top_p": _first(asked.top_p, self._sampling.get("top_p"), 1.0),
            "top_k": _first(self._sampling.get("top_k"), 0),
        }

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _ends(self) -> frozenset[int]:
        ends = self._model.generation_config.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [ends])


def load(folder: Path, *, dtype: str, device: str, max_model_len: int | None) -> Engine:
    """Load safetensors weights; no code of the model is run, nothing is downloaded."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    context = _context(config.get_text_config(), max_model_len)  # before the weights, which may take minutes
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, device_map=_places(device)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    sampling = folder / "generation_config.json"
    return Engine(model, tokenizer, context, json.loads(sampling.read_text()) if sampling.is_file() else {})


def _places(device: str) -> str | dict[str, str] | None:
    """Where the layers go: one device, or all GPUs that are visible (accelerate spreads them)."""
    if device == "cpu":
        return None  # needs no accelerate
    return "auto" if torch.cuda.device_count() > 1 else {"": device}


def _context(config: Any, wanted: int | None) -> int:
    largest: int | None = getattr(config, "max_position_embeddings", None)
    if wanted is not None and largest is not None and wanted > largest:
        raise SystemExit(
            f"mp: max-model-len {wanted} is more than the {largest} tokens of the model's context"
        )
    if (context := wanted or largest) is None:
        raise SystemExit("mp: the model does not say how long its context is: set serve.max_model_len")
    return context


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


class _EachToken:
    """A stopping criterion: generate() asks it after each token, before a streamer would see the token."""

    def __init__(self, take: Callable[[int], bool]) -> None:
        self._take = take

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        ended = self._take(int(tokens[0, -1]))
        return torch.full((tokens.shape[0],), ended, device=tokens.device, dtype=torch.bool)
