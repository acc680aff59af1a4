"""What words mean: names, globs, references and aliases of models, and short names, versions and pins of what is cached."""

from pathlib import Path

import pytest

from pipeline.cli.options import options_from
from pipeline.cli.select import fitting, found, selected
from pipeline.cli.session import open_session
from pipeline.core.errors import UserError
from pipeline.core.frozen import frozen
from pipeline.core.reference import Reference, parse

ROOT = Path("/srv/project")
ALIASES = {"granite": "quay.io/ai-lab/models/granite-7b-lab", "qwen": "hf://Qwen/Qwen3-8B"}
COMMIT = "4e1a6b0c" * 5
DIGEST = "0123456789abcdef" * 4
DECLARED = {
    "qwen3-8b": ["hf://Qwen/Qwen3-8B:main"],
    "qwen3-32b": ["hf://Qwen/Qwen3-32B:v1"],
    "qwen3-old": [f"hf://Qwen/Qwen3-8B@{COMMIT}", "hf://acme/lora"],
    "llama-70b": ["./llama"],
    "gone": [],
}


def chosen(*patterns: str) -> tuple[str, ...]:
    return selected(
        patterns, DECLARED, lambda name: [parse(each, ROOT) for each in DECLARED[name]], ROOT, ALIASES
    )


def refused(*patterns: str) -> list[tuple[str, str | None]]:
    with pytest.raises(UserError) as raised:
        chosen(*patterns)
    return [(each.summary, each.hint) for each in raised.value.diagnostics]


def test_nothing_asked_for_means_all() -> None:
    assert selected(None, DECLARED, lambda _: [], ROOT, {}) == ()
    assert chosen() == ()


def test_globs_and_names_keep_the_order_of_the_manifest() -> None:
    assert chosen("llama-70b", "qwen3-*b") == ("qwen3-8b", "qwen3-32b", "llama-70b")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("hf://Qwen/Qwen3-8B", ("qwen3-8b", "qwen3-old")),
        ("qwen/qwen3-8b", ("qwen3-8b", "qwen3-old")),
        ("Qwen/Qwen3-8B:main", ("qwen3-8b",)),
        (f"Qwen/Qwen3-8B@{COMMIT}", ("qwen3-old",)),
        ("qwen", ("qwen3-8b", "qwen3-old")),
        ("qwen:main", ("qwen3-8b",)),
        ("acme/lora", ("qwen3-old",)),
        ("./llama", ("llama-70b",)),
        ("/srv/project/llama/", ("llama-70b",)),
    ],
)
def test_a_reference_or_an_alias_means_every_model_that_comes_from_it(
    pattern: str, names: tuple[str, ...]
) -> None:
    assert chosen(pattern) == names


def test_a_name_comes_before_an_alias() -> None:
    assert selected(
        ["qwen"], ["qwen", "other"], lambda _: [parse("hf://Qwen/Qwen3-8B", ROOT)], ROOT, ALIASES
    ) == ("qwen",)


def test_everything_that_fits_nothing_is_told_at_once_with_a_suggestion() -> None:
    names = "there are qwen3-8b, qwen3-32b, qwen3-old, llama-70b, gone"
    assert refused("qwen3-8", "llama-70b", "zzz*", "granit", "acme/other", "a/b/c", "granite") == [
        ('there is no model "qwen3-8"', 'did you mean "qwen3-8b"?'),
        ('no model fits "zzz*"', names),
        ('there is no model "granit"', 'did you mean "granite"?'),
        ("no model comes from hf://acme/other", names),
        (
            'reference "a/b/c" is no repository of the Hub',
            "write hf://a/b for a model of the Hub, or ./a/b/c for a path",
        ),
        ("no model comes from oci://quay.io/ai-lab/models/granite-7b-lab", names),
    ]


@frozen
class Entry:
    source: str
    versions: tuple[str, ...]
    pin: str


QWEN = Entry("hf://Qwen/Qwen3-8B", ("feature/x", "main"), COMMIT)
OLD_QWEN = Entry("hf://Qwen/Qwen3-8B", ("v1",), "b" * 40)
GRANITE = Entry("oci://quay.io/ai-lab/models/granite-7b-lab", ("v1.1",), f"sha256-{DIGEST}")
NAMESAKE = Entry("oci://ghcr.io/acme/granite-7b-lab", ("v1",), f"sha256-{'c' * 64}")
HERE = Entry("oci://localhost:5000/tiny", ("v1",), f"sha256-{'d' * 64}")
FOLDER = Entry("file:///srv/project/checkpoint", (), f"sha256-{'e' * 64}")
FILE = Entry("https://example.org/M.gguf", (f"sha256:{'f' * 64}",), f"sha256-{'a' * 64}")
UNKNOWN = Entry("", (), f"sha256-{'9' * 64}")
CACHED = [QWEN, GRANITE, HERE, FOLDER, FILE, UNKNOWN]


