"""Mixtures of experts of transformers in operators of fixed shapes.

Their own code visits the experts that were chosen, one after another, which no graph of `torch.export` can follow.
transformers lets that be replaced (`use_experts_implementation` says how a class keeps its weights); here every expert
sees every token, and what a token did not choose counts nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

_DECLARED = ("has_gate", "has_bias", "is_transposed", "has_post_expert_norm", "_is_expert_parallel", "_apply_gate")
"""What transformers sets on a class of experts whose way of computing may be replaced."""


@contextlib.contextmanager
def experts_side_by_side(module: nn.Module) -> Iterator[None]:
    """Inside, each part of `module` that is experts of transformers computes all of them for every token."""
    replaced = [part for part in module.modules() if all(hasattr(part, name) for name in _DECLARED)]
    own = {part: part.__dict__["forward"] for part in replaced if "forward" in part.__dict__}
    for part in replaced:
        part.forward = MethodType(_side_by_side, part)
    try:
        yield
    finally:
        for part in replaced:
            del part.__dict__["forward"]
        for part, forward in own.items():
            part.__dict__["forward"] = forward


def _side_by_side(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """The experts' sum, (tokens, width), of tokens (tokens, width), each with its choices and weights (tokens, k)."""
    up = self.gate_up_proj if self.has_gate else self.up_proj
    experts = torch.arange(up.shape[0], device=top_k_index.device)
    chosen = (top_k_index[:, :, None] == experts).to(top_k_weights.dtype)
    weights = (chosen * top_k_weights[:, :, None]).sum(1)  # (tokens, experts)
    up_bias = (self.gate_up_proj_bias if self.has_gate else self.up_proj_bias) if self.has_bias else None
    inner = _linear(hidden_states[None], up, up_bias, self.is_transposed)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    out = _linear(inner, self.down_proj, self.down_proj_bias if self.has_bias else None, self.is_transposed)
    if self.has_post_expert_norm:
        out = self.post_expert_norm(out)
    return (out * weights.T[:, :, None]).sum(0).to(hidden_states.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, is_transposed: bool) -> Tensor:
    y = x @ (weight if is_transposed else weight.transpose(1, 2))
    return y if bias is None else y + bias[:, None]
