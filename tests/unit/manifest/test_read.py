"""What the reader makes of models.yaml: values with their places, or everything that is wrong at once."""

import os
import random
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.diagnostic import Severity
from pipeline.manifest.read import Document, read
from pipeline.targets.docker.spec import DockerOptions
from pipeline.targets.local.spec import LocalOptions

HEAD = """\
version: 1
project: acme
defaults: {template: transformers, hardware: cpu}
secrets: {token: {env: TOKEN}}
hardware: {cpu: {gpus: 0, cpu: 2, memory: 4Gi}}
targets: {laptop: {kind: local}, box: {kind: docker}, out: {kind: registry}}
"""
CALLS_OF_A_MODEL = (
    1600  # 1,369 when this was written: a rule that looks at every pair of models shows at once
)
MODEL = HEAD + "models:\n  m:\n    source: ./checkpoint\n    targets: {laptop: {}}\n"


def document(folder: Path, text: str | bytes) -> Document:
    path = folder / "models.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(path)


def lines(found: Document) -> list[str]:
    """Every diagnostic as "line:column summary | hint"."""
    return [
        f"{d.where.line}:{d.where.column} {d.summary} | {d.hint or ''}" if d.where else d.summary
        for d in found.diagnostics
    ]


def test_whole_manifest_becomes_records(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    text = f"""{HEAD}
registries: {{main: {{url: ghcr.io/acme/models}}}}
engines: {{vllm: {{version: "0.32.0", base: "registry.local/base@sha256:{"a" * 64}"}}}}
models:
  qwen3-8b:
    source: hf://Qwen/Qwen3-8B
    version: main
    files: {{include: ["*.safetensors"], exclude: ["original/*"]}}
    serve: {{max_model_len: 32768, args: {{dtype: float16}}, api_key: {{secret: token}}}}
    chat: {{template: chat.jinja}}
    env: {{HF_TOKEN: {{secret: token}}, MODE: fast}}
    test: [{{prompt: "2+2=", expect: {{contains: "4"}}}}]
    lifecycle: {{protect: true, on_remove: forget}}
    targets:
      laptop:
      box: {{port: 8000, weights: baked}}
"""
    found = document(tmp_path, text)
    assert lines(found) == []
    assert found.manifest is not None
    model = found.manifest.models["qwen3-8b"]
    assert model.files.include == ("*.safetensors",)
    assert model.serve.args == {"dtype": "float16"}
    assert model.targets["laptop"] == LocalOptions()
    assert isinstance(model.targets["box"], DockerOptions)
    assert model.targets["box"].port == 8000
    assert found.manifest.hardware["cpu"].memory_bytes == 4 * 2**30
    assert found.where("models", "qwen3-8b", "test", 0).line == 18
    assert str(found.where("models", "qwen3-8b", "serve", "args")) == "models.yaml:15:35"


def test_eight_mistakes_are_shown_at_once_each_at_its_place(tmp_path: Path) -> None:
    text = """\
version: 1
project: acme
polcy: {}
defaults: {template: vllm, hardware: l40}
hardware:
  l40s: {gpu: L40S, gpus: 99, gpu_memory: 44GiB}
  l40s: {gpu: L40S, gpus: 1, gpu_memory: 44}
targets:
  box: {kind: docker}
  prod: {kind: replicate}
models:
  qwen:
    source: hf://Qwen/Qwen3-8B
    version: 1.10
    serve: {max_len: 32768}
    lifecycle: {protect: yes}
    targets: {bocks: {}}
"""
    assert lines(document(tmp_path, text)) == [
        '3:1 unknown key "polcy" | did you mean "policy"?',
        '4:38 defaults: hardware class "l40" is not known | did you mean "l40s"?',
        "6:27 hardware.l40s.gpus must be at most 16 | ",
        '7:3 key "l40s" is already on line 6 | keep one of the two',
        '10:16 targets.prod: "kind: replicate" (a kind of target) is not supported yet | remove it',
        '14:14 qwen: version must be text; 1.10 is read as 1.1 | quote it: "1.10"',
        '15:13 qwen: serve: unknown key "max_len" | did you mean "max_model_len"?',
        '16:26 yes is read as true or as text | write true, or quote it: "yes"',
        '17:15 qwen: targets: target "bocks" is not known | known: box, prod',
    ]


BROKEN = [  # text, what must be said
    ("", "1:1 the file is empty | mp init writes a first one"),
    ("# nothing\n", "1:1 the file is empty | mp init writes a first one"),
    ("- a\n", "1:1 the file must be a mapping: lines of key: value | "),
    ("word", "1:1 the file must be a mapping: lines of key: value | "),
    (b"a: \xff\n", "1:4 byte 0xff is not UTF-8 | save the file as UTF-8"),
    ("a: \x07\n", "1:4 control character U+0007 is not allowed | remove it"),
    (MODEL + "---\nversion: 1\n", "11:1 a second document begins here | keep one document in a file"),
    ("a: [1, 2\nb: 3\n", "1:4 this list has no closing ] | close it, or put a comma between the items"),
    ("a: {b: 1\n", "1:4 this mapping has no closing } | close it, or put a comma between the pairs"),
    ("a: 'x\n", "1:4 this quoted text has no closing quote | close the quote"),
    ("a:\n  b: 1\n c: 2\n", "3:2 wrong indentation | indent the keys of one mapping alike"),
    (MODEL.replace("project: acme", "project:\tacme"), "2:9 a tab; YAML is indented with spaces | "),
    (MODEL + "    test: &x [*x]\n", "11:15 alias *x refers to itself | "),
    (MODEL + "    env: {A: *x}\n", "11:14 alias *x has no anchor before it | "),
    (MODEL + "    env: {A: !!str 1}\n", "11:14 tag tag:yaml.org,2002:str is not supported | "),
    (MODEL + "    env: {<<: x}\n", "11:11 merge keys (<<) are not supported | "),
    (MODEL + "? [a]\n: b\n", "11:3 a key must be text | "),
    (MODEL + "1: b\n", '11:1 key 1 must be text | quote it: "1"'),
    ("[" * 100, "1:33 nested deeper than 32 levels | "),
    (MODEL.replace("version: 1", "version: 2"), "1:10 version must be 1, not 2 | "),
    (MODEL.replace("version: 1\n", ""), '1:1 "version" is missing | add "version:"'),
    (MODEL.replace("project: acme", "project: Acme"), "2:10 project must be lower-case letters, digits "),
    (MODEL.replace("acme", "a" * 64), "2:10 project must have at most 63 characters | "),
    (MODEL.replace("  m:", "  M_1:"), "8:3 M_1 must be lower-case letters, digits and dashes | "),
    (MODEL.replace("4Gi", "4"), "5:43 hardware.cpu.memory needs a unit, 4 has none | write its unit"),
    (MODEL.replace("4Gi", '"4"'), '5:43 hardware.cpu.memory needs a unit, 4 has none | write its unit: "4GiB" or "4MiB"'),
    (MODEL.replace("gpus: 0", "gpu: A, gpus: 1, gpu_memory: 44"), "hardware.cpu.gpu_memory needs a unit, 44 has none | write its unit"),
    (MODEL.replace("4Gi", "2000PB"), "5:43 hardware.cpu.memory is more than 1 EiB | write a number and a unit"),
    (MODEL.replace("4Gi", "9" * 400 + "B"), "5:43 hardware.cpu.memory is more than 1 EiB | write a number and a unit"),
    (MODEL.replace("laptop: {}", "box: {memory: 2000PB}"), "10:29 m: targets.box.memory is more than 1 EiB | write a smaller"),
    (MODEL.replace("laptop: {}", "box: {memory: 512}"), "10:29 m: targets.box.memory needs a unit, 512 has none | write its unit"),
    (MODEL.replace("version: 1", "version: true"), "1:10 version must be 1, not true | write version: 1"),
    (MODEL.replace("version: 1", "version: 1.0"), "1:10 version must be 1, not 1.0 | write version: 1"),
    (MODEL.replace("4Gi", "4Gx"), "5:43 hardware.cpu.memory is not a size | write a number and a unit"),
    (
        MODEL.replace("laptop: {}", 'box: {memory: "512"}'),
        "10:29 m: targets.box.memory needs a unit, 512 has none | write its unit",
    ),
    (MODEL.replace("gpus: 0", 'gpus: "0"'), "5:24 hardware.cpu.gpus must be a whole number, not text | write 0"),
    (MODEL.replace("gpus: 0", "gpus: 0.5"), "5:24 hardware.cpu.gpus must be a whole number | "),
    (MODEL.replace("gpus: 0", "gpus: true"), "5:24 hardware.cpu.gpus must be a whole number | "),
    (MODEL.replace("gpus: 0", "gpus: -1"), "5:24 hardware.cpu.gpus must be at least 0 | "),
    (MODEL.replace("gpus: 0", "gpus: 1"), '5:17 hardware.cpu: "gpu" is missing | name the product'),
    (MODEL.replace("gpus: 0", "gpu: A, gpus: 0"), "5:17 hardware.cpu: gpus is 0, but a GPU is described | "),
    (MODEL.replace("{kind: docker}", "{kind: dokcer}"), 'box.kind must be local or docker or kubernetes or kaito or registry, not "dokcer"'),
    (MODEL.replace("{kind: docker}", "{}"), '6:34 targets.box: "kind" is missing | '),
    (MODEL.replace("{kind: docker}", "{kind: docker, hst: x}"), 'targets.box: unknown key "hst" | did you mean "host"?'),
    (MODEL.replace("{kind: docker}", "{kind: docker, host: gpu1}"), 'targets.box.host "gpu1" is not of the right form'),
    (MODEL + "registries: {a: {}}\n", '11:17 registries.a: needs either "url" or "layout" | '),
    (MODEL + 'registries: {a: {url: "https://x"}}\n', "11:23 registries.a.url must be host and prefix in lower case"),
    (MODEL + "registries: {a: {url: x}, b: {url: y}}\n", "11:1 which of 2 registries does target laptop use? | add defaults: {registry: a}"),
    (MODEL.replace("./checkpoint", "Qwen3"), '9:13 m: reference "Qwen3" is neither org/name, nor host/name, nor a path | write hf://org/Qwen3, or ./Qwen3'),
    (MODEL.replace("./checkpoint", "s3://B/k"), '9:13 m: reference "s3://B/k" asks for "B", which no bucket is called | '),
    (MODEL.replace("./checkpoint", "https://acme.org/m.gguf\n    version: v1"), '10:5 m: https:// has no versions | write version: "sha256:<64 hex>" of the file, or remove it'),
    (MODEL.replace("./checkpoint", "Qwen/Qwen3"), '9:13 m: "version" is missing | add version: main'),
    (MODEL.replace("./checkpoint", "hf://a/b:v1\n    version: v2"), '10:5 m: the source says "v1", its version says "v2" | keep one of the two'),
    (MODEL + "    tokenizer: {source: a/b}\n", '11:25 m: tokenizer: "version" is missing | add version: main'),
    (MODEL + "    config: {source: ./x, version: v1}\n", "11:27 m: config: a folder has no version | remove it"),
    (MODEL.replace("template: transformers", "template: vllm") + "    adapters: {fr: {source: ab}}\n", '11:29 m: adapters.fr: reference "ab" is neither org/name'),
    (MODEL + "aliases: {q: gpt2}\n", '11:14 alias "q": reference "gpt2" is neither org/name'),
    (MODEL + "aliases: {q: a/b, r: q}\n", '11:22 alias "r" stands for "q", which is an alias itself | write what "q" stands for'),
    (MODEL.replace("./checkpoint", "q") + "aliases: {q: gpt2}\n", '11:14 alias "q": reference "gpt2"'),
    (MODEL.replace("./checkpoint", "quen") + "aliases: {qwen: a/b}\n", '9:13 m: reference "quen" is neither org/name, nor host/name, nor a path, nor an alias | did you mean "qwen"?'),
    (MODEL.replace("./checkpoint", "qwen") + "aliases: {qwen: a/b}\n", '9:13 m: "version" is missing | '),
    (MODEL + "aliases: {q: 3}\n", "11:14 aliases.q must be text"),
    (MODEL.replace("./checkpoint", "hf://a/b"), '9:13 m: "version" is missing | add version: main'),
    (MODEL + "    version: main\n", "11:5 m: a folder has no version | remove it: its content is the version"),
    (MODEL.replace("    source: ./checkpoint\n", ""), '8:3 m: "source" is missing | add "source:"'),
    (MODEL.replace("source:", "sorce:"), '9:5 m: unknown key "sorce" | did you mean "source"?'),
    (MODEL.replace("template: transformers, ", ""), "8:3 m: no template | add template: transformers or vllm"),
    (MODEL.replace("transformers", "transformer"), 'template "transformer" is not known | did you mean "transformers"?'),
    (MODEL.replace("{laptop: {}}", "{}"), "8:3 m: no target, nothing is done for it | "),
    (MODEL.replace("{laptop: {}}", "[laptop]"), "10:14 m: targets must be a mapping: lines of key: value | "),
    (MODEL.replace("{laptop: {}}", "{laptop: 3}"), "10:23 m: targets.laptop must be a mapping: lines of key: value | "),
    (MODEL.replace("{laptop: {}}", "{lap: {}}"), '10:15 m: targets: target "lap" is not known | did you mean "laptop"?'),
    (MODEL.replace("{laptop: {}}", "{laptop: {weights: baked}}"), 'm: targets.laptop.weights must be mount, not "baked"'),
    (MODEL.replace("{kind: docker}", '{kind: docker, rollout: {waves: [1, "x%"]}}'), '.rollout.waves[1] is no size of a wave | write a number from 1 on'),
    (MODEL.replace("{kind: docker}", "{kind: docker, rollout: {waves: []}}"), "targets.box.rollout.waves must not be empty | "),
    (
        MODEL.replace("laptop: {kind: local}", "laptop: {kind: kubernetes, namespace: m}").replace("{laptop: {}}", "{laptop: {claim: {size: 2Gi}}}")
        + "registries: {a: {url: ghcr.io/acme}}\n",
        "10:24 m: claim: says where weights are, and weights: is baked | weights: pvc takes",
    ),
    (MODEL.replace("{laptop: {}}", "{box: {memry: 1}}"), '10:21 m: targets.box: unknown key "memry" | did you mean "memory"?'),
    (MODEL.replace("laptop: {kind: local}", "laptop: {kind: kaito, namespace: m}").replace("{laptop: {}}", "{laptop: {weights: pvc}}"), '10:24 m: targets.laptop: unknown key "weights" | known: adapters, annotations, image,'),
    (MODEL.replace("{laptop: {}}", '{laptop: {port: "1"}}'), "m: targets.laptop.port must be a whole number, not text | write 1"),
    (MODEL + "    hardware: gpu\n", '11:15 m: hardware class "gpu" is not known | did you mean "cpu"?'),
    (MODEL + "    chat: {template: a.jinja}\n", '11:22 m: chat template "a.jinja" is not there | '),
    (MODEL + '    chat: {template: "a\\0b"}\n', "m: chat template"),
    (MODEL + "    env: {A: 1}\n", '11:14 m: env.A must be text; 1 is a number | quote it: "1"'),
    (MODEL + "    env: {A: {secret: tokn}}\n", '11:23 m: env.A: secret "tokn" is not known | did you mean "token"?'),
    (MODEL + "    env: {A-B: x}\n", "11:11 m: env.A-B must be the name of an environment variable | "),
    (MODEL + "    serve: {args: {--x: 1}}\n", "m: serve.args.--x must be an engine's flag without leading dashes | "),
    (MODEL + "    serve: {args: {host: x}}\n", '11:20 m: serve.args: "host" is written by mp | it comes from'),
    (MODEL + "    template: vllm\n    serve: {args: {max-num-seq: 1}}\n", '12:20 m: serve.args: vllm has no flag "max-num-seq" | did you mean "max-num-seqs"?'),
    (MODEL + "    serve: {args: {faces: x}}\n", '11:20 m: serve.args: "faces" is written by mp | it comes from serve.faces'),
    (MODEL + "    serve: {faces: [llama2-generat]}\n", '11:21 m: serve.faces[0] must be llama2-generate or llama2-chat, not "llama2-generat" | did you mean "llama2-generate"?'),
    (MODEL + "    serve: {faces: llama2-generate}\n", "11:20 m: serve.faces must be a list | "),
    (MODEL + "    template: vllm\n    serve: {faces: [llama2-generate]}\n", '12:21 m: serve.faces: template "vllm" does not serve "llama2-generate" | write template: transformers, or leave the face out'),
    (MODEL + "    serve: {quantization: null}\n", '"quantization" (quantized weights) is not supported yet'),
    (MODEL + "    test: {prompt: x}\n", "11:11 m: test must be a list | "),
    (MODEL + "    test: [{promt: x}]\n", '11:13 m: test[0]: unknown key "promt" | did you mean "prompt"?'),
    (MODEL + '    test: [{prompt: ""}]\n', "11:21 m: test[0].prompt must not be empty | "),
    (MODEL + "    lifecycle: {protect: 1}\n", "11:26 m: lifecycle.protect must be true or false | "),
    (MODEL + "    lifecycle: {on_remove: keep}\n", 'm: lifecycle.on_remove must be delete or forget, not "keep"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=[said for _, said in BROKEN])
def test_mistake_is_named_with_its_place_and_a_hint(tmp_path: Path, text: str | bytes, said: str) -> None:
    found = lines(document(tmp_path, text))
    assert len(found) == 1, found
    assert said in found[0]


WORDS = [  # an unquoted version, what is said of it
    ("1.10", "1.10 is read as 1.1"),
    ("42", "42 is a number"),
    ("0123456", "0123456 is read as an octal number or as text"),
    ("1_000", "1_000 is read as a number or as text"),
    ("0x1F", "0x1F is read as a number or as text"),
    ("12:30", "12:30 is read as a number in base 60 or as text"),
    ("2026-11-21", "2026-11-21 is read as a date or as text"),
    ("12e5678", "12e5678 is read as a number that is not finite or as text"),
    ("1e5", "1e5 is read as 100000.0"),
    (".inf", ".inf is read as a number that is not finite or as text"),
    ("12345678901234567890", "12345678901234567890 is read as a number or as text"),
    ("yes", "yes is read as true or as text"),
    ("Off", "Off is read as false or as text"),
    ("true", "true is a truth value"),
]


@pytest.mark.parametrize(("word", "said"), WORDS)
def test_word_that_is_no_text_must_be_quoted(tmp_path: Path, word: str, said: str) -> None:
    text = MODEL.replace("./checkpoint", f"hf://a/b\n    version: {word}")
    (found,) = lines(document(tmp_path, text))
    assert said in found
    assert f'quote it: "{word}"' in found
    assert lines(document(tmp_path, text.replace(f": {word}", f': "{word}"'))) == []


@pytest.mark.parametrize(
    "word", ["main", "v1.0.0", "4e1a6b0", "1.2.3", "yesterday", "on-call", "n", "-x", "+"]
)
def test_plain_words_are_text(tmp_path: Path, word: str) -> None:
    text = MODEL.replace("./checkpoint", f"hf://a/b\n    version: {word}")
    found = document(tmp_path, text)
    assert lines(found) == []
    assert found.manifest is not None
    assert found.manifest.models["m"].version == word


def test_two_models_cannot_have_one_port_of_a_machine(tmp_path: Path) -> None:
    text = HEAD + (
        "models:\n"
        "  a: {source: ./a, targets: {laptop: {port: 8000}}}\n"
        "  b: {source: ./b, targets: {box: {port: 8000, name: x}}}\n"
        "  c: {source: ./c, targets: {box: {port: 8001, name: x}}}\n"
    )
    assert lines(document(tmp_path, text)) == [
        "9:42 b: port 8000 at box is taken by a on line 8 | choose another, or leave it out: a free one is chosen",
        "10:54 c: name x at box is taken by b on line 9 | choose another",
    ]


def test_one_port_on_two_machines_is_fine(tmp_path: Path) -> None:
    text = HEAD.replace("{kind: docker}", '{kind: docker, host: "ssh://gpu1"}') + (
        "models:\n"
        "  a: {source: ./a, targets: {laptop: {port: 8000}}}\n"
        "  b: {source: ./b, targets: {box: {port: 8000, bind: 10.0.0.7, weights: baked}}}\n"
        "registries: {main: {url: ghcr.io/acme}}\n"
    )
    assert lines(document(tmp_path, text)) == []


def test_sections_with_only_comments_are_empty(tmp_path: Path) -> None:
    text = MODEL + "    env:\n      # A: b\nregistries:\n  # main: {url: x}\nengines:\n"
    assert lines(document(tmp_path, text)) == []


def test_aliases_stand_for_their_anchor_and_problems_are_shown_there(tmp_path: Path) -> None:
    text = HEAD + (
        "models:\n"
        "  a:\n    source: ./a\n    serve: &serve {max_len: 5}\n    targets: {laptop: {}}\n"
        "  b:\n    source: ./b\n    serve: *serve\n    targets: {laptop: {}}\n"
    )
    assert [line.partition(" |")[0] for line in lines(document(tmp_path, text))] == [
        '10:20 a: serve: unknown key "max_len"',
        '10:20 b: serve: unknown key "max_len"',
    ]
    good = document(tmp_path, text.replace("max_len", "max_model_len")).manifest
    assert good is not None
    assert good.models["a"].serve == good.models["b"].serve


def test_alias_bomb_is_refused_without_being_unfolded(tmp_path: Path) -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    began = time.process_time()
    (found,) = lines(document(tmp_path, "\n".join(layers)))
    assert "aliases stand for more than 10,000 values" in found
    assert time.process_time() - began < 1


def test_missing_file_and_folder_are_diagnostics(tmp_path: Path) -> None:
    assert [d.summary for d in read(tmp_path / "models.yaml").diagnostics] == ["models.yaml is not there"]
    assert "cannot be read" in read(tmp_path).diagnostics[0].summary


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "models.yaml")

    assert [d.summary for d in read(tmp_path / "models.yaml").diagnostics] == [
        "models.yaml cannot be read: it is no regular file"
    ]


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    found = document(tmp_path, b"\xef\xbb\xbf" + MODEL.replace("\n", "\r\n").encode())
    assert lines(found) == []
    assert found.where("models", "m", "source").line == 9


def test_tabs_in_indentation_hide_nothing_else(tmp_path: Path) -> None:
    text = MODEL.replace("    source", "\tsource").replace("    targets", "\ttargts").replace("  m:", " m:")
    assert [line.partition(" |")[0] for line in lines(document(tmp_path, text))] == [
        "9:1 a tab; YAML is indented with spaces",
        "10:1 a tab; YAML is indented with spaces",
        '10:3 m: unknown key "targts"',
    ]


def test_tabs_that_no_width_makes_readable_are_still_named(tmp_path: Path) -> None:
    assert lines(document(tmp_path, "a:\n\tb: [1\n")) == [
        "2:1 a tab; YAML is indented with spaces | replace the tab by spaces"
    ]


def test_tabs_inside_text_and_comments_are_kept(tmp_path: Path) -> None:
    text = MODEL + "    test:\n      - prompt: |\n          a\n          \tb  # c\n# a\tcomment\n"
    found = document(tmp_path, text)
    assert lines(found) == []
    assert found.manifest is not None
    assert found.manifest.models["m"].test[0].prompt == "a\n\tb  # c\n"


def test_a_warning_leaves_the_manifest_usable(tmp_path: Path) -> None:
    found = document(tmp_path, MODEL.replace("{laptop: {}}", "{}"))
    assert [d.severity for d in found.diagnostics] == [Severity.WARNING]
    assert found.manifest is not None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered_with_diagnostics(tmp_path: Path, body: bytes) -> None:
    found = document(tmp_path, body)
    assert found.manifest is None
    assert found.diagnostics


PIECES = st.sampled_from(
    [
        *"{}[]:,#&*!|>'\"%@`-?\t\n \\",
        "\n  ",
        ": ",
        "- ",
        "models",
        "m",
        "targets",
        "<<",
        "1.10",
        "yes",
        "~",
        "a",
        "é",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.lists(PIECES, max_size=12), seed=st.integers(0, 10_000))
def test_any_damage_to_a_manifest_is_answered_in_our_words(
    tmp_path: Path, noise: list[str], seed: int
) -> None:
    at = random.Random(seed).randrange(len(MODEL))
    found = document(tmp_path, MODEL[:at] + "".join(noise) + MODEL[at:])
    for said in found.diagnostics:
        assert said.where is not None
        assert not any(word in said.summary for word in ("Input", "pydantic", "validation", "extra"))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["", "x", "cpu", "4Gi", "docker", "./a"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["kind", "a", "source"]), inner)
    ),
    max_leaves=4,
)
PLACES = st.sampled_from(
    ["version", "project", "defaults", "secrets", "hardware", "registries", "engines", "targets", "models", "inventory",
     "models.m", "models.m.source", "models.m.files", "models.m.files.include", "models.m.serve", "models.m.serve.args", "models.m.serve.faces",
     "models.m.env", "models.m.env.A", "models.m.test", "models.m.chat", "models.m.targets", "models.m.targets.laptop",
     "models.m.lifecycle", "models.m.serve.api_key", "targets.laptop", "hardware.cpu", "hardware.cpu.memory"]
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=PLACES, value=JSON)
def test_any_value_at_any_place_is_answered_in_our_words(tmp_path: Path, place: str, value: object) -> None:
    import json

    import yaml

    written = yaml.safe_load(MODEL)
    node = written
    *way, last = place.split(".")
    for part in way:
        node = node.setdefault(part, {})
    node[last] = value
    found = document(tmp_path, json.dumps(written))  # JSON is YAML
    for said in found.diagnostics:
        assert said.where is not None
        assert not any(word in said.summary for word in ("Input", "pydantic", "is not valid", "extra"))
    assert (found.manifest is None) == any(d.severity is Severity.ERROR for d in found.diagnostics)


