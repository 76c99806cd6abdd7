"""How a family's tensors lie in its files, as a table into the canonical names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gpt_export_models.checkpoints.contract import CANONICAL, Form

Axis = tuple[int, str]
"""One axis of a stored tensor: so many times such a size, as (3, "emb_dim") of fused queries, keys and values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names in the file -> canonical names, `{}` for the layer; several are one stored tensor's equal parts.

    A stored tensor is brought to (out, in) first; after that, parts are always rows.
    """

    blocks: str
    """What the names of a layer's tensors start with, before the layer's number."""
    names: Mapping[str, tuple[str, ...]]
    transposed: frozenset[str] = frozenset()
    """Matrices that the file holds as (in, out)."""
    buffers: tuple[str, ...] = ()
    """Tensors that are no weights and are ignored: attention masks."""

    def stored_axes(self, form: Form, n_layers: int) -> dict[str, tuple[Axis, ...]]:
        """What the file must hold: the stored names and the axes of each."""
        return {name: self._axes(pattern) for pattern, name, _ in self._rows(form, n_layers)}

    def canonical(self, stored: Mapping[str, Tensor], form: Form, n_layers: int) -> dict[str, Tensor]:
        """The stored tensors under canonical names, as views; a tied head is the embedding itself."""
        tensors: dict[str, Tensor] = {}
        for pattern, name, targets in self._rows(form, n_layers):
            tensor = stored[name].detach()
            if pattern in self.transposed:
                tensor = tensor.t()
            tensors.update(zip(targets, tensor.tensor_split(len(targets)), strict=True))
        if form.tied_head:
            tensors["out_head.weight"] = tensors["tok_emb.weight"]
        return tensors

    def is_buffer(self, name: str) -> bool:
        """Whether the stored name is one of the buffers."""
        return any(_pattern(buffer).fullmatch(name) for buffer in self.buffers)

    def count_layers(self, names: Iterable[str]) -> int:
        """How many layers the stored names speak of, at least 1.

        A name with a layer far beyond the others does not make a tall model: that one is then unexpected.
        """
        block = re.compile(rf"{re.escape(self.blocks)}\.([0-9]{{1,9}})\.")
        layers = {int(found.group(1)) for name in names if (found := block.match(name))}
        if not layers:
            return 1
        return max(layers) + 1 if max(layers) < 2 * len(layers) else len(layers)

    def _axes(self, pattern: str) -> tuple[Axis, ...]:
        targets = self.names[pattern]
        first, *rest = CANONICAL[targets[0]]
        axes = ((len(targets), first), *((1, dim) for dim in rest))
        return axes[::-1] if pattern in self.transposed else axes

    def _rows(self, form: Form, n_layers: int) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        for pattern, targets in self.names.items():
            if form.has(targets[0]):
                for layer in range(n_layers if "{}" in pattern else 1):
                    yield pattern, pattern.format(layer), tuple(target.format(layer) for target in targets)


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("[0-9]+".join(re.escape(part) for part in name.split("{}")))


GPT2_LANDMARK = re.compile(r"(transformer\.)?(wte\.weight$|wpe\.weight$|h\.[0-9]+\.(attn\.c_|mlp\.c_|ln_1|ln_2))")
"""What a name of GPT-2's parts begins with, with or without the `transformer.` of a model with a head."""


def gpt2_names(prefix: str) -> dict[str, tuple[str, ...]]:
    """The names that OpenAI gave the parts of GPT-2, which Hugging Face and nanoGPT kept, into the canonical ones."""
    inner = {
        "wte.weight": ("tok_emb.weight",),
        "wpe.weight": ("pos_emb.weight",),
        "h.{}.ln_1.weight": ("trf_blocks.{}.norm1.scale",),
        "h.{}.ln_1.bias": ("trf_blocks.{}.norm1.shift",),
        "h.{}.attn.c_attn.weight": tuple(f"trf_blocks.{{}}.att.W_{part}.weight" for part in ("query", "key", "value")),
        "h.{}.attn.c_attn.bias": tuple(f"trf_blocks.{{}}.att.W_{part}.bias" for part in ("query", "key", "value")),
        "h.{}.attn.c_proj.weight": ("trf_blocks.{}.att.out_proj.weight",),
        "h.{}.attn.c_proj.bias": ("trf_blocks.{}.att.out_proj.bias",),
        "h.{}.ln_2.weight": ("trf_blocks.{}.norm2.scale",),
        "h.{}.ln_2.bias": ("trf_blocks.{}.norm2.shift",),
        "h.{}.mlp.c_fc.weight": ("trf_blocks.{}.ff.layers.0.weight",),
        "h.{}.mlp.c_fc.bias": ("trf_blocks.{}.ff.layers.0.bias",),
        "h.{}.mlp.c_proj.weight": ("trf_blocks.{}.ff.layers.2.weight",),
        "h.{}.mlp.c_proj.bias": ("trf_blocks.{}.ff.layers.2.bias",),
        "ln_f.weight": ("final_norm.scale",),
        "ln_f.bias": ("final_norm.shift",),
    }
    return {prefix + name: targets for name, targets in inner.items()} | {"lm_head.weight": ("out_head.weight",)}


def is_linear(state: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:
    """Whether layers with GPT-2's names are `Linear`, (out, in), and not Hugging Face's `Conv1D`, (in, out).

    The projection to query, key and value is three times as wide as what goes in, and the one to the hidden layer is
    nearly always wider. If the shapes do not tell, nanoGPT's `model_args` do.
    """
    votes = [0, 0]
    for name, value in state.items():
        if (
            name.endswith((".attn.c_attn.weight", ".mlp.c_fc.weight"))
            and isinstance(value, Tensor)
            and value.dim() == 2
        ):
            rows, columns = value.shape
            weight = 3 if ".attn." in name and max(rows, columns) == 3 * min(rows, columns) else 1
            votes[rows > columns] += weight if rows != columns else 0
    return "model_args" in beside if votes[0] == votes[1] else votes[1] > votes[0]
