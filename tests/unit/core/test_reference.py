"""The grammar of references: what every way of writing one means, and what is refused with what to write instead."""

import string
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.core.errors import UserError
from pipeline.core.reference import HUB, SCHEMES, Reference, parse, scheme_of

ROOT = Path("/srv/project")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "sha256:" + "0123456789abcdef" * 4
QWEN = Reference("hf", HUB, "Qwen/Qwen3-8B")
ALIASES = {
    "qwen": "hf://Qwen/Qwen3-8B",
    "pinned": f"hf://Qwen/Qwen3-8B@{COMMIT}",
    "branch": "Qwen/Qwen3-8B:main",
    "granite": "quay.io/ai-lab/granite",
    "bucket": "s3://weights/llama",
    "folder": "./checkpoint",
    "again": "qwen:v1",
    "damaged": "hf://gpt2",
}


def refused(written: str, aliases: dict[str, str] | None = None) -> tuple[str, str]:
    """The summary and hint of the one problem that a text has."""
    with pytest.raises(UserError) as raised:
        parse(written, ROOT, aliases or {})
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.hint
    return diagnostic.summary, diagnostic.hint


@pytest.mark.parametrize(
    "written",
    [
        "hf://Qwen/Qwen3-8B",
        "HF://Qwen/Qwen3-8B/",
        "huggingface://Qwen/Qwen3-8B",
        "Qwen/Qwen3-8B",
        "huggingface.co/Qwen/Qwen3-8B",
        "HuggingFace.co/Qwen/Qwen3-8B",
        "hf.co/Qwen/Qwen3-8B",
        "hf://huggingface.co/Qwen/Qwen3-8B",
        "https://huggingface.co/Qwen/Qwen3-8B",
        "https://huggingface.co/Qwen/Qwen3-8B/",
        "http://huggingface.co/Qwen/Qwen3-8B",
        "qwen",
    ],
)
def test_one_model_of_the_hub_is_one_reference_however_it_is_written(written: str) -> None:
    assert parse(written, ROOT, ALIASES) == QWEN
    assert str(parse(written, ROOT, ALIASES)) == "hf://Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("Qwen/Qwen3-8B:main", "hf://Qwen/Qwen3-8B:main"),
        ("Qwen/Qwen3-8B:feature/x", "hf://Qwen/Qwen3-8B:feature/x"),
        ("Qwen/Qwen3-8B:refs/pr/3", "hf://Qwen/Qwen3-8B:refs/pr/3"),
        (f"Qwen/Qwen3-8B@{COMMIT}", f"hf://Qwen/Qwen3-8B@{COMMIT}"),
        (f"Qwen/Qwen3-8B:{COMMIT}", f"hf://Qwen/Qwen3-8B@{COMMIT}"),
        (f"Qwen/Qwen3-8B:main@{COMMIT}", f"hf://Qwen/Qwen3-8B:main@{COMMIT}"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "hf://Qwen/Qwen3-8B:main"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main/", "hf://Qwen/Qwen3-8B:main"),
        ("huggingface.co/Qwen/Qwen3-8B/tree/refs%2Fpr%2F3", "hf://Qwen/Qwen3-8B:refs/pr/3"),
        (f"https://huggingface.co/Qwen/Qwen3-8B/commit/{COMMIT}", f"hf://Qwen/Qwen3-8B@{COMMIT}"),
        ("quay.io/ai-lab/models/granite-7b-lab", "oci://quay.io/ai-lab/models/granite-7b-lab"),
        ("Quay.IO/ai-lab/x:V1.1", "oci://quay.io/ai-lab/x:V1.1"),
        ("localhost/x", "oci://localhost/x"),
        ("localhost:5000/x", "oci://localhost:5000/x"),
        ("localhost:5000/a/x:v1", "oci://localhost:5000/a/x:v1"),
        ("registry:5000/x:5000", "oci://registry:5000/x:5000"),
        ("[::1]:5000/x", "oci://[::1]:5000/x"),
        ("oci://registry/x", "oci://registry/x"),
        ("docker://quay.io/x:v1", "oci://quay.io/x:v1"),
        (f"quay.io/x@{SHA256}", f"oci://quay.io/x@{SHA256}"),
        (f"localhost:5000/x:v1@{SHA256}", f"oci://localhost:5000/x:v1@{SHA256}"),
        ("ollama://llama3.2", "oci://registry.ollama.ai/library/llama3.2"),
        ("ollama://llama3.2:1b", "oci://registry.ollama.ai/library/llama3.2:1b"),
        ("ollama://acme/llama3.2:1b", "oci://registry.ollama.ai/acme/llama3.2:1b"),
        ("s3://weights/llama", "s3://weights/llama"),
        ("S3://weights/llama/", "s3://weights/llama"),
        ("s3://weights/Runs/a:b@c/#1", "s3://weights/Runs/a:b@c/#1"),
        (f"s3://weights/llama@{SHA256}", f"s3://weights/llama@{SHA256}"),
        ("https://Example.org:8443/M.gguf", "https://example.org:8443/M.gguf"),
        ("http://example.org/a:b@c", "http://example.org/a:b@c"),
        (f"https://example.org/m.gguf@{SHA256}", f"https://example.org/m.gguf@{SHA256}"),
        ("./checkpoint", "file:///srv/project/checkpoint"),
        ("./a/../b/", "file:///srv/project/b"),
        (".", "file:///srv/project"),
        ("..", "file:///srv"),
        ("../shared/model.gguf", "file:///srv/shared/model.gguf"),
        ("/data/model", "file:///data/model"),
        ("//data/model", "file:///data/model"),
        ("file:///data/model", "file:///data/model"),
        ("FILE:///data/model", "file:///data/model"),
        ("/data/with space/a:b@c?d", "file:///data/with space/a:b@c?d"),
        (f"./m.gguf@{SHA256}", f"file:///srv/project/m.gguf@{SHA256}"),
        (f".@{SHA256}", f"file:///srv/project@{SHA256}"),
    ],
)
def test_canonical_form(written: str, canonical: str) -> None:
    found = parse(written, ROOT)
    assert str(found) == canonical
    assert parse(canonical, ROOT) == found
    assert parse(found.source, ROOT) == Reference(found.scheme, found.host, found.path)
    assert scheme_of(found.source) == found.scheme


