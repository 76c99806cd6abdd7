"""Numbers as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence

TIMES = "\N{MULTIPLICATION SIGN}"


def number(value: float) -> str:
    """A number to three digits, in full where that is short."""
    if math.isnan(value):
        return "NaN"
    if abs(value) >= 1e300:
        return "beyond measure"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def limit_ratio(error: float, limit: float) -> float:
    """`error` in units of `limit`, infinite where nothing is allowed."""
    return error / limit if limit > 0 else (math.inf if error else 0.0)


def share(ratio: float) -> str:
    """A share of what is allowed: a percentage, or a multiple where it is far over."""
    if math.isnan(ratio):
        return "NaN"
    if ratio >= 1e300:
        return "beyond measure"
    if ratio >= 10:
        return f"{ratio:,.0f}{TIMES}" if ratio < 1e6 else f"{ratio:.1e}{TIMES}"
    percent = 100 * ratio
    return f"{percent:.0f}%" if percent >= 10 or percent == 0 else f"{percent:.2g}%"


def of_limit(ratio: float) -> str:
    """`share` in a sentence."""
    return f"{share(ratio)} {'of ' if ratio < 10 else ''}the limit"


def agreement(fraction: float) -> str:
    """A share of positions; 100% only where it is all of them."""
    return "100%" if fraction == 1 else f"{min(fraction, 0.9999):.2%}"


def size(size_bytes: int) -> str:
    """Bytes in the largest decimal unit that leaves a number above one."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} bytes"


def count(n: int, noun: str) -> str:
    """`n` of something, in the plural where it is not one."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """The words in a row, with "and" in front of the last."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
