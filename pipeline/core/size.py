"""Sizes as people write them: "44GiB", "500MB". Used wherever a manifest names one."""

import re

PATTERN = (
    r"^[0-9]+(\.[0-9]+)?\s?(B|[kKMGTP]i?B?)$"  # a unit is never left out: 8 is bytes to one, GiB to another
)
LARGEST_BYTES = 2**60

_PARTS = re.compile(r"([0-9.]+)\s?([kKMGTP]?)(i?)B?")
_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def size_bytes(text: str) -> int:
    """Bytes of "44GiB", "4Gi" (powers of 1024), "500MB", "4G" (powers of 1000). Raises ValueError: what is wrong."""
    parts = _PARTS.fullmatch(text)
    if parts is None or not re.fullmatch(PATTERN, text):
        raise ValueError("is not a size")
    number, letter, binary = parts.groups()
    found = float(number) * (1024 if binary else 1000) ** _EXPONENTS[letter.lower()]
    if found > LARGEST_BYTES:
        raise ValueError("is more than 1 EiB")
    return int(found)
