"""`mp pull` and `mp cache …` as programs against the fake Hub: what they fetch, print, keep and free."""

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from pipeline.cli.views.schema import SCHEMAS
from tests.fakes.hub import FakeHub, Fault
from tests.parts.project import MP, Project, Result

CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}).encode()
WEIGHTS = random.Random(1).randbytes(3 << 20)
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
ADAPTER = {
    "adapter_config.json": b'{"r": 4}',
    "adapter_model.safetensors": random.Random(2).randbytes(1 << 20),
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as running:
        running.commit("acme/tiny", FILES)
        running.repositories["acme/tiny"].license = "apache-2.0"
        running.commit("acme/twin", FILES | {"tokenizer.json": b"[]"})
        running.commit("acme/fr-lora", ADAPTER, branch="v2")
        yield running


@pytest.fixture
def user(hub: FakeHub, tmp_path: Path) -> Project:
    """Somebody in a folder without models.yaml."""
    folder = tmp_path / "folder"
    folder.mkdir()
    environ = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": "",
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "HF_HUB_OFFLINE": "",
        "COLUMNS": "100",
    }
    return Project(folder, tmp_path / "cache", environ)


@pytest.fixture
def owner(user: Project) -> Project:
    """The same, with a locked project."""
    user.write(
        {
            "version": 1,
            "project": "acme",
            "defaults": {"template": "vllm", "hardware": "gpu"},
            "hardware": {"gpu": {"gpu": "L40S", "gpus": 1}},
            "registries": {"here": {"layout": "registry"}},
            "targets": {"shelf": {"kind": "registry", "publish": ["weights"]}},
            "aliases": {"little": "hf://acme/tiny"},
            "models": {
                "tiny": {
                    "source": "little",
                    "version": "main",
                    "adapters": {"fr": {"source": "hf://acme/fr-lora", "version": "v2"}},
                    "targets": {"shelf": {}},
                }
            },
        }
    )
    ok(user.mp("lock"))
    return user


def ok(result: Result) -> Result:
    assert result.code == 0, result.text
    return result


def said(result: Result, name: str) -> dict[str, list[dict[str, object]]]:
    """JSON of a result that keeps to its schema."""
    found = result.json()
    jsonschema.validate(found, SCHEMAS[name]())
    assert isinstance(found, dict)
    return found


def path_of(user: Project, *words: str) -> Path:
    return Path(ok(user.mp("cache", "path", *words)).out.strip())


def inode(path: Path) -> int:
    return path.stat().st_ino


# pull


def test_pull_says_what_a_branch_is_and_where_it_lies(user: Project, hub: FakeHub) -> None:
    result = ok(user.mp("pull", "acme/tiny"))

    commit = hub.repositories["acme/tiny"].branches["main"]
    head, folder = result.out.splitlines()
    assert head.startswith(f"hf://acme/tiny  main → {commit[:7]}  3.15 MB, fetched in ")
    assert {
        file.name: file.read_bytes() for file in Path(folder.strip()).iterdir() if file.name[0] != "."
    } == FILES


