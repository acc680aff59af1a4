"""A LoRA adapter for the quickstart's checkpoint, made by hand: large enough to change every answer, equal on every machine."""

import json
import random
import struct
from pathlib import Path

RANK = 4
MODULES = ("q_proj", "v_proj")


def write_adapter(folder: Path, base: Path, strength: float = 1.0) -> None:
    """adapter_config.json and adapter_model.safetensors as PEFT writes them (peft 0.17, LoraConfig and its key names).

    `strength` scales the weights: 0 changes nothing.
    """
    config = json.loads((base / "config.json").read_text())
    hidden, head = (
        config["hidden_size"],
        config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
    )
    outputs = {"q_proj": config["num_attention_heads"] * head, "v_proj": config["num_key_value_heads"] * head}
    dice = random.Random(20261121)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for module in MODULES:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = (RANK, hidden, _numbers(dice, RANK * hidden, 1.0))
            tensors[f"{name}.lora_B.weight"] = (
                outputs[module],
                RANK,
                _numbers(dice, outputs[module] * RANK, strength),
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(_safetensors(tensors))
    (folder / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": "tiny",
                "r": RANK,
                "lora_alpha": 8,
                "lora_dropout": 0.0,
                "bias": "none",
                "target_modules": list(MODULES),
            }
        )
    )


def _numbers(dice: random.Random, count: int, scale: float) -> bytes:
    return struct.pack(f"<{count}f", *(dice.uniform(-scale, scale) for _ in range(count)))


def _safetensors(tensors: dict[str, tuple[int, int, bytes]]) -> bytes:
    """The format of safetensors 0.4: eight bytes of header length, a JSON header, the numbers."""
    header: dict[str, object] = {}
    at = 0
    for name, (rows, columns, content) in tensors.items():
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(content for _, _, content in tensors.values())