def test_home_is_expanded() -> None:
    assert parse("~/models/a", ROOT).path == f"{Path.home()}/models/a"
    assert parse("~", ROOT).path == str(Path.home())
    assert "home folder" in refused("~nobody-of-that-name/x")[0]


def test_version_is_the_most_exact_one_that_is_said() -> None:
    assert parse("Qwen/Qwen3-8B", ROOT).version == ""
    assert parse("Qwen/Qwen3-8B:feature/x", ROOT).version == "feature/x"
    assert parse(f"quay.io/x:v1@{SHA256}", ROOT).version == SHA256


def test_another_version_of_a_model_is_a_branch_or_a_digest() -> None:
    assert str(QWEN.at("feature/x").at(COMMIT)) == f"hf://Qwen/Qwen3-8B@{COMMIT}"
    assert str(QWEN.at(COMMIT).at("main")) == "hf://Qwen/Qwen3-8B:main"
    assert str(parse("quay.io/x:v1", ROOT).at(SHA256)) == f"oci://quay.io/x@{SHA256}"


@pytest.mark.parametrize(
    ("written", "summary", "hint"),
    [
        ("", "is neither org/name", "write hf://org/name, or ./folder for a path"),
        ("llama", "is neither org/name", "write hf://org/llama, or ./llama for a path"),
        ("model.gguf", "is neither org/name", "./model.gguf for a path"),
        ("a/b/c", "is no repository of the Hub", "write hf://a/b for a model of the Hub, or ./a/b/c for a path"),
        ("ftp://host/x", "scheme ftp://", "use hf://, oci://, s3://, https://, http://, file:// or a path"),
        ("htps://host/x", "scheme htps://", 'did you mean "https://host/x"?'),
        ("hf:/Qwen/Qwen3-8B", "is no reference", "did you mean hf://Qwen/Qwen3-8B?"),
        ("C:/models/x", "begins with what is no host", "./ before a path"),
        ("hf://gpt2", "is no repository of the Hub", "write hf://org/gpt2"),
        ("hf://", "is no repository of the Hub", "write hf://org/name"),
        ("hf://acme/../etc", "is no repository of the Hub", "write hf://"),
        ("hf://acme//x", "is no repository of the Hub", "write hf://org/name"),
        ("hf://acme/x--y", "is no repository of the Hub", "write hf://org/name"),
        ("hf://datasets/acme/x", "is no repository of the Hub", "only models can be served"),
        ("hf://acme/tiny@v1", 'has "v1" after "@"', "or hf://acme/tiny:v1 for a branch or tag"),
        ("hf://acme/tiny@4e1a6b0", "where a commit belongs", "write all 40 hex digits"),
        (f"hf://acme/tiny@{SHA256}", "where a commit belongs", "write all 40 hex digits of the commit"),
        ("hf://acme/tiny:", "ends where a version should follow", "leave the mark out"),
        ("hf://acme/tiny@", "ends where a version should follow", "leave the mark out"),
        ("hf://acme/tiny:a..b", 'asks for "a..b", which no branch', "write hf://acme/tiny:main"),
        ("hf://acme/tiny:/main", "which no branch", "hf://acme/tiny:main"),
        ("hf://acme/tiny:a:b", "which no branch", "hf://acme/tiny:main"),
        ("huggingface.co/a/b/tree/%20", "which no branch", "hf://a/b:main"),
        (
            "https://huggingface.co/a/b/resolve/main/sub/m.gguf",
            "is one file of a model",
            'write hf://a/b:main, and files: {include: ["sub/m.gguf"]}',
        ),
        ("https://huggingface.co/a/b/blob/v1/m.gguf", "is one file", "hf://a/b:v1, and files:"),
        ("https://huggingface.co/a/b/tree/x/y", "is a folder", 'hf://a/b:x and files: {include: ["y/*"]}'),
        ("https://huggingface.co/a/b?token=hunter2", "has a query", "https://huggingface.co/a/b"),
        ("quay.io", "is neither org/name", "hf://org/quay.io"),
        ("oci://quay.io", "names no repository", "write oci://host/name:tag"),
        ("localhost:5000/", "names no repository", "write oci://host/name:tag"),
        ("quay.io/Acme/X", 'asks quay.io for "Acme/X"', "write oci://quay.io/acme/x"),
        ("quay.io/a/../x", "which no repository is called", "lower-case letters"),
        ("quay.io/x:a/b", "which no repository is called", "lower-case letters"),
        ("quay.io/x:", 'has "" after ":"', "a tag has letters"),
        ("quay.io/x:" + "v" * 129, "which no tag is called", "at most 128"),
        ("quay.io/x@sha256:abc", "where a digest belongs", "@sha256:<64 hex>"),
        (f"quay.io/x@{COMMIT}", "where a digest belongs", "@sha256:<64 hex>"),
        ("localhost:99999/x", "begins with what is no host", "host:port/name"),
        ("host_name:5000/x", "begins with what is no host", "host:port/name"),
        ("ollama://hf.co/a/b", "another registry than Ollama's", "write oci://hf.co/a/b"),
        ("s3://weights", "names nothing on its host", "write s3://bucket/prefix"),
        ("s3://Weights/x", 'asks for "Weights"', "lower-case letters"),
        ("s3://weights/a//b", "has an empty part", "write s3://bucket/prefix"),
        ("s3://weights/a/../b", 'has "." or ".."', "write the path without them"),
        (f"s3://weights/a@{SHA256}@{SHA256}", "where a digest belongs", "@sha256:<64 hex>"),
        ("https://example.org", "names nothing on its host", "write https://host/file"),
        ("https://example.org/a/", "has an empty part", "write https://host/file"),
        ("https://example.org/a/%2e%2e/b", 'has "." or ".."', "write the path without them"),
        ("https://example.org/m.gguf#x", "has a fragment", "https://example.org/m.gguf"),
        ("https://example.org/m@sha256:abc", "where a digest belongs", "@sha256:<64 hex>"),
        (" Qwen/Qwen3-8B", "has a space or a control character", "remove it"),
        ("Qwen/Qwen3-8B\n", "has a space or a control character", "remove it"),
        ("Qwen/Qwen3\u00a08B", "has a space or a control character", "remove it"),
        ("Qwen/\u202eQwen3-8B", "has a space or a control character", "remove it"),
        ("./a\nb", "has a control character", "rename the file"),
        ("/x\x00", "has a control character", "rename the file"),
        ("x@" * 50_000, "a reference of 100,000 characters is too long", "at most 4,096"),
        ("./m@sha256:abc/.", "has a name that ends as a digest", "rename the file"),
        ("./m@sha256:abc", "where a digest belongs", "@sha256:<64 hex>"),
    ],
)  # fmt: skip
def test_what_is_no_reference_says_what_to_write(written: str, summary: str, hint: str) -> None:
    found = refused(written)
    assert summary in found[0]
    assert hint in found[1]