def test_what_is_here_is_asked_of_nobody(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny", "acme/fr-lora:v2"))
    hub.log.clear()

    commit = hub.repositories["acme/tiny"].branches["main"]
    for word in (
        "acme/tiny",
        "hf://acme/tiny:main",
        "huggingface.co/acme/tiny",
        f"acme/tiny@{commit}",
        "fr-lora",
    ):
        result = ok(user.mp("pull", word))
        assert ", here since 20" in result.out, result.text

    assert hub.log == []


def test_moved_branch_is_taken_over_only_when_it_is_asked_for(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny"))
    moved = hub.commit("acme/tiny", FILES | {"tokenizer.json": b"[1]"})

    assert moved[:7] not in ok(user.mp("pull", "acme/tiny")).out
    upgraded = ok(user.mp("pull", "acme/tiny", "--upgrade")).out

    assert f"main → {moved[:7]}  3.15 MB, 3 B of it fetched" in upgraded
    assert path_of(user, "acme/tiny:main").name == moved


def test_another_choice_of_files_is_not_taken_for_the_whole(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny", "--include", "*.json", "--format", "text"))
    assert hub.asked("GET /lfs/") == []

    whole = said(ok(user.mp("pull", "acme/tiny", "--json")), "pulled")["pulled"][0]

    assert (whole["files"], whole["fetched_bytes"]) == (3, len(WEIGHTS))


def test_declared_model_comes_as_it_is_locked_with_all_its_sources(owner: Project, hub: FakeHub) -> None:
    pins = {name: next(iter(each.branches.values())) for name, each in hub.repositories.items()}
    hub.commit("acme/tiny", FILES | {"tokenizer.json": b"[1]"})

    found = said(ok(owner.mp("pull", "tiny", "--json")), "pulled")["pulled"]

    assert [(each["role"], each["pin"]) for each in found] == [
        ("weights", pins["acme/tiny"]),
        ("adapters.fr", pins["acme/fr-lora"]),
    ]
    hub.log.clear()
    assert ok(owner.mp("pull", "tiny")).out.count("here since") == 2
    assert hub.log == []


def test_declared_model_that_is_not_locked_is_not_guessed(owner: Project) -> None:
    (owner.folder / "models.lock").unlink()
    result = owner.mp("pull", "tiny")
    assert (result.code, result.out) == (3, "")
    assert "not in models.lock" in result.err and "run mp lock tiny" in result.err


def test_everything_wrong_is_told_at_once_and_the_right_ones_come(user: Project, hub: FakeHub) -> None:
    result = user.mp("pull", "nothing", "acme/nothing", "oci://127.0.0.1:1/x:v1")
    assert result.code == 1 and "3 errors" in result.err and "hint:" in result.err

    hub.faults.append(Fault(r"GET /lfs/", corrupt_at=1000))
    result = user.mp("pull", "acme/tiny", "acme/fr-lora:v2")
    assert result.code == 1 and '"model.safetensors" has sha256' in result.err
    assert result.out.startswith("hf://acme/fr-lora  v2 →")


def test_copies_belong_to_the_user(user: Project) -> None:
    result = ok(user.mp("pull", "acme/tiny", "--destination", "copy"))

    copy = user.folder / "copy"
    assert result.out.splitlines()[-1] == f"  {copy}"
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == FILES
    cached = path_of(user, "acme/tiny")
    for file in copy.iterdir():
        assert inode(file) != inode(cached / file.name)
        assert file.stat().st_mode & 0o200, "theirs to edit"
    (copy / "config.json").write_bytes(b"edited")
    assert (cached / "config.json").read_bytes() == CONFIG


def test_folder_with_other_files_is_refused_before_a_byte_moves(user: Project, hub: FakeHub) -> None:
    for name, content in {"notes.txt": b"mine", "config.json": CONFIG.replace(b"2", b"3")}.items():
        folder = user.folder / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(content)
        result = user.mp("pull", "acme/tiny", "--destination", str(folder))
        assert result.code == 4 and name in result.err, result.text
        assert (folder / name).read_bytes() == content
        if name == "notes.txt":
            assert hub.asked("GET /lfs/") == []


def test_copy_goes_on_in_a_folder_that_holds_a_part_of_it(user: Project) -> None:
    ok(user.mp("pull", "acme/tiny", "--destination", "copy"))
    (user.folder / "copy" / "model.safetensors").unlink()
    (user.folder / "copy" / ".mp-partial-0123456789ab").write_bytes(b"cut off")

    ok(user.mp("pull", "acme/tiny", "--destination", "copy"))

    assert {file.name: file.read_bytes() for file in (user.folder / "copy").iterdir()} == FILES


def test_damaged_blob_is_never_copied(user: Project) -> None:
    ok(user.mp("pull", "acme/tiny"))
    blob = (
        user.cache / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()[:2] / hashlib.sha256(WEIGHTS).hexdigest()
    )
    rot(blob)

    result = user.mp("pull", "acme/tiny", "--destination", "copy")
    assert result.code == 1 and '"model.safetensors" changed on this disk' in result.err
    ok(user.mp("pull", "acme/tiny", "--destination", "copy"))

    assert (user.folder / "copy" / "model.safetensors").read_bytes() == WEIGHTS


def rot(file: Path) -> None:
    """Flip a byte so that nobody sees it without reading."""
    look = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(1000)
        stream.write(bytes([WEIGHTS[1000] ^ 1]))
    os.utime(file, ns=(look.st_atime_ns, look.st_mtime_ns))
    file.chmod(0o444)


def test_interrupted_pull_goes_on(user: Project, hub: FakeHub) -> None:
    hub.commit("acme/slow", {"config.json": CONFIG, "model.safetensors": random.Random(5).randbytes(8 << 20)})
    hub.faults.append(Fault("GET /lfs/", cut_after_bytes=5 << 20))
    hub.faults.append(Fault("GET /lfs/", stall_s=30.0))
    environ = {**os.environ, "MP_CACHE": str(user.cache), **user.environ}
    words = [str(MP), "pull", "acme/slow"]
    running = subprocess.Popen(words, cwd=user.folder, env=environ, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(hub.asked("GET /lfs/")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "run the same command again" in err and "Traceback" not in err
    hub.faults.clear()
    hub.log.clear()

    again = said(ok(user.mp("pull", "acme/slow", "--json")), "pulled")["pulled"][0]

    assert again["fetched_bytes"] == 3 << 20
    assert [each.headers.get("range") for each in hub.asked("GET /lfs/")] == [f"bytes={5 << 20}-"]


def test_offline_has_what_is_here_and_says_what_is_not(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny"))
    hub.log.clear()

    ok(user.mp("--offline", "pull", "acme/tiny"))
    result = user.mp("--offline", "pull", "acme/twin")

    assert result.code == 1 and "offline" in result.err.lower()
    assert hub.log == []


# cache list, path, verify


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


def test_verify_finds_rot_drops_it_and_the_next_pull_mends_it(user: Project, hub: FakeHub) -> None:
    ok(user.mp("pull", "acme/tiny", "acme/twin"))
    assert ok(user.mp("cache", "verify")).out.endswith("0 damaged, 2 sound.\n")
    rot(path_of(user, "acme/tiny") / "model.safetensors")

    found = said(user.mp("cache", "verify", "--json"), "verified")["damage"]
    result = user.mp("cache", "verify")

    assert [(each["source"], each["path"], each["problem"]) for each in found] == [
        ("hf://acme/tiny", "model.safetensors", "wrong"),
        ("hf://acme/twin", "model.safetensors", "wrong"),
    ]
    assert result.code == 1 and "2 damaged, 0 sound." in result.out
    assert "damaged" in ok(user.mp("cache", "list")).out
    ok(user.mp("pull", "acme/tiny", "acme/twin"))
    ok(user.mp("cache", "verify"))


# prune


def used_bytes(root: Path) -> int:
    seen = {(look.st_dev, look.st_ino): look.st_blocks * 512 for look in looks(root)}
    return sum(seen.values())


def looks(root: Path) -> Iterator[os.stat_result]:
    for folder, _, files in os.walk(root):
        for name in files:
            yield Path(folder, name).lstat()


def age(user: Project, name: str, days: int) -> None:
    """As if the model had not been used for so long."""
    then = time.time() - days * 86400
    os.utime(path_of(user, name) / ".metadata", (then, then))


def test_prune_keeps_what_is_locked_and_removes_what_is_old(owner: Project) -> None:
    ok(owner.mp("pull", "tiny", "acme/twin"))
    for name in ("acme/tiny", "acme/twin"):
        age(owner, name, 45)
    before = used_bytes(owner.cache)

    dry = ok(owner.mp("cache", "prune", "--dry-run")).out
    plan = said(ok(owner.mp("cache", "prune", "--dry-run", "--json")), "pruned")
    assert used_bytes(owner.cache) == before
    asked = owner.mp("cache", "prune")
    done = said(ok(owner.mp("cache", "prune", "--yes", "--json")), "pruned")

    rules = {str(each["source"]): (each["goes"], each["rule"]) for each in plan["entries"]}
    assert rules["hf://acme/tiny"] == (False, "models.lock: tiny")
    assert rules["hf://acme/twin"] == (True, "last used 45 days ago, limit 30 days")
    assert "Goes\n" in dry and "Stays\n" in dry
    assert asked.code == 1 and "--yes" in asked.err
    assert plan["freed_bytes"] is None
    assert done["freed_bytes"] == plan["would_free_bytes"] == before - used_bytes(owner.cache)
    assert {each["source"] for each in said(owner.mp("cache", "list", "--json"), "cached")["entries"]} == {
        "hf://acme/tiny",
        "hf://acme/fr-lora",
    }
    ok(owner.mp("cache", "verify"))


def test_prune_all_keeps_only_the_projects_own(owner: Project, tmp_path: Path) -> None:
    ok(owner.mp("pull", "tiny", "acme/twin"))
    assert "Nothing to free" in ok(owner.mp("cache", "prune", "--yes")).out
    assert "may be in use" in ok(owner.mp("cache", "prune", "--older-than", "0", "--yes")).out

    ok(owner.mp("cache", "prune", "--all", "--yes"))
    left = [each["source"] for each in said(owner.mp("cache", "list", "--json"), "cached")["entries"]]
    assert left == ["hf://acme/fr-lora", "hf://acme/tiny"]

    ok(owner.mp("-C", str(tmp_path), "cache", "prune", "--all", "--yes"))
    assert said(owner.mp("cache", "list", "--json"), "cached")["entries"] == []
    assert owner.mp("cache", "prune", "--all", "--older-than", "3").code == 1


def test_manifest_that_cannot_be_read_removes_nothing(owner: Project) -> None:
    ok(owner.mp("pull", "tiny"))
    before = used_bytes(owner.cache)
    (owner.folder / "models.lock").write_text("{ cut o")
    assert owner.mp("cache", "prune", "--all", "--yes").code == 1
    (owner.folder / "models.yaml").write_text("version: 1\nmodels: [")
    assert owner.mp("cache", "prune", "--all", "--yes").code == 1
    assert used_bytes(owner.cache) == before


# import


def test_import_takes_over_the_cache_of_the_hubs_own_client(user: Project, hub: FakeHub) -> None:
    snapshot = "from huggingface_hub import snapshot_download; snapshot_download('acme/tiny')"
    environ = {**os.environ, **user.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([str(MP.with_name("python")), "-c", snapshot], env=environ, check=True, timeout=120)
    hub.log.clear()

    dry = ok(user.mp("cache", "import", "--dry-run"))
    assert "to copy" in dry.out and not user.cache.exists()
    found = said(ok(user.mp("cache", "import", "--json")), "imported")["found"]
    again = ok(user.mp("cache", "import"))
    moved = ok(user.mp("cache", "import", "--from", "huggingface", "--move"))

    assert [(each["source"], each["versions"]) for each in found] == [("hf://acme/tiny", ["main"])]
    assert found[0]["entry"] is not None and "here already" in again.out and "1 moved" in moved.out
    assert (path_of(user, "tiny") / "model.safetensors").read_bytes() == WEIGHTS
    assert list(Path(user.environ["HF_HOME"], "hub").glob("models--*")) == []
    assert hub.log == []
    ok(user.mp("cache", "verify"))


def test_import_of_another_folder_guesses_no_version(user: Project, tmp_path: Path) -> None:
    model = tmp_path / "lab" / "models" / "instructlab" / "granite-7b-lab"
    model.mkdir(parents=True)
    for name, content in FILES.items():
        (model / name).write_bytes(content)

    ok(user.mp("cache", "import", str(tmp_path / "lab"), "--from", "instructlab"))

    row = ok(user.mp("cache", "list", "granite-7b-lab")).out.splitlines()[1].split()
    assert row[:2] == ["hf://instructlab/granite-7b-lab", "n/a"]
    assert user.mp("cache", "import", str(tmp_path / "nowhere")).code == 1


# list and show


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


@pytest.fixture
def moved(user: Project, hub: FakeHub, tmp_path: Path) -> Project:
    """The same cache on another disk: every file as it was, every inode another."""
    assert user.mp("pull", "acme/tiny").code == 0
    subprocess.run(["cp", "-a", str(user.cache), str(tmp_path / "moved")], check=True)
    hub.log.clear()
    return Project(user.folder, tmp_path / "moved", user.environ)


def test_a_copied_cache_is_pulled_from_without_a_network(moved: Project, hub: FakeHub) -> None:
    assert moved.mp("cache", "list", "--json").json()["entries"][0]["complete"] is False
    result = moved.mp("--offline", "pull", "acme/tiny")
    assert result.code == 0, result.text
    assert moved.mp("cache", "list", "--json").json()["entries"][0]["complete"] is True
    assert not hub.asked()


def test_verify_remembers_how_a_copied_cache_looks(moved: Project, hub: FakeHub) -> None:
    (before,) = moved.mp("cache", "list", "--json").json()["entries"]
    assert moved.mp("cache", "verify").code == 0
    (entry,) = moved.mp("cache", "list", "--json").json()["entries"]
    assert entry["complete"] is True
    assert {name: entry[name] for name in ("versions", "pin", "fetched_at", "size_bytes")} == {
        name: before[name] for name in ("versions", "pin", "fetched_at", "size_bytes")
    }
    assert moved.mp("--offline", "pull", "acme/tiny").code == 0
    assert not hub.asked()


def test_a_wrong_file_of_a_copied_cache_alone_is_fetched(moved: Project, hub: FakeHub) -> None:
    (weights,) = (moved.cache / "models").rglob("model.safetensors")
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.write(b"wrong")
    result = moved.mp("--offline", "pull", "acme/tiny")
    assert result.code == 1
    assert '"model.safetensors"' in result.text
    assert moved.mp("pull", "acme/tiny").code == 0
    assert [request.path.split("?")[0] for request in hub.asked("/resolve/")] == [
        f"/acme/tiny/resolve/{hub.repositories['acme/tiny'].branches['main']}/model.safetensors"
    ]
    assert moved.mp("cache", "verify").code == 0
