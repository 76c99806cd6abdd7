"""The names and shapes that a GPT's weights must have, as a function of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt_export_models.config import GPTConfig

Dims = tuple[str, ...]
"""A shape in words: the sizes that its axes have."""

_ENDS: Mapping[str, Dims] = {
    "tok_emb.weight": ("vocab_size", "emb_dim"),
    "pos_emb.weight": ("context_length", "emb_dim"),
}
_BLOCK: Mapping[str, Dims] = {
    "trf_blocks.{}.att.W_query.weight": ("emb_dim", "emb_dim"),
    "trf_blocks.{}.att.W_query.bias": ("emb_dim",),
    "trf_blocks.{}.att.W_key.weight": ("emb_dim", "emb_dim"),
    "trf_blocks.{}.att.W_key.bias": ("emb_dim",),
    "trf_blocks.{}.att.W_value.weight": ("emb_dim", "emb_dim"),
    "trf_blocks.{}.att.W_value.bias": ("emb_dim",),
    "trf_blocks.{}.att.out_proj.weight": ("emb_dim", "emb_dim"),
    "trf_blocks.{}.att.out_proj.bias": ("emb_dim",),
    "trf_blocks.{}.ff.layers.0.weight": ("hidden_dim", "emb_dim"),
    "trf_blocks.{}.ff.layers.0.bias": ("hidden_dim",),
    "trf_blocks.{}.ff.layers.2.weight": ("emb_dim", "hidden_dim"),
    "trf_blocks.{}.ff.layers.2.bias": ("emb_dim",),
    "trf_blocks.{}.norm1.scale": ("emb_dim",),
    "trf_blocks.{}.norm1.shift": ("emb_dim",),
    "trf_blocks.{}.norm2.scale": ("emb_dim",),
    "trf_blocks.{}.norm2.shift": ("emb_dim",),
}
_TOP: Mapping[str, Dims] = {
    "final_norm.scale": ("emb_dim",),
    "final_norm.shift": ("emb_dim",),
    "out_head.weight": ("vocab_size", "emb_dim"),
}
CANONICAL: Mapping[str, Dims] = {**_ENDS, **_BLOCK, **_TOP}
"""Every parameter that a `GPTModel` may have, in the order of its `state_dict`; `{}` is the layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Which of the parameters a GPT has; the fields are those of `GPTConfig`."""

    qkv_bias: bool
    linear_bias: bool = True
    norm_bias: bool = True
    tied_head: bool = False

    def has(self, canonical: str) -> bool:
        """Whether the parameter (a name with or without `{}`) is stored; a tied head is not."""
        if canonical == "out_head.weight":
            return not self.tied_head
        if canonical.endswith("shift"):
            return self.norm_bias
        if canonical.endswith("bias"):
            return self.qkv_bias if ".W_" in canonical else self.linear_bias
        return True


def expected_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `GPTModel(config).state_dict()`, in its order, without building the model."""
    form = Form(qkv_bias=config.qkv_bias, linear_bias=config.linear_bias, norm_bias=config.norm_bias)
    sizes = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "emb_dim": config.emb_dim,
        "hidden_dim": config.feed_forward_dim,
    }
    shapes = {}
    for table, layers in ((_ENDS, 1), (_BLOCK, config.n_layers), (_TOP, 1)):
        for layer in range(layers):
            for name, dims in table.items():
                if form.has(name):
                    shapes[name.format(layer)] = tuple(sizes[dim] for dim in dims)
    return shapes
