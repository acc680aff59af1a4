"""`mp cache list` and `path`, `mp list` and `show` as programs: what is here, and where it comes from."""

import hashlib
from pathlib import Path

from tests.fakes.hub import FakeHub
from tests.parts.cached import ADAPTER, FILES, WEIGHTS, ok, path_of, said
from tests.parts.project import Project


def test_list_shows_versions_sharing_and_adapters(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny", "acme/twin", "acme/fr-lora:v2"))

    lines = ok(user.mp("cache", "list")).out.splitlines()
    adapters = said(ok(user.mp("cache", "list", "--adapters", "--json")), "cached")["entries"]
    twin = said(ok(user.mp("cache", "list", "twin", "--json")), "cached")["entries"]

    assert lines[0].split() == ["REFERENCE", "VERSION", "PIN", "SIZE", "USED", "STATE"]
    assert [line.split()[0] for line in lines[1:4]] == [
        "hf://acme/fr-lora",
        "hf://acme/tiny",
        "hf://acme/twin",
    ]
    assert "complete, adapter" in lines[1]
    assert lines[-1] == "3 models: 4.19 MB on disk, 3.15 MB saved by sharing."
    assert [(each["source"], each["versions"]) for each in adapters] == [("hf://acme/fr-lora", ["v2"])]
    assert [each["source"] for each in twin] == ["hf://acme/twin"]


def test_cache_that_does_not_exist_is_empty(user: Project) -> None:
    assert ok(user.mp("cache", "list")).out == "The cache holds no model.\n"
    assert said(ok(user.mp("cache", "list", "--json")), "cached")["entries"] == []
    assert ok(user.mp("cache", "verify")).out == "Verified 0 models, 0 B read: 0 damaged, 0 sound.\n"
    assert ok(user.mp("cache", "prune")).out == "Nothing to free.\n"


def test_path_is_for_scripts(user: Project, hub: FakeHub) -> None:
    missing = user.mp("cache", "path", "acme/tiny")
    assert (missing.code, missing.out) == (1, "") and "mp pull hf://acme/tiny" in missing.err

    pulled = ok(user.mp("cache", "path", "acme/tiny", "--pull"))
    folder = Path(pulled.out.removesuffix("\n"))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert path_of(user, "tiny") == path_of(user, "tiny:main") == folder

    hub.commit("other/tiny", FILES)
    ok(user.mp("pull", "other/tiny"))
    several = user.mp("cache", "path", "tiny")
    assert (several.code, several.out) == (1, "")
    assert "hf://acme/tiny:main" in several.err and "hf://other/tiny:main" in several.err


def test_path_of_a_declared_model_is_its_locked_version(owner: Project, hub: FakeHub) -> None:
    assert owner.mp("cache", "path", "tiny").code == 1
    ok(owner.mp("pull", "tiny"))
    assert path_of(owner, "tiny").name == hub.repositories["acme/tiny"].branches["main"]


def test_list_and_show_of_a_project(owner: Project, hub: FakeHub) -> None:
    ok(owner.mp("pull", "tiny", "acme/twin"))

    rows = said(ok(owner.mp("list", "--cached", "--json")), "list")
    text = ok(owner.mp("list", "--cached")).out
    adapters = ok(owner.mp("list", "--adapters")).out.splitlines()

    total = sum(map(len, FILES.values())) + sum(map(len, ADAPTER.values()))
    assert [(each["model"], each["source"], each["size_bytes"]) for each in rows["models"]] == [
        ("tiny", "hf://acme/tiny", total)
    ]
    assert [(each["adapter"], each["state"], each["version"]) for each in rows["adapters"]] == [
        ("fr", "cached", "v2")
    ]
    assert [each["source"] for each in rows["cached"]] == ["hf://acme/twin"]
    assert [
        line for line in text.splitlines() if line and line.split()[0] in ("Models", "Adapters", "In")
    ] == [
        "Models",
        "Adapters",
        "In the cache, not declared here",
    ]
    assert adapters[1].split()[:3] == ["tiny", "fr", "cached"]


def test_show_tells_where_everything_comes_from(owner: Project, hub: FakeHub) -> None:
    ok(owner.mp("pull", "tiny"))

    shown = said(ok(owner.mp("show", "tiny", "--json")), "show")["models"][0]
    text = ok(owner.mp("show", "tiny")).out

    sources = shown["sources"]
    assert isinstance(sources, list)
    weights, adapter = sources
    assert (weights["role"], weights["versions"], weights["facts"]["license"]) == (
        "weights",
        ["main"],
        "apache-2.0",
    )
    assert weights["facts"]["layers"] == 2 and weights["facts"]["gated"] is False
    assert (
        weights["cached"]["complete"] and weights["cached"]["tool"] == "mp" and weights["missing_bytes"] == 0
    )
    assert {each["path"]: each["sha256"] for each in weights["files"]} == {
        path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()
    }
    assert adapter["role"] == "adapters.fr"
    assert "brought by mp" in text and str(path_of(owner, "tiny")) in text.replace("\n    ", "")


def test_show_of_a_cached_model_needs_no_manifest(user: Project) -> None:
    ok(user.mp("pull", "acme/tiny"))
    shown = said(ok(user.mp("show", "tiny", "--json")), "show")["models"][0]
    assert shown["declared"] is None and shown["model"] == "hf://acme/tiny"
    assert user.mp("show", "nothing").code == 1