@pytest.mark.parametrize(
    ("word", "entry"),
    [
        ("hf://Qwen/Qwen3-8B", QWEN),
        ("Qwen/Qwen3-8B", QWEN),
        ("qwen/qwen3-8b", QWEN),
        ("Qwen/Qwen3-8B:main", QWEN),
        ("Qwen/Qwen3-8B/main", QWEN),
        ("Qwen/Qwen3-8B:feature/x", QWEN),
        ("Qwen/Qwen3-8B/feature/x", QWEN),
        (f"Qwen/Qwen3-8B@{COMMIT}", QWEN),
        ("Qwen/Qwen3-8B@4e1a6b0", QWEN),
        ("Qwen/Qwen3-8B:main@4e1a6b0", QWEN),
        ("Qwen3-8B", QWEN),
        ("qwen3-8b:main", QWEN),
        ("qwen3-8b/feature/x", QWEN),
        ("Qwen3-8B@4e1a6b0", QWEN),
        ("qwen", QWEN),
        ("qwen:feature/x", QWEN),
        ("qwen/main", QWEN),
        ("qwen@4e1a6b0", QWEN),
        ("quay.io/ai-lab/models/granite-7b-lab", GRANITE),
        ("quay.io/ai-lab/models/granite-7b-lab:v1.1", GRANITE),
        ("quay.io/ai-lab/models/granite-7b-lab/v1.1", GRANITE),
        (f"quay.io/ai-lab/models/granite-7b-lab@sha256:{DIGEST}", GRANITE),
        ("quay.io/ai-lab/models/granite-7b-lab@sha256:0123456", GRANITE),
        ("granite-7b-lab", GRANITE),
        ("granite-7b-lab:v1.1", GRANITE),
        ("models/granite-7b-lab", GRANITE),
        ("models/granite-7b-lab/v1.1", GRANITE),
        ("ai-lab/models/granite-7b-lab@0123456", GRANITE),
        ("granite", GRANITE),
        ("granite:v1.1", GRANITE),
        ("localhost:5000/tiny", HERE),
        ("localhost:5000/tiny:v1", HERE),
        ("localhost:5000/tiny/v1", HERE),
        ("tiny/v1", HERE),
        ("./checkpoint", FOLDER),
        ("checkpoint", FOLDER),
        ("checkpoint@eeeeeee", FOLDER),
        ("M.gguf", FILE),
        (f"https://example.org/M.gguf@sha256:{'f' * 64}", FILE),
        ("https://example.org/M.gguf@aaaaaaa", FILE),
    ],
)
def test_a_word_finds_what_is_cached(word: str, entry: Entry) -> None:
    assert found(word, CACHED, ROOT, ALIASES) == entry
    if word not in ("models/granite-7b-lab", "tiny/v1"):  # they read as models of the Hub too
        assert found(word, CACHED, ROOT, ALIASES, pull=True) == entry


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("Qwen/Qwen3-8B", "say which: hf://Qwen/Qwen3-8B:feature/x, hf://Qwen/Qwen3-8B:v1"),
        ("qwen", "say which: hf://Qwen/Qwen3-8B:feature/x, hf://Qwen/Qwen3-8B:v1"),
        (
            "granite-7b-lab",
            "say which: oci://quay.io/ai-lab/models/granite-7b-lab:v1.1, oci://ghcr.io/acme/granite-7b-lab:v1",
        ),
    ],
)
def test_what_may_be_several_is_never_guessed(word: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        found(word, [*CACHED, OLD_QWEN, NAMESAKE], ROOT, ALIASES)
    (diagnostic,) = raised.value.diagnostics
    assert (diagnostic.summary, diagnostic.hint) == (f'"{word}" may be each of several', hint)


def test_what_to_write_for_each_of_several_finds_it() -> None:
    moved = Entry(QWEN.source, QWEN.versions, "f" * 40)  # the same names, as a moved branch may leave them
    for entries in ([QWEN, OLD_QWEN], [QWEN, moved]):
        with pytest.raises(UserError) as raised:
            found("qwen", entries, ROOT, ALIASES)
        words = str(raised.value.diagnostics[0].hint).removeprefix("say which: ").split(", ")
        assert [found(word, entries, ROOT, ALIASES) for word in words] == entries


def test_a_whole_reference_comes_before_an_end_of_another() -> None:
    other = Entry("oci://quay.io/mirror/qwen/qwen3-8b", (), f"sha256-{'1' * 64}")
    assert found("qwen/qwen3-8b", [other, QWEN], ROOT, {}) == QWEN
    version = Entry("oci://quay.io/a/x", ("v1",), f"sha256-{'2' * 64}")
    repository = Entry("oci://quay.io/a/x/v1", (), f"sha256-{'3' * 64}")
    assert found("quay.io/a/x/v1", [version, repository], ROOT, {}) == repository
    with pytest.raises(UserError):
        found("x/v1", [version, repository], ROOT, {})


def test_what_is_not_cached_is_pulled_only_when_asked() -> None:
    with pytest.raises(UserError) as raised:
        found("acme/other:v1", CACHED, ROOT, ALIASES)
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.summary == '"acme/other:v1" is not in the manifest and not in the cache'
    assert diagnostic.hint == "run mp pull hf://acme/other:v1, or add --pull"
    wanted = Reference("hf", "huggingface.co", "acme/other", "v1")
    assert found("acme/other:v1", CACHED, ROOT, ALIASES, pull=True) == wanted


def test_an_end_of_a_source_that_reads_as_a_reference_is_not_pulled_by_guess() -> None:
    with pytest.raises(UserError) as raised:
        found("models/granite-7b-lab", CACHED, ROOT, ALIASES, pull=True)
    hint = raised.value.diagnostics[0].hint
    assert hint == "say which: hf://models/granite-7b-lab, oci://quay.io/ai-lab/models/granite-7b-lab:v1.1"


@pytest.mark.parametrize(
    ("word", "summary", "hint"),
    [
        ("Qwen/Qwen3-8B:v9", "is not in the manifest", "the cache has hf://Qwen/Qwen3-8B:feature/x"),
        ("Qwen/Qwen3-8B/v9", "is no repository of the Hub", "write hf://Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B@7777777", "where a commit belongs", "write all 40 hex digits"),
        ("Qwen/Qwen3-8B@4e1a6b", "where a commit belongs", "write all 40 hex digits"),
        ("granite-7b-lib", "is not in the manifest", 'did you mean "granite-7b-lab"?'),
        ("lab", "is not in the manifest", "with a whole reference"),
        ("quen:main", "is not in the manifest", 'did you mean "qwen"?'),
        ("./elsewhere", "is not in the manifest", "run mp pull file:///srv/project/elsewhere"),
        ("", "is not in the manifest", "with a whole reference"),
    ],
)
def test_what_is_unknown_is_an_error(word: str, summary: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        found(word, CACHED, ROOT, ALIASES)
    (diagnostic,) = raised.value.diagnostics
    assert summary in diagnostic.summary
    assert hint in (diagnostic.hint or "")


def test_pull_of_what_is_no_reference_says_what_to_write() -> None:
    with pytest.raises(UserError) as raised:
        found("nothing", CACHED, ROOT, ALIASES, pull=True)
    assert "is neither org/name" in raised.value.diagnostics[0].summary


@pytest.mark.parametrize(
    ("word", "entries"),
    [
        ("qwen", [QWEN, OLD_QWEN]),
        ("Qwen3-8B", [QWEN, OLD_QWEN]),
        ("qwen/v1", [OLD_QWEN]),
        ("quay.io/ai-lab/models/granite-7b-lab", [GRANITE]),
    ],
)
def test_a_word_may_mean_all_versions_of_one_source(word: str, entries: list[Entry]) -> None:
    assert fitting(word, [*CACHED, OLD_QWEN, NAMESAKE], ROOT, ALIASES) == entries


@pytest.mark.parametrize(
    ("word", "summary"),
    [
        ("granite-7b-lab", "may be each of several"),
        ("nothing", "is not in the manifest and not in the cache"),
        ("a/b/c", "is no repository of the Hub"),
        (
            "https://user:hunter2@example.org/x",
            'reference "https://…@example.org/x" has a user name or a password',
        ),
    ],
)
def test_all_versions_of_several_sources_or_of_none_are_an_error(word: str, summary: str) -> None:
    with pytest.raises(UserError) as raised:
        fitting(word, [*CACHED, NAMESAKE], ROOT, ALIASES)
    assert summary in raised.value.diagnostics[0].summary


def test_no_message_repeats_a_secret() -> None:
    for pull in (True, False):
        with pytest.raises(UserError) as raised:
            found("https://user:hunter2@example.org/M.gguf", CACHED, ROOT, ALIASES, pull=pull)
        assert "hunter2" not in str(raised.value.diagnostics)


def test_commands_select_by_the_sources_of_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(
        "version: 1\nproject: acme\ntargets: {box: {kind: local}}\naliases: {qwen: Qwen/Qwen3-8B}\nmodels:\n"
        "  one: {source: qwen, version: main, template: vllm, targets: {box: {}}}\n"
        "  two: {source: 'qwen:v2', template: vllm, targets: {box: {}}}\n"
        "  three: {source: ./here, template: vllm, targets: {box: {}}}\n"
    )
    session = open_session(options_from(tmp_path, "default", colour=False))

    assert session.models(["hf://Qwen/Qwen3-8B"]) == ("one", "two")
    assert session.models(["qwen:main"]) == session.owned(["Qwen/Qwen3-8B:main"]) == ("one",)
    assert session.models(["./here", "huggingface.co/Qwen/Qwen3-8B:v2"]) == ("two", "three")
