"""`mp cache prune` as a program: what it frees, and what it keeps."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.parts.cached import ok, path_of, said
from tests.parts.project import Project


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
