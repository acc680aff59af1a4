"""What a model's small files say of it: bytes in, Facts out. Pure; every source uses it."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

from pipeline.core.digest import canonical
from pipeline.core.model import Facts
from pipeline.sources.safety import configs

CONFIG, TOKENIZER, TEMPLATE, CARD = "config.json", "tokenizer_config.json", "chat_template.jinja", "README.md"
ADAPTER = "adapter_config.json"  # of PEFT: what makes a folder an adapter
TELLING_BYTES = 10 << 20  # a larger file is not read for facts

_LICENSE = re.compile(r"(licen[cs]e|copying)([._-].*)?", re.IGNORECASE)
# One line of the card's YAML head, a list in brackets, or a list below: "license: mit", "license: [mit, gpl]".
_CARD_FIELD = r"^%s:[ \t]*(?:\[(?P<row>[^\]\n]*)\]|(?P<rows>(?:\r?\n[ \t]*-[ \t]+[^\n]*)+)|(?P<one>[^\n#]+))"


def license_file(paths: Collection[str]) -> str | None:
    """The licence file at the top of a model's folder."""
    return next((path for path in sorted(paths) if _LICENSE.fullmatch(path)), None)


def telling(paths: Collection[str]) -> tuple[str, ...]:
    """The small files that `facts` and `require_safe` read, when they are there."""
    named = {CONFIG, ADAPTER, TOKENIZER, TEMPLATE, CARD, license_file(paths), *configs(paths)}
    return tuple(path for path in sorted(paths) if path in named)


def facts(
    files: Mapping[str, bytes],
    license: str | None = None,
    gated: bool | None = None,
    created: str | None = None,
) -> Facts:
    """Facts from the telling files, by path. What cannot be read is not known."""
    config = _json(files.get(CONFIG))
    text = config.get("text_config")
    flat = {**config, **text} if isinstance(text, dict) else config  # models that see and hear nest theirs
    hidden_size = _number(flat, "hidden_size", "n_embd", "d_model")
    heads = _number(flat, "num_attention_heads", "n_head")
    head_dim = _number(flat, "head_dim")
    if head_dim is None and hidden_size and heads and hidden_size % heads == 0:
        head_dim = hidden_size // heads
    names = config.get("architectures")
    licence = license_file(files)
    return Facts(
        architecture=str(names[0]) if isinstance(names, list) and names else None,
        dtype=_text(flat, "dtype", "torch_dtype"),
        layers=_number(flat, "num_hidden_layers", "n_layer"),
        hidden_size=hidden_size,
        attention_heads=heads,
        kv_heads=_number(flat, "num_key_value_heads") or heads,
        head_dim=head_dim,
        vocab_size=_number(flat, "vocab_size"),
        context_tokens=_number(flat, "max_position_embeddings", "n_positions", "max_sequence_length"),
        lora_rank=_number(_json(files.get(ADAPTER)), "r"),
        chat_template_sha256=_template(files),
        license=license or _card_license(files.get(CARD)),
        license_sha256=sha256(files[licence]).hexdigest() if licence else None,
        gated=gated,
        created=moment(created),
    )


def moment(said: str | None) -> str | None:
    """A time as a source writes it, in one form: RFC 3339 in UTC, whole seconds. One without a zone is not known."""
    try:
        found = datetime.fromisoformat(said or "")
    except ValueError:
        return None
    return f"{found.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if found.tzinfo else None


def _json(content: bytes | None) -> dict[str, object]:
    try:
        document = json.loads(content or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _number(config: Mapping[str, object], *names: str) -> int | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def _text(config: Mapping[str, object], *names: str) -> str | None:
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, str)), None)


def _template(files: Mapping[str, bytes]) -> str | None:
    """The chat template's hash; a file of its own wins over the tokenizer's field, as in transformers."""
    if TEMPLATE in files:
        return sha256(files[TEMPLATE]).hexdigest()
    template = _json(files.get(TOKENIZER)).get("chat_template")
    if template is None:
        return None
    return sha256(template.encode() if isinstance(template, str) else canonical(template)).hexdigest()


def license_of(licenses: Sequence[str], name: str | None) -> str | None:
    """The licence that a card states: of a list all, and the name of one that is "other"."""
    return ", ".join(name if each == "other" and name else each for each in licenses) or None


def _card_license(card: bytes | None) -> str | None:
    text = (card or b"").decode(errors="replace")
    if not re.match(r"---\s*\n", text):
        return None
    head = text.split("\n---", 1)[0]
    names = _card_field(head, "license_name")
    return license_of(_card_field(head, "license"), names[0] if names else None)


def _card_field(head: str, name: str) -> list[str]:
    found = re.search(_CARD_FIELD % name, head, re.MULTILINE)
    if found is None:
        return []
    texts = re.split(r"[,\n]", found[found.lastgroup or 0])
    return [text for each in texts if (text := each.strip().removeprefix("-").strip(" \t\r\"'"))]