@pytest.mark.parametrize(
    "written",
    [
        "https://user:hunter2@example.org/m.gguf",
        "https://hunter2@example.org",
        "https://user:hun/hunter2@example.org/m.gguf",
        "oci://user:hunter2@quay.io/x:v1",
        "user:hunter2@quay.io/x:v1",
        f"docker://user:hunter2@quay.io/x@{SHA256}",
        "ftp://user:hunter2@host/x",
        "https://example.org/m.gguf?X-Amz-Signature=hunter2",
        "example.org/m.gguf?token=hunter2",
        "s3://weights/m.gguf?X-Amz-Security-Token=hunter2",
        "ftp://host/x?hunter2",
    ],
)
def test_what_may_be_secret_is_refused_and_never_shown(written: str) -> None:
    assert "hunter2" not in "".join(refused(written))


def test_an_alias_takes_a_tag_or_a_digest() -> None:
    assert str(parse("qwen:feature/x", ROOT, ALIASES)) == "hf://Qwen/Qwen3-8B:feature/x"
    assert str(parse(f"branch@{COMMIT}", ROOT, ALIASES)) == f"hf://Qwen/Qwen3-8B:main@{COMMIT}"
    assert str(parse(f"granite:v1@{SHA256}", ROOT, ALIASES)) == f"oci://quay.io/ai-lab/granite:v1@{SHA256}"
    assert str(parse(f"bucket@{SHA256}", ROOT, ALIASES)) == f"s3://weights/llama@{SHA256}"
    assert str(parse("folder", ROOT, ALIASES)) == "file:///srv/project/checkpoint"


