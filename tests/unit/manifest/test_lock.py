"""models.lock: what is written is read again, what is damaged is refused with its line, what is stale is known."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.diagnostic import Diagnostic
from pipeline.core.errors import UserError
from pipeline.core.image import Engine, Variant
from pipeline.core.model import Artifact, Facts, FileEntry, Filter
from pipeline.core.protocols import SourceSpec
from pipeline.core.reference import parse
from pipeline.manifest.lock import Lock, dump, engine_key, read_lock, write_lock

SHA = "0123456789abcdef" * 4
ENGINE = Engine(
    "vllm", "0.32.0", "cpu", "linux/amd64", "3.11", "debian", None, "https://pypi.org/simple", ("a==1",)
)
KEY = engine_key(ENGINE, "linux/amd64")
FILTER = Filter(("*.json",), format="safetensors", allow=(("code.py", SHA),))
SPEC = SourceSpec("hf://Qwen/Qwen3-8B", "main", FILTER)
FILES = (FileEntry("config.json", 10, SHA), FileEntry("model-00001-of-00002.safetensors", 2**34, SHA))
LOCKED = Artifact(
    SPEC.reference, "main", "9c0d2f7a" * 5, FILES, Facts(layers=36, gated=False), FILTER, left_out_bytes=7
)
LOCK = Lock({"qwen3-8b": {"weights": LOCKED}}, {KEY: ENGINE})


def problems(path: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(UserError) as caught:
        read_lock(path)
    return caught.value.diagnostics


def damaged(folder: Path, old: str, new: str) -> list[str]:
    """What is said of the lock with one thing changed."""
    text = dump(LOCK, folder)
    assert old in text
    path = folder / "models.lock"
    path.write_text(text.replace(old, new, 1))
    return [f"{d.where.line if d.where else 0}: {d.summary}" for d in problems(path)]


def test_files_and_requirements_are_one_line_each(tmp_path: Path) -> None:
    text = dump(LOCK, tmp_path)
    assert f'        {{"path": "config.json", "sha256": "{SHA}", "size": 10}},\n' in text
    assert '      "requirements": [\n        "a==1"\n      ]' in text
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_no_lock_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "models.lock") == Lock()


def test_folders_of_the_checkout_are_locked_relative_to_it(tmp_path: Path) -> None:
    source = parse("./checkpoint", tmp_path / "here").source
    lock = Lock({"tiny": {"weights": Artifact(source, "", f"sha256-{SHA}", FILES)}})
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    write_lock(tmp_path / "here" / "models.lock", lock)
    text = (tmp_path / "here" / "models.lock").read_text()
    assert '"source": "./checkpoint"' in text
    assert str(tmp_path) not in text
    (tmp_path / "there" / "models.lock").write_text(text)
    assert read_lock(tmp_path / "here" / "models.lock") == lock
    moved = read_lock(tmp_path / "there" / "models.lock").models["tiny"]["weights"]
    assert moved.source == parse("./checkpoint", tmp_path / "there").source


def test_writing_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    path.write_text("old")
    write_lock(path, LOCK)
    assert read_lock(path) == LOCK
    assert [p.name for p in tmp_path.iterdir()] == ["models.lock"]


DAMAGE = [
    ('"format_version": 1', '"format_version": 2', "written by another version of mp"),
    ('"format_version": 1', '"format": 1', 'unknown key "format"'),
    ('"pin": "', '"pins": "', 'unknown key "pins"'),
    ("0123", "xyz3", "is not of the right form"),
    ('"size": 10', '"size": -1', "must be at least 0"),
    ('"size": 10', '"size": "10"', "must be a whole number, not text"),
    ("config.json", "../config.json", "leaves the model's folder"),
    ("config.json", "/etc/passwd", "leaves the model's folder"),
    ("config.json", "a//b", "is not a plain relative path"),
    ("config.json", "a\\\\b", "is not a plain relative path"),
    ('"base_digest": null', '"base_digest": "sha256:1"', "is not of the right form"),
    ('"size": 10}', '"size": 10', "not valid JSON"),
    ('"size": 10}', '"size": 10, "size": 11}', 'key "size" is there twice'),
    ('  "models"', '<<<<<<< HEAD\n  "models"', "a merge conflict is not resolved"),
]


@pytest.mark.parametrize(("old", "new", "said"), DAMAGE, ids=[new for _, new, _ in DAMAGE])
def test_damage_is_refused_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    found = damaged(tmp_path, old, new)
    line = dump(LOCK, tmp_path)[: dump(LOCK, tmp_path).index(old)].count("\n") + 1
    assert said in found[0]
    assert abs(int(found[0].partition(":")[0]) - line) <= 1


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_lock_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "models.lock").write_bytes(body)
    assert problems(tmp_path / "models.lock")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), noise=st.text(max_size=3), cut=st.integers(0, 3))
def test_any_damage_is_a_diagnostic_or_harmless(tmp_path: Path, at: int, noise: str, cut: int) -> None:
    text = dump(LOCK, tmp_path)
    at %= len(text)
    path = tmp_path / "models.lock"
    path.write_bytes((text[:at] + noise + text[at + cut :]).encode())
    try:
        read_lock(path)
    except UserError as problem:
        assert all(d.hint or d.where for d in problem.diagnostics)


WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
PART = st.from_regex(r"[A-Za-z0-9_é-]{1,8}(\.json)?", fullmatch=True)
ENTRY = st.builds(FileEntry, st.lists(PART, min_size=1, max_size=3).map("/".join), st.integers(0, 2**50), HEX)
FACTS = st.builds(
    Facts,
    architecture=st.none() | WORD,
    layers=st.none() | st.integers(1, 99),
    gated=st.none() | st.booleans(),
)
ROLE = st.sampled_from(["weights", "tokenizer", "adapters.fr"])
GLOBS = st.lists(WORD, max_size=2).map(tuple)
ALLOW = st.dictionaries(WORD, HEX, max_size=2).map(lambda found: tuple(sorted(found.items())))
ARTIFACT = st.builds(
    Artifact,
    WORD.map("hf://".__add__),
    WORD,
    HEX.map("sha256-".__add__),
    st.lists(ENTRY, max_size=4).map(sorted).map(tuple),
    FACTS,
    st.builds(Filter, GLOBS, GLOBS, st.sampled_from(["auto", "text"]), ALLOW),
    st.integers(0, 2**50),
)
ENGINES = st.builds(
    Engine,
    WORD,
    WORD,
    WORD,
    WORD,
    WORD,
    WORD,
    st.none() | HEX.map("sha256:".__add__),
    WORD,
    st.lists(WORD).map(tuple),
)
LOCKS = st.builds(
    Lock,
    st.dictionaries(NAME, st.dictionaries(ROLE, ARTIFACT, max_size=3), max_size=3),
    st.dictionaries(WORD, ENGINES, max_size=2),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lock=LOCKS)
def test_what_is_written_is_read_again(tmp_path: Path, lock: Lock) -> None:
    path = tmp_path / "models.lock"
    path.write_text(dump(lock, tmp_path))
    again = read_lock(path)
    assert again == lock
    assert dump(again, tmp_path) == dump(lock, tmp_path)


STALE = [
    (SPEC, None),
    (dataclasses.replace(SPEC, reference="hf://a/b"), 'source "hf://Qwen/Qwen3-8B" → "hf://a/b"'),
    (dataclasses.replace(SPEC, version="v2"), 'version "main" → "v2"'),
    (dataclasses.replace(SPEC, filter=Filter()), "the choice of files changed"),
    (dataclasses.replace(SPEC, filter=dataclasses.replace(FILTER, allow=())), "the choice of files changed"),
]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"pin": "9c0d2f7a', '"pin": "../../9c0d'), ('"path": "config.json"', '"path": ".metadata"')],
)
def test_what_would_leave_the_cache_is_refused_when_the_lock_is_read(
    tmp_path: Path, old: str, new: str
) -> None:
    assert damaged(tmp_path, old, new)


def test_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "models.lock").write_text(dump(LOCK, tmp_path), encoding="utf-8-sig")
    assert read_lock(tmp_path / "models.lock") == LOCK


@pytest.mark.parametrize(("spec", "why"), STALE)
def test_pin_is_stale_when_the_manifest_asks_for_something_else(spec: SourceSpec, why: str | None) -> None:
    assert LOCK.stale("qwen3-8b", "weights", spec) == why
    assert LOCK.stale("other", "weights", spec) == "not in models.lock"


def test_engine_key_is_the_same_for_a_variant_and_its_engine() -> None:
    variant = Variant("vllm", "0.32.0", "cpu", "3.11", "debian", ())
    assert engine_key(variant, "linux/amd64") == KEY == "vllm-0.32.0/cpu/linux/amd64"


def test_update_drops_models_and_engines_that_nothing_wants() -> None:
    newer = dataclasses.replace(ENGINE, version="0.33.0")
    other = dataclasses.replace(ENGINE, platform="linux/arm64")
    arm = engine_key(other, "linux/arm64")
    before = Lock({"gone": {"weights": LOCKED}, "qwen3-8b": {"weights": LOCKED}}, {KEY: ENGINE, arm: other})
    parts = {"weights": dataclasses.replace(LOCKED, pin="new")}
    new_key = engine_key(newer, "linux/amd64")
    after = before.updated({"qwen3-8b": parts}, {new_key: newer}, frozenset({"qwen3-8b"}))
    assert after.models == {"qwen3-8b": parts}
    assert set(after.engines) == {new_key, arm}, "engines of other platforms stay"


def test_update_of_one_model_keeps_the_engines_of_the_others() -> None:
    newer = dataclasses.replace(ENGINE, version="0.33.0")
    after = LOCK.updated({"b": {"weights": LOCKED}}, {"new": newer}, frozenset({"qwen3-8b", "b"}))
    assert set(after.models) == {"qwen3-8b", "b"}
    assert set(after.engines) == {KEY, "new"}


def test_lock_holds_no_key_twice_even_when_it_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "models.lock"
    text = dump(LOCK, tmp_path)
    path.write_text(re.sub(r'"models": \{', '"models": {"a": 1, "\\\\u0061": 2,', text))
    assert 'key "a" is there twice' in problems(path)[0].summary
