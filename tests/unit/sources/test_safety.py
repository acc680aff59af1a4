"""What runs code is refused, all of it at once, unless it is listed by its hash for a version that cannot move."""

import json

import pytest

from pipeline.core.errors import ExitCode, Refused
from pipeline.core.model import Filter
from pipeline.core.protocols import SourceSpec
from pipeline.sources.choice import choose
from pipeline.sources.safety import configs, is_fixed, require_safe

COMMIT, HASH, OTHER = "c" * 40, "a" * 64, "b" * 64
FILES = {"config.json": b"{}", "model.safetensors": b"w"}


def check(
    files: dict[str, bytes],
    allow: dict[str, str] | None = None,
    version: str = COMMIT,
    hashes: dict[str, str] | None = None,
) -> None:
    spec = SourceSpec("hf://acme/tiny", version, Filter(allow=tuple(sorted((allow or {}).items()))))
    choice = choose(spec, {path: len(content) for path, content in files.items()})
    content = {path: files[path] for path in configs(choice.paths)}
    require_safe(spec, choice, content, dict.fromkeys(files, HASH) | (hashes or {}), COMMIT)


def refused(
    files: dict[str, bytes],
    allow: dict[str, str] | None = None,
    version: str = COMMIT,
    hashes: dict[str, str] | None = None,
) -> Refused:
    with pytest.raises(Refused) as raised:
        check(files, allow, version, hashes)
    assert raised.value.exit_code == ExitCode.REFUSED
    assert raised.value.hint
    return raised.value


def config(**keys: object) -> dict[str, bytes]:
    return FILES | {"config.json": json.dumps(keys).encode()}


def test_weights_and_text_are_safe() -> None:
    check(FILES | {"tokenizer.model": b"\n", "chat_template.jinja": b"{{ x }}", "LICENSE": b""})


def test_everything_is_refused_at_once_by_name_and_with_the_way_out() -> None:
    files = config(auto_map={"AutoModel": "modeling_acme.Model"}) | {
        "modeling_acme.py": b"",
        "install.sh": b"",
        "lib/kernel.so": b"",
        "part/weights.pkl": b"",
        "odd.xyz": b"",
    }
    problem = refused(files)
    assert '"install.sh", "lib/kernel.so", "modeling_acme.py" is code' in problem.message
    assert '"part/weights.pkl" may run code when it is loaded' in problem.message
    assert '"odd.xyz" is in no format that mp knows to be safe' in problem.message
    assert '"config.json" has auto_map, which runs "modeling_acme.py"' in problem.message
    assert problem.hint is not None
    assert 'files: {exclude: ["*.sh", "*.so", "*.py", "*.xyz", "*.pkl"]}' in problem.hint
    assert f'"modeling_acme.py": "{HASH}"' in problem.hint


def test_a_listed_file_of_a_fixed_version_is_taken() -> None:
    files = config(auto_map={"AutoModel": "modeling_acme.Model"}) | {"modeling_acme.py": b""}
    check(files, {"modeling_acme.py": HASH})
    check({"config.json": b"{}", "pytorch_model.bin": b""}, {"pytorch_model.bin": HASH})


def test_a_version_that_can_move_allows_nothing() -> None:
    problem = refused(FILES | {"a.py": b""}, {"a.py": HASH}, version="main")
    assert 'version "main" can move' in problem.message
    assert problem.hint == f"write version: {COMMIT}"


@pytest.mark.parametrize(
    ("reference", "version", "fixed"),
    [
        ("hf://a/b", "main", False),
        ("hf://a/b", "0123456", False),
        ("hf://a/b", COMMIT, True),
        ("oci://h/x", f"sha256:{HASH}", True),
        ("oci://h/x", "v1", False),
        ("oci://h/x", COMMIT, False),
        ("hf://a/b", f"sha256:{HASH}", False),
        ("s3://b/p", "", False),
        ("file:///srv/x", "", True),
    ],
)
def test_versions_that_cannot_move(reference: str, version: str, fixed: bool) -> None:
    assert is_fixed(SourceSpec(reference, version)) is fixed


def test_all_hashes_that_differ_are_named() -> None:
    files = FILES | {"a.py": b"", "b.py": b"", "c.py": b""}
    allow = {"a.py": OTHER, "b.py": HASH, "c.py": OTHER}
    problem = refused(files, allow)
    assert f'"a.py", "c.py" has sha256 {HASH}, and files.allow lists {OTHER}' in problem.message
    assert "b.py" not in problem.message


