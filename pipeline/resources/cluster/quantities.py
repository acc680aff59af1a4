"""Amounts as Kubernetes writes them: "500m", "48Gi", 2, read as numbers. Pure.

The grammar is that of resource.Quantity (apimachinery, Kubernetes 1.36): a decimal number, then a suffix or an exponent.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeAlias

Amounts: TypeAlias = Mapping[str, Fraction]  # "memory" → bytes

_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(.*)")
_BINARY = {unit: 1024**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {unit: 1000**power for power, unit in enumerate(("", "k", "M", "G", "T", "P", "E"))}
_SMALL = {unit: Fraction(1, 1000**power) for power, unit in enumerate(("m", "u", "n"), start=1)}
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")


def amount(text: object) -> Fraction:
    """The number that a quantity stands for. Raises ValueError for what is none."""
    found = _NUMBER.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number, suffix = Fraction(found[1]), found[2]
    if exponent := _EXPONENT.fullmatch(suffix):
        return number * Fraction(10) ** int(exponent[1])
    factor = _BINARY.get(suffix) or _DECIMAL.get(suffix) or _SMALL.get(suffix)
    if factor is None:
        raise ValueError(f"{text!r} is no quantity")
    return number * factor


def together(found: Iterable[Amounts]) -> dict[str, Fraction]:
    total: defaultdict[str, Fraction] = defaultdict(Fraction)
    for each in found:
        for name, value in each.items():
            total[name] += value
    return dict(total)


def largest(found: Iterable[Amounts]) -> dict[str, Fraction]:
    """Of each name the largest amount."""
    most: dict[str, Fraction] = {}
    for each in found:
        most |= {name: max(value, most.get(name, value)) for name, value in each.items()}
    return most


def of_pod(spec: Mapping[str, Any], of: Callable[[Mapping[str, Any]], Amounts]) -> dict[str, Fraction]:
    """What a pod takes, `of` being what one container asks for: what runs before the others uses the same node's room.

    Larger of: the containers together, and each init container. One that stays beside those after it (restartPolicy: Always)
    counts with all of them. "Resource sharing within containers", Kubernetes 1.36.
    """
    staying: list[Amounts] = []
    moments: list[Amounts] = []
    for one in spec.get("initContainers") or ():
        moments.append(together([*staying, of(one)]))
        if one.get("restartPolicy") == "Always":
            staying.append(of(one))
    return largest([*moments, together([*staying, *map(of, spec.get("containers") or ())])])


def shown(resource: str, value: Fraction) -> str:
    """For messages: bytes in the largest unit that leaves two digits or more, other amounts as a plain number."""
    if "memory" in resource or "storage" in resource:
        for unit, factor in reversed(_BINARY.items()):
            if abs(value) >= factor:
                return f"{_plain(value / factor)}{unit}"
    return _plain(value)


def _plain(value: Fraction) -> str:
    return f"{float(value):.3f}".rstrip("0").rstrip(".")
