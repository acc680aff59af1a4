"""docs/manifest.md, written from the schema: `python -m pipeline.manifest.reference docs/manifest.md`; a test compares."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.manifest.later import LATER
from pipeline.manifest.schema import models_schema

Node = Mapping[str, Any]  # a part of a schema is as heterogeneous as JSON

HEAD = """\
# models.yaml

Written from `schema/models.schema.json` by `python -m pipeline.manifest.reference docs/manifest.md`. The file is YAML, read strictly: every problem is shown at
once, with `file:line:column` and a hint. Names are DNS labels (lower-case letters, digits, dashes; at most 63), since they become repositories, containers and
addresses. Sizes carry their unit: `4Gi` and `4GiB` are 4 × 1024³ bytes, `4G` and `4GB` are 4 × 1000³.

The first line lets editors complete and check the file:

```yaml
# yaml-language-server: $schema=./schema/models.schema.json
version: 1
project: acme
defaults: {template: vllm, hardware: l40s, registry: main}
secrets:
  hf-token: {env: HF_TOKEN}
hardware:
  l40s: {gpu: L40S, gpus: 1, gpu_memory: 44GiB}
  cpu: {gpus: 0, cpu: 2, memory: 4Gi}
registries:
  main: {url: ghcr.io/acme/models}
  here: {layout: .mp/registry}
targets:
  laptop: {kind: local}
  box: {kind: docker, host: "ssh://gpu1", optional: true}
models:
  qwen3-8b:
    source: hf://Qwen/Qwen3-8B
    version: main
    files: {include: ["*.safetensors", "*.json"]}
    serve: {max_model_len: 32768, args: {max-num-seqs: 64}}
    env: {HF_TOKEN: {secret: hf-token}}
    test: [{prompt: "2+2=", expect: {contains: "4"}}]
    lifecycle: {protect: true}
    targets:
      box: {port: 8000, bind: 10.0.0.7, weights: baked}
  tiny:
    source: ./checkpoint
    template: transformers
    hardware: cpu
    targets:
      laptop: {}
```
"""

TRAPS = """
## What is refused

| In the file | Because |
|---|---|
| `version: 1.10`, `version: 0123456`, `1_000`, `12:30`, dates | read as numbers or dates: quote them |
| `yes`, `no`, `on`, `off` | truth values for some readers, text for others: write `true`, or quote them |
| a key twice | the last one would win silently |
| an unknown key | a misspelt key would be ignored; the nearest known one is named |
| tabs, tags (`!!str`), merge keys (`<<`), a second document | read differently, or ignored, by other tools |
| aliases that stand for more than 10,000 values | they eat memory; anchors and aliases as such are fine |
"""


def reference() -> str:
    """The whole page."""
    schema: Any = models_schema()  # JSON
    definitions: Node = schema["definitions"]
    parts = [HEAD, "\n## The file\n", *_table(schema)]
    for name in dict.fromkeys(_in_order(definitions, schema)):
        node = definitions[name]
        parts += [f"\n## {name}\n\n{node['description']}\n", *_table(node)]
    parts += [
        TRAPS,
        "\n## Not supported yet\n\nRecognised, and refused with the line.\n\n| Key | What it is |\n|---|---|\n",
    ]
    parts += [f"| `{'.'.join(one.pattern)}{_values(one.values)}` | {one.what} |\n" for one in LATER]
    return "".join(parts)


def _values(values: tuple[str, ...]) -> str:
    return ": " + ", ".join(values) if values else ""


def _table(node: Node) -> Iterator[str]:
    """One row a key."""
    if not node.get("properties"):
        yield "\nNo keys.\n"
        return
    yield "\n| Key | Value | Default | Means |\n|---|---|---|---|\n"
    for key, value in node["properties"].items():
        default = "needed" if key in node.get("required", ()) else _default(value)
        yield f"| `{key}` | {_shape(value)} | {default} | {_cell(value.get('description', ''))} |\n"


def _default(value: Node) -> str:
    default = value.get("default")
    return "" if default in (None, {}, []) or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _shape(node: Node) -> str:
    """What may stand there, in words."""
    if "$ref" in node:
        name = _name(node["$ref"])
        return "any JSON" if name == "JsonValue" else f"[{name}](#{name.lower()})"
    if "const" in node or "enum" in node:
        return " or ".join(
            f"`{json.dumps(value).strip(chr(34))}`" for value in node.get("enum") or [node["const"]]
        )
    if choices := [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        return " or ".join(_shape(choice) for choice in choices if choice.get("type") != "null") + (
            " or nothing" if _inside_map(choices) else ""
        )
    if node.get("type") == "array":
        return f"list of {_shape(node['items'])}"
    if node.get("type") == "object":
        return f"name → {_shape(node['additionalProperties'])}"
    return _scalar(node)


def _inside_map(choices: list[Node]) -> bool:
    """Several records or null: the options of a target, which may be left empty."""
    return len(choices) > 2 and {"type": "null"} in choices


def _scalar(node: Node) -> str:
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
    shape = "size" if "GiB" in str(node.get("examples")) else names.get(str(node.get("type")), "any JSON")
    low, high = node.get("minimum"), node.get("maximum")
    return f"{shape}, {low} to {high}" if low is not None and high is not None else shape


def _in_order(definitions: Node, node: object) -> Iterator[str]:
    """Names of definitions below a node, in the order in which it mentions them; some more than once."""
    if isinstance(node, list):
        for item in node:
            yield from _in_order(definitions, item)
    elif isinstance(node, dict):
        name = _name(node.get("$ref", ""))
        if name in definitions and name != "JsonValue":
            yield name
            yield from _in_order(definitions, definitions[name])
        for key, value in node.items():
            if key != "definitions":
                yield from _in_order(definitions, value)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
