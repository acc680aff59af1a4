"""`mp pull` as a program: what it fetches, what it says, and what it never does."""

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

from tests.fakes.hub import FakeHub, Fault
from tests.parts.cached import CONFIG, FILES, WEIGHTS, ok, path_of, rot, said
from tests.parts.project import MP, Project


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
        assert file.stat().st_ino != (cached / file.name).stat().st_ino
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