def test_an_alias_hides_neither_a_host_with_a_port_nor_a_scheme() -> None:
    aliases = {"registry": "hf://a/b", "hf": "hf://a/b", "qwen": "hf://a/b"}
    assert parse("registry:5000/x", ROOT, aliases).source == "oci://registry:5000/x"
    assert parse("hf://Qwen/Qwen3-8B", ROOT, aliases) == QWEN
    assert parse("qwen/x", ROOT, aliases).source == "hf://qwen/x"


@pytest.mark.parametrize(
    ("written", "summary", "hint"),
    [
        ("again", 'alias "again" stands for "qwen", which is an alias itself', 'what "qwen" stands for'),
        ("damaged", 'alias "damaged": reference "hf://gpt2" is no repository', "hf://org/gpt2"),
        ("bucket:v1", "asks s3:// for a tag", 'write "bucket"'),
        ("branch:v1", 'says two versions: "branch" stands for hf://Qwen/Qwen3-8B:main', "hf://Qwen/Qwen3-8B"),
        (f"pinned@{COMMIT}", "says two versions", "hf://Qwen/Qwen3-8B"),
        ("qwne:v1", "nor an alias", 'did you mean "qwen:v1"?'),
        ("qwen:", "ends where a version should follow", "leave the mark out"),
    ],
)
def test_what_an_alias_cannot_mean(written: str, summary: str, hint: str) -> None:
    found = refused(written, ALIASES)
    assert summary in found[0]
    assert hint in found[1]


