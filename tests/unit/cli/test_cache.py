"""What is said of the cache, and the rules by which entries go: pure parts and single commands."""

from pathlib import Path

import pytest

from pipeline.cli.main import run
from pipeline.cli.views import shelf, units
from pipeline.cli.views.entries import Fate, Pulled
from pipeline.cli.views.tables import Column, fitted
from pipeline.cli.views.text import WIDTH, tail
from pipeline.core.model import FileEntry
from pipeline.resources.cache.cached import Cached
from pipeline.resources.cache.reclaim import Reclaim
from pipeline.resources.cache.serving import served
from tests.unit.cli.building import artifact

NOW = 1_800_000_000.0


def entry(source: str = "hf://Qwen/Qwen3-8B", *, size: int = 12, **other: object) -> Cached:
    fields: dict[str, object] = {
        "versions": ("main",),
        "pin": "9c0d2f7a" * 5,
        "size_bytes": size,
        "files": (FileEntry("model.safetensors", size, "ab" * 32),),
        "path": Path("/cache/x"),
        "complete": True,
        "kind": "model",
        "fetched_at": None,
        "used_at": NOW - 3 * 86400,
    }
    return Cached(source, **{**fields, **other})  # type: ignore[arg-type]  # a table of fields


def test_entry_is_told_with_what_is_not_known() -> None:
    unknown = entry("", versions=(), files=(), complete=False)

    head, known, line = shelf.entries([entry(), unknown], NOW)

    assert head.split() == ["REFERENCE", "VERSION", "PIN", "SIZE", "USED", "STATE"]
    assert known == "hf://Qwen/Qwen3-8B  main     9c0d2f7  12 B  3 days ago  complete"
    assert line.split() == ["n/a", "n/a", "9c0d2f7", "12", "B", "3", "days", "ago", "damaged"]


def test_shared_bytes_count_once_in_the_last_line() -> None:
    assert (
        shelf.total([entry(), entry("hf://acme/twin")], 12)
        == "2 models: 12 B on disk, 12 B saved by sharing."
    )
    assert shelf.total([entry()], 12) == "1 model: 12 B on disk."


def test_pruning_says_what_frees_less_than_it_seems() -> None:
    plan = Reclaim((entry(),), (Path("/v"),), (), (), (), (), 2, NOW, False)

    told = shelf.fates([Fate(entry(), True, "old"), Fate(entry("hf://acme/twin"), False, "new")], plan)

    assert told.splitlines()[-3:] == [
        "And 1 folder of links that nothing here needs.",
        "",
        "Frees 2 B; the rest is shared with what stays.",
    ]


def test_pull_tells_what_was_fetched_and_what_was_here() -> None:
    one = Pulled("qwen", "weights", artifact(), Path("/cache/x"), 16_380_000_000, 125.0)
    here = Pulled("qwen", "tokenizer", artifact(), Path("/cache/x"), since="2026-01-31T12:00:00Z")

    assert shelf.pulled([one]).splitlines() == [
        "hf://Qwen/Qwen3-8B  main → 9c0d2f7  16.38 GB, fetched in 2 min 05 s",
        "  /cache/x",
    ]
    assert shelf.pulled([one, here]).splitlines()[1:] == [
        "hf://Qwen/Qwen3-8B (tokenizer)  main → 9c0d2f7  16.38 GB, here since 2026-01-31 12:00 UTC",
        "  /cache/x",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "just now"), (300, "5 min ago"), (7200, "2 h ago"), (172_800, "2 days ago")],
)
def test_ago_is_as_rough_as_people_say_it(seconds: float, text: str) -> None:
    assert units.ago(seconds) == text


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("hf://Qwen/Qwen3-8B", 18, "hf://Qwen/Qwen3-8B"),
        ("hf://Qwen/Qwen3-8B", 17, "…/Qwen/Qwen3-8B"),
        ("hf://Qwen/Qwen3-8B", 12, "…/Qwen3-8B"),
        ("hf://Qwen/Qwen3-8B", 5, "…3-8B"),
        ("file:///srv/x", 12, "…/srv/x"),
        ("abc", 0, ""),
    ],
)
def test_tail_begins_at_a_slash_so_that_it_can_be_typed(text: str, width: int, shown: str) -> None:
    assert tail(text, width) == shown


def test_table_takes_from_its_widest_columns_and_keeps_pins_whole() -> None:
    shape = (Column("A", 10), Column("PIN"), Column("B", 10, ends=True))

    head, line = fitted(shape, [("a" * 80, "9c0d2f7", "b/" * 40)])

    assert WIDTH - 2 <= len(line) <= WIDTH and "9c0d2f7" in line and line.endswith("b/")
    assert head.split() == ["A", "PIN", "B"]
    assert fitted(shape, [("a", "9c0d2f7", "b")])[1] == "a  9c0d2f7  b"


def test_views_of_running_servers_and_containers_are_known(tmp_path: Path) -> None:
    for number, (name, text) in enumerate(
        {
            "cmdline": "python\0serve.py\0--model=/home/me/.cache/mp/views/0123456789ab\0",
            "mountinfo": "36 35 98:0 /root/.cache/mp/views/ba9876543210 /models ro - ext4 /dev/vda rw\n",
            "environ": "X=/views/ffffffffffff",
        }.items()
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).write_text(text)
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys" / "cmdline").write_text("/views/eeeeeeeeeeee")

    assert served(tmp_path) == {"0123456789ab", "ba9876543210"}


def test_prune_wants_one_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-C", str(tmp_path), "cache", "prune", "--all", "--older-than", "3"]) == 1
    assert run(["-C", str(tmp_path), "cache", "prune", "--older-than", "-1"]) == 1
    assert capsys.readouterr().err.count("error: ") == 2
