"""What the files of one model are called: a precision, and behind it the cache where that is not the usual one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

CacheKind = Literal["fp32", "int8"]
"""What keys and values are kept in: the graph's own floats, or 8 bits with a scale for each channel."""
CACHE_KINDS: tuple[CacheKind, ...] = get_args(CacheKind)

VARIANTS = ("fp32", "fp16", "int8", "int4")
"""Precisions, in the order in which they are told, and in which the first there is stands for all."""
_BEHIND: Mapping[CacheKind, str] = {"fp32": "", "int8": "-kv8"}


def variant_name(precision: str, cache: CacheKind) -> str:
    """As `int4`, and `int4-kv8` with a cache of 8 bits."""
    return precision + _BEHIND[cache]


ORDER = (*VARIANTS, *(variant_name(name, "int8") for name in VARIANTS if name != "fp16"))
"""Every variant there can be, in the order in which they are told."""