def test_a_file_that_is_listed_and_not_there_is_named() -> None:
    assert (
        '"gone.py" is listed in files.allow and is no file of it' in refused(FILES, {"gone.py": HASH}).message
    )


def test_without_hashes_the_rest_is_checked_and_hashes_come_later() -> None:
    spec = SourceSpec("hf://a/b", COMMIT, Filter(allow=(("a.py", OTHER),)))
    choice = choose(spec, {"model.safetensors": 1, "a.py": 1})
    require_safe(spec, choice, {})
    with pytest.raises(Refused):
        require_safe(spec, choice, {}, {})  # a source that knows no hash of it does not get past either


@pytest.mark.parametrize(
    "keys",
    [
        {"auto_map": {"AutoModel": "modeling_acme.Model"}},
        {"auto_map": {"AutoTokenizer": [None, "modeling_acme.Fast"]}},
        {"auto_map": "modeling_acme.Model"},
        {"vision_config": {"auto_map": {"AutoModel": "modeling_acme.Model"}}},
        {"parts": [{"auto_map": {"AutoModel": "modeling_acme.Model"}}]},
        {"custom_pipelines": {"task": {"impl": "modeling_acme.Pipe"}}},
        {"model_file": "modeling_acme.py"},
    ],
)
def test_code_that_a_config_names_is_found_at_any_depth(keys: dict[str, object]) -> None:
    problem = refused(config(**keys) | {"modeling_acme.py": b""})
    assert 'which runs "modeling_acme.py" when the model is loaded' in problem.message
    check(config(**keys) | {"modeling_acme.py": b""}, {"modeling_acme.py": HASH})


def test_code_is_looked_for_beside_its_config() -> None:
    named = b'{"auto_map": {"AutoModel": "code.Model"}}'
    files = FILES | {"sub/config.json": named, "sub/code.py": b""}
    check(files, {"sub/code.py": HASH})
    refused(FILES | {"sub/config.json": named, "code.py": b""}, {"code.py": HASH})


@pytest.mark.parametrize(
    "keys",
    [
        {"auto_map": {"AutoModel": "other/code--modeling.Model"}},
        {"auto_map": {"AutoModel": "../../modeling.Model"}},
        {"auto_map": {"AutoModel": 7}},
        {"_attn_implementation_internal": "stranger/kernel"},
        {"attn_implementation": {"text_config": "stranger/kernel"}},
        {"auto_mapping": {"parent_library": "stranger.models"}},
    ],
)
def test_code_from_elsewhere_is_refused_whatever_is_allowed(keys: dict[str, object]) -> None:
    problem = refused(config(**keys) | {"modeling.py": b""}, {"modeling.py": HASH})
    assert "runs code from elsewhere" in problem.message
    assert problem.hint is not None
    assert 'config: {source: "…"}' in problem.hint


@pytest.mark.parametrize(
    "keys",
    [
        {"auto_map": {}},
        {"auto_map": None},
        {"_attn_implementation": "sdpa", "_attn_implementation_autoset": True},
        {"auto_mapping": {"parent_library": "transformers.models.llama.modeling_llama"}},
        {"auto_mapping": None},
        {"model_type": "llama", "type": "anything.Else"},
    ],
)
def test_what_engines_write_themselves_is_safe(keys: dict[str, object]) -> None:
    check(config(**keys))


def test_modules_of_sentence_transformers_are_its_own() -> None:
    check(FILES | {"modules.json": b'[{"type": "sentence_transformers.models.Transformer"}]'})
    refused(FILES | {"modules.json": b'[{"type": "custom_st.Transformer"}]'})


@pytest.mark.parametrize("name", ["tokenizer_config.json", "sub/processor_config.json", "config_1.0.json"])
def test_every_config_is_looked_at(name: str) -> None:
    assert f'"{name}" has auto_map' in refused(FILES | {name: b'{"auto_map": {"A": "x.Y"}}'}).message


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\xff", b"[" * 100_000, b""])
def test_a_config_that_cannot_be_read_is_refused(content: bytes) -> None:
    assert '"config.json" cannot be read as JSON' in refused(FILES | {"config.json": content}).message


def test_a_config_that_a_source_did_not_read_is_refused() -> None:
    spec = SourceSpec("hf://a/b", COMMIT)
    with pytest.raises(Refused, match="cannot be read"):
        require_safe(spec, choose(spec, dict.fromkeys(FILES, 1)), {}, dict.fromkeys(FILES, HASH))
