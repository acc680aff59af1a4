"""The first apply: 1,000 resources into an empty world, and its growth to 5,000."""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import TERRAFORM, Sample, paired, result, say
from benchmarks.world import MpWorld, TerraformWorld

GOAL = "cpu_ratio <= 0.1 (aim 0.05), growth_5000 <= 6"


def ours(folder: Path, numbers: Iterator[int], models: int) -> Sample:
    return MpWorld(folder / f"mp-{next(numbers)}", models).apply()


def terraforms(folder: Path, numbers: Iterator[int], resources: int) -> Sample:
    return TerraformWorld(folder / f"terraform-{next(numbers)}", resources).apply()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--models", type=int, default=250)
    asked = options.parse_args()
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mine, peers = paired(
            lambda: ours(folder, numbers, asked.models),
            (lambda: terraforms(folder, numbers, asked.models * 4)) if TERRAFORM else None,
            asked.runs,
        )
        grown = ours(folder, numbers, asked.models * 5)
    say(f"mp apply, {asked.models * 4} resources", mine)
    say(f"mp apply, {asked.models * 20} resources", grown)
    growth = grown.cpu_s / mine.cpu_s
    figure: dict[str, object] = {"cpu_s": round(mine.cpu_s, 3), "growth_5000": round(growth, 2)}
    if peers is None:
        result("apply", figure, "not measured", GOAL, holds=False)
        return
    say(f"terraform apply, {asked.models * 4} resources", peers)
    cpu = mine.cpu_s / peers.cpu_s
    figure["cpu_ratio"] = round(cpu, 3)
    result("apply", figure, "terraform apply -auto-approve", GOAL, holds=cpu <= 0.1 and growth <= 6)


if __name__ == "__main__":
    main()