def calls_of_reading(folder: Path, count: int) -> int:
    """How many functions are called to read so many models: the same on every machine."""
    entries = "".join(
        f"  m-{n}:\n    source: hf://acme/tiny-{n}\n    version: main\n    serve: {{max_model_len: 128}}\n"
        f"    test: [{{prompt: hi, expect: {{contains: x}}}}]\n    targets: {{laptop: {{}}, box: {{}}, out: {{}}}}\n"
        for n in range(count)
    )
    calls = 0

    def seen(_frame: object, event: str, _value: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        found = document(folder, HEAD + "models:\n" + entries)
    finally:
        sys.setprofile(None)
    assert found.manifest is not None
    assert len(found.manifest.models) == count
    return calls


def test_a_model_costs_the_same_whatever_their_number(tmp_path: Path) -> None:
    document(tmp_path, MODEL)  # what is made at the first reading
    base, few, many = (calls_of_reading(tmp_path, count) for count in (1, 51, 251))
    assert (many - base) / (few - base) == pytest.approx(5, rel=0.02)
    assert (many - base) / 250 < CALLS_OF_A_MODEL


def test_what_an_autoscaler_lacks_and_a_pointer_that_is_none_are_said_in_words(tmp_path: Path) -> None:
    text = HEAD.replace("targets: {", "targets: {prod: {kind: kubernetes, namespace: models}, ") + (
        "models:\n  m:\n    source: ./checkpoint\n    lifecycle: {ignore_drift: [spec/replicas]}\n"
        "    targets: {prod: {autoscale: {min: 5, max: 4}}}\n"
    )
    said = "\n".join(lines(document(tmp_path, text)))
    assert "m: targets.prod.autoscale: max is 4, and min is 5 | such as {min: 1, max: 4}" in said
    assert "lifecycle.ignore_drift[0] must be a JSON pointer into what runs the model | such as" in said