WORD = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
NAME = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
HOST = st.builds(
    "{}.{}{}".format, WORD, WORD, st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format))
)
HEX = "0123456789abcdef"
DIGEST = st.just("") | st.text(HEX, min_size=64, max_size=64).map("sha256:{}".format)
BRANCH = st.lists(NAME, min_size=1, max_size=3).map("/".join)
KEY = st.lists(
    st.text(string.ascii_letters + ":@-_=+~éß中", min_size=1, max_size=8).filter(
        lambda part: "@sha256:" not in part
    ),
    min_size=1,
    max_size=4,
).map("/".join)
REFERENCES = st.one_of(
    st.builds(
        Reference,
        st.just("hf"),
        st.just(HUB),
        st.builds("{}/{}".format, NAME, NAME),
        st.just("") | BRANCH,
        st.just("") | st.text(HEX, min_size=40, max_size=40),
    ),
    st.builds(
        Reference,
        st.just("oci"),
        HOST,
        st.lists(WORD, min_size=1, max_size=3).map("/".join),
        st.just("") | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
        DIGEST,
    ),
    st.builds(
        Reference, st.just("s3"), st.from_regex(r"[a-z0-9]{3,20}", fullmatch=True), KEY, st.just(""), DIGEST
    ),
    st.builds(Reference, st.sampled_from(["https", "http"]), HOST, KEY, st.just(""), DIGEST),
    st.builds(Reference, st.just("file"), st.just(""), KEY.map("/{}".format), st.just(""), DIGEST),
)


@given(REFERENCES)
def test_every_reference_is_read_back_from_its_text(reference: Reference) -> None:
    assert parse(str(reference), ROOT) == reference
    assert parse(reference.source, ROOT).source == reference.source


@given(HOST, WORD, st.just("") | WORD)
def test_a_port_is_never_a_tag(host: str, name: str, tag: str) -> None:
    written = f"{host}/{name}:{tag}" if tag else f"{host}/{name}"
    assert parse(written, ROOT) == Reference("oci", host, name, tag)


@given(HOST, WORD, NAME)
def test_hosts_lose_their_case_and_nothing_else_does(host: str, name: str, key: str) -> None:
    assert parse(f"{host.upper()}/{name}:{key}", ROOT) == Reference("oci", host, name, key)
    assert parse(f"HTTPS://{host.upper()}/{key}", ROOT) == Reference("https", host, key)
    assert parse(f"{key}/{key}:{key}", ROOT) == Reference("hf", HUB, f"{key}/{key}", key)


@given(NAME, BRANCH)
def test_a_branch_may_have_slashes_on_every_way_in(name: str, branch: str) -> None:
    wanted = Reference("hf", HUB, f"org/{name}", branch)
    page = f"https://huggingface.co/org/{name}/tree/{branch.replace('/', '%2F')}"
    for written in (f"org/{name}:{branch}", f"hf://huggingface.co/org/{name}:{branch}", page):
        assert parse(written, ROOT) == wanted
    assert parse(f"a:b{branch}", ROOT, {"a": f"hf://org/{name}"}).tag == f"b{branch}"  # a:5000/x is a host


PIECES = st.sampled_from(
    ["hf", "oci", "s3", "https", "file", "ollama", "://", ":", "/", "//", "@", "..", ".", "~", "?", "#", "%2F", " ", "\n",
     "huggingface.co", "quay.io", "localhost", "5000", "a", "B", "main", "tree", "resolve", "[::1]", SHA256, COMMIT, "@sha256:"]
)  # fmt: skip


@given(st.text(max_size=40) | st.lists(PIECES, max_size=12).map("".join))
@example("a:5/x")
@example("@" + SHA256)
@example("file://")
@example("/@sha256:\x1f")
def test_whatever_is_written_is_a_reference_that_stays_itself_or_one_problem(written: str) -> None:
    try:
        found = parse(written, ROOT, {"a": "hf://Qwen/Qwen3-8B"})
    except UserError as problem:
        (diagnostic,) = problem.diagnostics
        assert diagnostic.hint
        assert diagnostic.summary.isprintable()
        return
    assert found.scheme in SCHEMES
    assert parse(str(found), ROOT) == found
    assert parse(found.source, ROOT).source == found.source
    assert ".." not in found.path.split("/")
    assert str(found).partition("://")[2].count("//") == 0


def test_file_of_another_machine_is_refused_and_localhost_is_this_one() -> None:
    with pytest.raises(UserError) as caught:
        parse("file://server/models/a", ROOT)
    assert "names another machine" in caught.value.diagnostics[0].summary
    assert parse("file://localhost/srv/a", ROOT) == parse("/srv/a", ROOT)
