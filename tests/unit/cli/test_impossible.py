"""Mistakes that models.yaml shows by itself: `mp validate` and `mp plan` say the same, at the key that is to blame."""

import json
from pathlib import Path

import pytest

from pipeline.cli.main import run

LONG = "q" * 60
HEAD = """\
version: 1
project: acme
secrets: {hub: {env: HF_TOKEN}, key: {env: API_KEY, kubernetes: {name: qwen, key: api-key}}}
hardware:
  cpu: {gpus: 0, cpu: 2, memory: 4Gi}
  l40s: {gpus: 1, gpu: L40S}
  l99: {gpus: 1, gpu: L99}
  two: {gpus: 8, gpu: H100, nodes: 2, instance_type: Standard_ND96isr_H100_v5}
registries: {main: {url: ghcr.io/acme}, here: {layout: images}, near: {url: "127.0.0.1:5000/acme"}}
targets:
  prod: {kind: kubernetes, namespace: models}
  shelf: {kind: kubernetes, namespace: models, registry: here}
  home: {kind: kubernetes, namespace: models, registry: near}
  aks: {kind: kaito, namespace: models}
  laptop: {kind: local}
  box: {kind: docker}
  far: {kind: docker, host: "ssh://gpu1"}
defaults: {registry: main, template: vllm, hardware: l40s}
models:
"""
SOURCE = "  qwen: {source: ./weights, "
VERSION = "0.32.0"


def at_prod(options: str, more: str = "") -> str:
    """One entry at the target "prod"; its options begin in column 52 of line 20."""
    return f"{SOURCE}targets: {{prod: {{{options}}}}}{more}}}\n"


def column(text: str, key: str) -> int:
    return text.index(key) + 1


