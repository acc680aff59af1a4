"""Sizes as people write them."""

import pytest

from pipeline.core.size import size_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8Gi", 2**33),
        ("8GiB", 2**33),
        ("500M", 500_000_000),
        ("1.5K", 1500),
        ("1.5 kB", 1500),
        ("7B", 7),
        ("1T", 10**12),
        ("2Pi", 2**51),
    ],
)
def test_size_is_read_in_bytes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["512", "", "Gi", "1..5G", "4Gx", "-1G", "1 2G"])
def test_size_without_a_number_or_a_unit_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes(text)
