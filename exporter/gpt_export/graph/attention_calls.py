"""Calls of torch's own attention in a form that `torch.export` and its way to ONNX can follow.

Both ask in Python what makes no difference: whether the mask that was passed happens to be the causal one (its numbers
would have to be known), and whether `is_causal` is true, which people write as a condition on the length. And attention
becomes ONNX for heads in an axis of their own alone, neither without one nor with more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules import transformer

_patching = threading.RLock()
_RANK = 4
"""(batch, heads, sequence, width)."""


@contextlib.contextmanager
def attention_followed() -> Iterator[None]:
    """Inside, a mask of a TransformerEncoder is a mask, and `is_causal` a bool that holds from two positions on.

    With one position alone a causal mask hides nothing, so that `is_causal=length > 1` may as well be true there.
    """
    attend: Any = functional.scaled_dot_product_attention
    parts: Any = transformer
    detect = getattr(parts, "_detect_is_causal_mask", None)

    def attend_followed(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *others: Any, **named: Any
    ) -> Tensor:
        settled = [bool(each) if isinstance(each, torch.SymBool) else each for each in others]
        if isinstance(named.get("is_causal"), torch.SymBool):
            named["is_causal"] = bool(named["is_causal"])
        if query.dim() == _RANK or not query.dim() == key.dim() == value.dim() > 2:
            return attend(query, key, value, attn_mask, *settled, **named)  # type: ignore[no-any-return]
        lead = query.shape[:-2]
        mask = attn_mask
        if mask is not None and mask.dim() > 2:
            mask = _four_axes(mask.expand(*lead, *mask.shape[-2:]))
        heads = [_four_axes(each) for each in (query, key, value)]
        found: Tensor = attend(*heads, mask, *settled, **named)
        return found.reshape(*lead, *found.shape[-2:])

    def as_said(_mask: Any, is_causal: bool | None = None, _size: int | None = None) -> bool:
        return bool(is_causal)

    with _patching:
        functional.scaled_dot_product_attention = attend_followed
        if detect is not None:
            parts._detect_is_causal_mask = as_said
        try:
            yield
        finally:
            functional.scaled_dot_product_attention = attend
            if detect is not None:
                parts._detect_is_causal_mask = detect


def _four_axes(x: Tensor) -> Tensor:
    """`x` with what stands in front of its last two axes as a batch and heads."""
    return x.unsqueeze(1) if x.dim() < _RANK else x.flatten(1, -3)