# The entry, the key that is to blame with its line (the entry's where none is said), what is said.
CASES: dict[str, tuple[str, str, str]] = {
    "claim-of-each-and-of-somebody": (
        at_prod("weights: pvc, claim: {name: shared, per: replica}"),
        "per: replica",
        'claim "shared" is one claim, and per: replica asks for one of each',
    ),
    "size-of-somebody-elses-claim": (
        at_prod("weights: pvc, claim: {name: shared, size: 2Gi}"),
        "size: 2Gi",
        'claim "shared" is somebody else\'s: its size and class are not ours to say',
    ),
    "path-in-a-claim-of-ours": (
        at_prod("weights: pvc, claim: {path: deep}"),
        "path: deep",
        "path: is for a claim that somebody else fills",
    ),
    "claim-without-pvc": (
        at_prod("claim: {size: 2Gi}"),
        "claim: {size",
        "claim: says where weights are, and weights: is baked",
    ),
    "several-pods-at-one-claim": (
        at_prod("weights: pvc, replicas: 2, claim: {name: shared}"),
        "claim: {name",
        "2 pods mount one claim, and only one node may mount it",
    ),
    "canary-of-own-volumes": (
        at_prod("weights: pvc, claim: {per: replica}, rollout: {strategy: canary}"),
        "strategy: canary",
        "has no canary: each of its replicas owns a volume",
    ),
    "canary-of-a-shared-claim": (
        at_prod("weights: pvc, rollout: {strategy: canary}"),
        "strategy: canary",
        "has no canary: its pods share a claim",
    ),
    "canary-of-what-others-made": (
        at_prod("manage: observe, rollout: {strategy: canary}"),
        "strategy: canary",
        "strategy: canary is for what mp makes whole",
    ),
    "claim-of-what-others-made": (
        at_prod("runs: {container: server}, weights: pvc, claim: {size: 2Gi}"),
        "claim: {size",
        "claim: says where mp puts weights, and others made what runs here",
    ),
    "canary-on-several-nodes": (
        at_prod("rollout: {strategy: canary}", ", hardware: two"),
        "strategy: canary",
        "has no canary: its pods run on several nodes",
    ),
    "canary-with-a-long-name": (
        at_prod(f"name: {LONG}, rollout: {{strategy: canary}}"),
        "name: q",
        f'has no canary: "{LONG}-canary" is too long a name: 63 characters at most',
    ),
    "long-name-of-replicas-with-volumes": (
        at_prod(f"weights: pvc, replicas: 2, name: {LONG}"),
        "name: q",
        f'"{LONG}" is too long a name for replicas with volumes of their own: 52 characters at most',
    ),
    "long-name-of-groups": (
        at_prod(f"name: {LONG}", ", hardware: two"),
        "name: q",
        f'"{LONG}" is too long a name for pods on several nodes: 48 characters at most',
    ),
    "own-key-is-no-name-of-a-service": (
        "  4bit: {source: ./weights, targets: {prod: {}}}\n",
        "4bit",
        '"4bit" is no name of a Service: a letter first, and 63 characters at most',
    ),
    "own-key-is-too-long-for-kaito": (
        f"  {LONG}: {{source: hf://a/b, version: main, hardware: two, targets: {{aks: {{preset: a/b}}}}}}\n",
        LONG,
        f'"{LONG}" is no name for KAITO: a letter first, and 37 characters at most',
    ),
    "one-claim-on-several-nodes": (
        at_prod("weights: pvc, claim: {size: 2Ti}", ", hardware: two"),
        "claim: {size",
        "2 nodes mount one claim, and only one node may mount it",
    ),
    "volumes-of-groups": (
        at_prod("weights: pvc, claim: {per: replica, access_mode: ReadWriteMany}", ", hardware: two"),
        "per: replica",
        "its pods run on several nodes, and have no volumes of their own",
    ),
    "gpu-without-a-label": (
        at_prod("", ", hardware: l99"),
        "7 gpu: L99",
        'no node label is known for the GPU "L99"',
    ),
    "secret-without-a-place": (
        at_prod("", ", env: {HF_TOKEN: {secret: hub}}"),
        "3 hub: {env",
        'secret "hub" has no place in a cluster',
    ),
    "secret-of-what-others-made": (
        at_prod("runs: {container: server}", ", env: {HF_TOKEN: {secret: hub}}"),
        "3 hub: {env",
        'secret "hub" has no place in a cluster',
    ),
    "layout-registry": (
        f"{SOURCE}targets: {{shelf: {{}}}}}}\n",
        "12 registry: here",
        'a cluster cannot pull "here", which is a layout folder',
    ),
    "registry-of-this-machine": (
        f"{SOURCE}targets: {{home: {{weights: pvc}}}}}}\n",
        '9 url: "127',
        'pods cannot reach the registry "near": 127.0.0.1:5000/acme is this machine alone',
    ),
    "faces-of-what-others-made": (
        at_prod("manage: observe", ", serve: {faces: [llama2-chat]}, template: transformers"),
        "faces: [",
        "serve.faces: others made what runs at all of its targets, and mp makes no server with faces",
    ),
    "faces-of-vllm": (
        at_prod("", ", serve: {faces: [llama2-chat]}"),
        "llama2-chat",
        'serve.faces: template "vllm" does not serve "llama2-chat"',
    ),
    "adapters-of-transformers": (
        at_prod("", ", template: transformers, adapters: {fr: {source: ./fr}}"),
        "adapters: {fr",
        "adapters: the transformers server serves none",
    ),
    "nodes-of-transformers": (
        at_prod("", ", template: transformers, hardware: two"),
        "hardware: two",
        "the transformers server runs on one node, and two has 2",
    ),
    "ranks-and-gpus": (
        at_prod("", ", hardware: two, serve: {args: {data-parallel-size: 3}}"),
        "data-parallel-size: 3",
        "serve.args: 6 pipeline and data ranks do not divide 16 GPUs",
    ),
    "engine-that-is-not-known": (
        at_prod("", ', engine: {version: "9.9"}'),
        'version: "9.9"',
        'vllm has no version "9.9"; known versions: 0.33.0, 0.32.0',
    ),
    "kaito-without-an-instance-type": (
        f"{SOURCE}targets: {{aks: {{}}}}}}\n",
        "qwen: {",
        'KAITO makes no node of hardware "l40s": it has no instance_type',
    ),
    "preset-of-a-folder": (
        f"{SOURCE}hardware: two, targets: {{aks: {{preset: phi-4}}}}}}\n",
        "source: ./weights",
        'a preset downloads from the Hugging Face Hub, not from "file://',
    ),
    "preset-with-an-api-key": (
        "  qwen: {source: hf://a/b, version: main, hardware: two, serve: {api_key: {secret: key}}, "
        "targets: {aks: {preset: phi-4}}}\n",
        "api_key: {",
        "a preset asks clients for no key",
    ),
    "switch-of-a-preset": (
        "  qwen: {source: hf://a/b, version: main, hardware: two, serve: {args: {enforce-eager: true}}, "
        "targets: {aks: {preset: phi-4}}}\n",
        "enforce-eager: true",
        'serve.args: "enforce-eager" is a switch, and KAITO passes every setting with a value',
    ),
    "set-of-one-that-is-none": (
        f"{SOURCE}hardware: two, targets: {{aks: {{preset: a/b, object: Workspace, replicas: 2}}}}}}\n".replace(
            "./weights", "hf://a/b, version: main"
        ),
        "object: Workspace",
        "a Workspace is one replica, not 2",
    ),
    "set-of-others-that-is-none": (
        f"{SOURCE}targets: {{aks: {{runs: {{preset: phi-4}}, object: Workspace, replicas: 2}}}}}}\n",
        "object: Workspace",
        "a Workspace is one replica, not 2",
    ),
    "variable-of-a-preset-of-others": (
        f"{SOURCE}env: {{A: b}}, targets: {{aks: {{runs: {{preset: phi-4}}}}}}}}\n",
        "A: b",
        'env: a preset takes HF_TOKEN alone, from the key HF_TOKEN of a Secret, not "A"',
    ),
    "token-of-a-preset-of-others": (
        f"{SOURCE}env: {{HF_TOKEN: {{secret: key}}}}, targets: {{aks: {{runs: {{preset: phi-4}}}}}}}}\n",
        "HF_TOKEN: {",
        "env: a preset takes HF_TOKEN alone, from the key HF_TOKEN of a Secret",
    ),
    "preset-of-others-and-of-ours": (
        f"{SOURCE}targets: {{aks: {{manage: observe, preset: phi-4}}}}}}\n",
        "preset: phi-4",
        "what runs there already is said by runs:",
    ),
    "nodes-of-one-machine": (
        f"{SOURCE}hardware: two, targets: {{box: {{}}}}}}\n",
        "hardware: two",
        '"box" is one machine, and two has 2 nodes',
    ),
    "weights-that-are-not-kept": (
        f"{SOURCE}cache: none, targets: {{laptop: {{}}}}}}\n",
        "cache: none",
        '"laptop" reads the weights from the cache, and this model keeps none there',
    ),
    "cache-of-another-machine": (
        f"{SOURCE}targets: {{far: {{weights: mount, bind: 10.0.0.7}}}}}}\n",
        "weights: mount",
        'weights: mount needs a Docker engine on this machine, not "ssh://gpu1"',
    ),
    "port-that-nobody-reaches": (
        f"{SOURCE}targets: {{far: {{weights: baked, bind: 127.0.0.1}}}}}}\n",
        "bind: 127",
        'port bound to 127.0.0.1 of "ssh://gpu1" cannot be reached from here',
    ),
}


