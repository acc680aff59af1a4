"""Every number has its unit, read from the name of its field."""

import pytest

from pipeline.cli.views import units
from pipeline.core.digest import Json
from pipeline.core.resource import Transfer


@pytest.mark.parametrize(
    ("path", "before", "after", "said"),
    [
        ("memory_bytes", 48 * 2**30, 32 * 2**30, "memory 48 GiB → 32 GiB"),
        ("memory_bytes", None, 1536 * 2**20, "memory none → 1.5 GiB"),
        ("gpu_memory_gib", 44, 80.5, "gpu memory 44 GiB → 80.5 GiB"),
        ("start_timeout_s", 600, 1200, "start timeout 600 s → 1,200 s"),
        ("port", 8000, 18000, "port 8000 → 18000"),
        ("max_model_len", 4096, 32768, "max model len 4,096 → 32,768"),
        ("running", True, False, "running yes → no"),
        ("launch/env/HF~1HOME", "/a", "/b", "launch env HF/HOME /a → /b"),
        (
            "digest",
            "sha256:" + "a" * 64,
            "sha256:" + "b" * 64,
            "digest sha256:aaaaaaaaaaaa → sha256:bbbbbbbbbbbb",
        ),
        ("digest", "a" * 64, "a" * 63 + "b", f"digest {'a' * 64} → {'a' * 63}b"),
        ("names", [], ["a", "b"], "names none → a, b"),
    ],
)
def test_difference(path: str, before: Json, after: Json, said: str) -> None:
    assert units.difference(path, before, after) == said


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_999, "1.00 MB"),
        (16_380_000_000, "16.38 GB"),
        (1_234_000_000_000_000, "1,234.00 TB"),
    ],
)
def test_transferred(size_bytes: int, said: str) -> None:
    assert units.transferred(size_bytes) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "40 ms"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, said: str) -> None:
    assert units.duration(seconds) == said


def test_what_moves_says_at_most_when_it_is_not_known() -> None:
    assert units.moved(Transfer(0, 2_000, 1_000, exact=False)) == "push at most 2.00 kB, reuse 1.00 kB"
    assert units.moved(Transfer()) == ""
