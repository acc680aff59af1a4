"""A plan in which nothing changes: 1,000 resources with real drivers, and its growth to 5,000."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.measure import TERRAFORM, paired, result, say
from benchmarks.world import MpWorld, TerraformWorld

GOAL = "cpu_ratio <= 0.2 (aim 0.1), memory_ratio <= 0.5, growth_5000 <= 6 (aim 5.2)"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--models", type=int, default=250)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        small = MpWorld(Path(name) / "small", asked.models)
        small.apply()
        peer = TerraformWorld(Path(name) / "terraform", asked.models * 4) if TERRAFORM else None
        if peer is not None:
            peer.apply()
        ours, peers = paired(small.plan, peer.plan if peer else None, asked.runs)
        large = MpWorld(Path(name) / "large", asked.models * 5)
        large.apply()
        grown, _ = paired(large.plan, None, max(1, asked.runs // 2))
    say(f"mp plan, {asked.models * 4} resources", ours)
    say(f"mp plan, {asked.models * 20} resources", grown)
    growth = grown.cpu_s / ours.cpu_s
    figure: dict[str, object] = {"cpu_s": round(ours.cpu_s, 3), "growth_5000": round(growth, 2)}
    if peers is None:
        result("plan", figure, "not measured", GOAL, holds=False)
        return
    say(f"terraform plan, {asked.models * 4} resources", peers)
    cpu, memory = ours.cpu_s / peers.cpu_s, ours.peak_bytes / peers.peak_bytes
    figure |= {"cpu_ratio": round(cpu, 3), "memory_ratio": round(memory, 3)}
    holds = cpu <= 0.2 and memory <= 0.5 and growth <= 6
    result("plan", figure, "terraform plan -refresh=false", GOAL, holds=holds)


if __name__ == "__main__":
    main()