def folder_of(path: Path, entries: str) -> Path:
    weights = path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (weights / "model.safetensors").write_bytes(bytes(8) + b"{}")
    (path / "models.yaml").write_text(HEAD + entries)
    return path


def said(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[str, str]]:
    """What `mp validate` finds: place, and summary."""
    run(["-C", str(folder), *words, "validate", "--json"])
    found = json.loads(capsys.readouterr().out)["diagnostics"]
    return [(one["where"], one["summary"]) for one in found]


@pytest.mark.parametrize("case", CASES)
def test_key_that_is_to_blame_is_named_by_validate_and_plan_alike(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries, key, summary = CASES[case]
    folder = folder_of(tmp_path, entries)
    number, _, word = key.partition(" ") if key[0].isdigit() and " " in key[:3] else ("20", "", key)
    line = (HEAD + entries).splitlines()[int(number) - 1]

    found = said(folder, capsys)

    assert len(found) == 1, found
    ((where, text),) = found
    assert where == f"models.yaml:{number}:{column(line, word)}"
    assert text.partition(": ")[2].startswith(summary)
    texts = []
    for command in ("validate", "plan"):
        assert run(["-C", str(folder), command]) == 1
        texts.append(capsys.readouterr().err)
    assert texts[0] == texts[1]
    assert "hint: " in texts[0]


def test_all_of_them_are_said_at_once_whatever_else_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = (
        at_prod("weights: pvc, claim: {name: shared, per: replica}, rollout: {strategy: canary}")
        + "  other: {source: ./weights, targets: {laptop: {prot: 1}}}\n"
        + "  third: {source: ./weights, hardware: l99, targets: {prod: {}, box: {port: 0}}}\n"
        + "  fourth: {source: ./weights, hardwear: two, targets: {prod: {}}}\n"
    )
    assert [text for _, text in said(folder_of(tmp_path, entries), capsys)] == [
        'third: no node label is known for the GPU "L99"',
        'qwen: claim "shared" is one claim, and per: replica asks for one of each',
        "qwen: has no canary: each of its replicas owns a volume",
        'other: targets.laptop: unknown key "prot"',
        "third: targets.box.port must be at least 1",
        'fourth: unknown key "hardwear"',
    ]


def test_what_a_broken_part_may_have_meant_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A registry that cannot be read is no folder, hardware that cannot be read has as many nodes as it may have."""
    folder = folder_of(tmp_path, at_prod("weights: pvc, replicas: 2, claim: {per: model}"))
    text = (folder / "models.yaml").read_text()
    (folder / "models.yaml").write_text(text.replace("main: {url: ghcr.io/acme}", "main: {url: GHCR}"))

    assert [summary for _, summary in said(folder, capsys)] == [
        "registries.main.url must be host and prefix in lower case, without https://"
    ]


def test_what_a_broken_alias_may_have_meant_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = "source: hf://a/b, version: main, tokenizer: {source: words}, hardware: two, targets: {aks: {preset: a/b}}"
    folder = folder_of(tmp_path, f"  qwen: {{{entry}}}\n")
    text = (folder / "models.yaml").read_text()
    (folder / "models.yaml").write_text(text + "aliases: {words: 7}\n")

    assert [summary for _, summary in said(folder, capsys)] == ["aliases.words must be text; 7 is a number"]


def test_source_is_not_missed_where_others_made_it_and_nothing_is_said_of_it_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, "  qwen: {targets: {prod: {runs: {}}}}\n")

    assert [summary for _, summary in said(folder, capsys)] == [
        'qwen: targets.prod.runs: "container" is missing'
    ]


def test_name_begins_with_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path, f"  {LONG}: {{source: ./weights, targets: {{prod: {{}}}}}}\n")

    assert said(folder, capsys) == []
    ((where, text),) = said(folder, capsys, "--env", "staging")

    assert where == "models.yaml:20:3"
    assert f'"staging-{LONG}" is no name of a Service' in text


def test_registry_that_is_not_known_is_said_and_nothing_of_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, at_prod("claim: {size: 2Gi}") + "  4bit: {source: ./weights}\n")
    text = (folder / "models.yaml").read_text()
    (folder / "models.yaml").write_text(text.replace("{registry: main,", "{registry: mian,"))

    assert [summary for _, summary in said(folder, capsys)] == [
        'defaults: registry "mian" is not known',
        "4bit: no target, nothing is done for it",
    ]


def test_registry_that_is_not_chosen_is_taken_for_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, at_prod(""))
    text = (folder / "models.yaml").read_text().replace("defaults: {registry: main,", "defaults: {")
    (folder / "models.yaml").write_text(
        text.replace(" here: {layout: images},", "").replace(": here", ": near")
    )

    assert [summary for _, summary in said(folder, capsys)] == ["which of 2 registries does target prod use?"]


def test_folder_of_images_is_what_a_cluster_gets_where_no_registry_is_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, at_prod(""))
    kept = [
        line.replace("registry: main, ", "")
        for line in (folder / "models.yaml").read_text().splitlines()
        if not line.startswith("registries:")
        and "registry: here" not in line
        and "registry: near" not in line
    ]
    (folder / "models.yaml").write_text("\n".join(kept))

    assert [summary for _, summary in said(folder, capsys)] == [
        'qwen: a cluster cannot pull "here", which is a layout folder'
    ]


@pytest.mark.parametrize("host", ["tcp://[::1", "ssh://[gpu1"])
def test_host_that_is_no_address_is_said(
    host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, f"{SOURCE}targets: {{far: {{}}}}}}\n")
    text = (folder / "models.yaml").read_text()
    (folder / "models.yaml").write_text(text.replace("ssh://gpu1", host))

    found = said(folder, capsys)

    assert [summary for _, summary in found] == [f'targets.far.host "{host}" is no address']


@pytest.mark.parametrize("ca", ["ca.pem", "c" * 300])
def test_certificates_that_another_machine_has_are_no_mistake_of_the_file(
    ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, at_prod("weights: pvc"))
    text = (folder / "models.yaml").read_text()
    (folder / "models.yaml").write_text(text.replace("ghcr.io/acme}", f"ghcr.io/acme, ca: {ca}}}"))

    assert said(folder, capsys) == []


@pytest.mark.parametrize(
    "words",
    ["plan", "apply", "lock", "render --out out", "drift", "list", "outdated", "prune", "promote qwen"],
)
def test_what_makes_or_compares_what_is_declared_stops(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, at_prod("", ', engine: {version: "9.9"}'))

    assert run(["-C", str(folder), *words.split()]) == 1

    told = capsys.readouterr().err
    assert told.count(': qwen: vllm has no version "9.9"') == 1
    assert "warning" not in told


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("status", ""),
        ("history", ""),
        ("destroy --all --yes", ""),
        ("forget prod", 'error: "prod" is not in the inventory'),
        ("rollback qwen", "error: nothing of that is deployed"),
    ],
)
def test_what_is_there_can_be_shown_and_brought_back_whatever_is_declared(
    words: str, instead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who is on call needs no manifest that this mp understands whole."""
    folder = folder_of(tmp_path, at_prod("", ', engine: {version: "9.9"}'))

    assert run(["-C", str(folder), *words.split()]) == (1 if instead else 0)

    told = capsys.readouterr().err
    assert told.count('warning: qwen: vllm has no version "9.9"') == 1
    assert instead in told
