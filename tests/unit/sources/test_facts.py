"""Facts from a model's small files."""

import json
from hashlib import sha256

import pytest

from pipeline.sources.facts import facts, telling

QWEN = {
    "architectures": ["Qwen3ForCausalLM"],
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}


def of(config: object) -> dict[str, bytes]:
    return {"config.json": json.dumps(config).encode()}


def test_config_is_read() -> None:
    found = facts(of(QWEN))
    assert (found.architecture, found.dtype, found.layers) == ("Qwen3ForCausalLM", "bfloat16", 36)
    assert (found.hidden_size, found.attention_heads, found.kv_heads) == (4096, 32, 8)
    assert (found.head_dim, found.vocab_size, found.context_tokens) == (128, 151936, 40960)


def test_text_part_of_a_model_that_sees_is_read() -> None:
    assert facts(of({"architectures": ["Gemma3"], "text_config": QWEN})).layers == 36


def test_old_names_and_derived_numbers() -> None:
    found = facts(of({"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024}))
    assert (found.layers, found.kv_heads, found.head_dim, found.context_tokens) == (12, 12, 64, 1024)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"num_hidden_layers": true}'])
def test_what_cannot_be_read_is_not_known(content: bytes) -> None:
    assert facts({"config.json": content}).layers is None


def test_template_file_wins_over_the_tokenizer() -> None:
    tokenizer = {"tokenizer_config.json": b'{"chat_template": "old"}'}
    assert facts(tokenizer).chat_template_sha256 == sha256(b"old").hexdigest()
    both = tokenizer | {"chat_template.jinja": b"new"}
    assert facts(both).chat_template_sha256 == sha256(b"new").hexdigest()


def test_named_templates_have_one_hash() -> None:
    templates = {"chat_template": [{"name": "default", "template": "x"}]}
    assert facts({"tokenizer_config.json": json.dumps(templates).encode()}).chat_template_sha256


def test_licence_from_the_card_and_its_file() -> None:
    files = {"README.md": b"---\ntags: [a]\nlicense: apache-2.0\n---\n# Model\n", "LICENSE.txt": b"text"}
    found = facts(files)
    assert (found.license, found.license_sha256) == ("apache-2.0", sha256(b"text").hexdigest())
    assert facts(files, license="mit").license == "mit"
    assert facts({"README.md": b"# Model\n---\nlicense: none\n---\n"}).license is None


def test_telling_files_are_few() -> None:
    paths = ["config.json", "model.safetensors", "sub/config.json", "LICENSE", "README.md", "vocab.json"]
    assert telling(paths) == ("LICENSE", "README.md", "config.json", "sub/config.json")


@pytest.mark.parametrize(
    ("head", "license"),
    [
        ('license: "mit"', "mit"),
        ("license: apache-2.0  # free", "apache-2.0"),
        ("license: [apache-2.0, mit]", "apache-2.0, mit"),
        ("license:\n- apache-2.0\n- mit\ntags: [x]", "apache-2.0, mit"),
        ("license:\r\n  - mit\r\ntags: [x]", "mit"),
        ("license: other\nlicense_name: llama3.1\nlicense_link: LICENSE", "llama3.1"),
        ("license_name: tongyi-qianwen\nlicense: other", "tongyi-qianwen"),
        ("license: other", "other"),
        ("tags: [license]", None),
        ("license:", None),
        ("license: []", None),
    ],
)
def test_licences_as_cards_write_them(head: str, license: str | None) -> None:
    card = f"---\nlanguage: en\n{head}\n---\n# Model\nlicense: gpl-3.0\n"
    assert facts({"README.md": card.encode()}).license == license
