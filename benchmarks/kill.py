"""SIGKILL at random moments of an apply: the inventory stays readable, nothing exists twice, the next apply finishes."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import MP, TERRAFORM, result
from benchmarks.world import MpWorld, TerraformWorld

GOAL = "0 unreadable inventories, 0 duplicates, 0 wrong next plans"
CHANGES = 2


def killed(argv: Sequence[str], cwd: Path, env: Mapping[str, str], after_s: float) -> bool:
    """Start a program and SIGKILL its group; False when it was done before."""
    with (cwd / "killed.log").open("wb") as out:
        child = subprocess.Popen(
            list(argv), cwd=cwd, env=dict(env), stdout=out, stderr=out, start_new_session=True
        )
    try:
        child.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return True


def duplicates(world: MpWorld) -> int:
    """Images beyond the one that each repository of each layout may hold, and tags that stand twice."""
    extra = 0
    for index in (world.folder / "registries").glob("*/*/index.json"):
        manifests = json.loads(index.read_text())["manifests"]
        extra += len(manifests) - len({m["digest"] for m in manifests}) + max(0, len(manifests) - 1)
    return extra


def images(world: MpWorld) -> int:
    return len(list((world.folder / "registries").glob("*/*/index.json")))


def reset(world: MpWorld) -> None:
    for name in ("registries", "cache", ".mp"):
        shutil.rmtree(world.folder / name, ignore_errors=True)


class Tally:
    """What went wrong, by kind; all zero is the goal."""

    def __init__(self) -> None:
        self.kills = self.cut_off = self.midway = self.unreadable = self.duplicates = self.wrong_plans = 0

    def check(self, world: MpWorld, wanted_images: int) -> None:
        """Everything a user would do after the kill, by the command line."""
        try:
            first = world.run("plan", "--detailed-exitcode", accept=(0, CHANGES))
        except SystemExit as failure:
            print(failure)
            self.unreadable += 1
            return
        before = images(world)
        self.midway += 0 < before < wanted_images  # the interesting moments: some images are there, not all
        try:
            world.apply()
            last = world.run("plan", "--detailed-exitcode", accept=(0, CHANGES))
        except SystemExit as failure:
            print(failure)
            self.wrong_plans += 1
            return
        self.duplicates += duplicates(world)
        # the plan after the kill may say "nothing" only when nothing was left to do, the last one must
        if (
            last.status != 0
            or images(world) != wanted_images
            or (first.status == 0) != (before == wanted_images)
        ):
            self.wrong_plans += 1


def terraform_empties(folder: Path, kills: int, chance: random.Random) -> int:
    """How many of the kills leave terraform without a readable state, although it had reported resources as made."""
    empty = 0
    for number in range(kills):
        world = TerraformWorld(folder / f"terraform-{number}", 400)
        argv = [str(TERRAFORM), "apply", "-auto-approve", "-input=false", "-no-color"]
        killed(argv, world.folder, world.environ, 2.5 + chance.random() * 4)
        made = (world.folder / "killed.log").read_text(errors="replace").count("Creation complete")
        state = world.folder / "terraform.tfstate"
        try:
            whole = bool(json.loads(state.read_text())["resources"])
        except (OSError, ValueError, KeyError):
            whole = False
        empty += made > 0 and not whole
        shutil.rmtree(world.folder)
    return empty


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--peer-kills", type=int, default=12)
    options.add_argument("--models", type=int, default=60)
    options.add_argument("--seed", type=int, default=int(time.time()))
    asked = options.parse_args()
    chance = random.Random(asked.seed)
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        world = MpWorld(Path(name) / "mp", asked.models)
        world.lock()
        starting_s = world.run("plan").wall_s * 0.8  # until about here an apply only reads
        whole_s = world.apply().wall_s
        print(
            f"seed {asked.seed}; an apply of {asked.models * 4} resources takes {whole_s:.2f} s", flush=True
        )
        for _ in range(asked.kills):
            reset(world)
            tally.kills += 1
            moment_s = starting_s + chance.random() * (whole_s - starting_s)
            tally.cut_off += killed([*MP, "apply", "--yes"], world.folder, world.environ, moment_s)
            tally.check(world, asked.models * 3)
        peer = "not measured"
        if TERRAFORM:
            empty = terraform_empties(Path(name), asked.peer_kills, chance)
            peer = f"terraform: {empty} of {asked.peer_kills} left an empty state"
    holds = bool(TERRAFORM) and not (tally.unreadable or tally.duplicates or tally.wrong_plans)
    result("kill", vars(tally), peer, GOAL, holds=holds)


if __name__ == "__main__":
    main()
