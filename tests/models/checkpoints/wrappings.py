"""One model of each family under the names and in the containers that training loops give it, and its own logits.

The tests of the reader and the table of docs/checkpoints.md are made from the same list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.models.checkpoints.nanogpt_oracle import ARGS, Reference
from tests.models.checkpoints.oracles import seeded_ids, spread

State = dict[str, Any]
PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "_forward_module.model.")


@dataclass(frozen=True)
class Example:
    """A model as its own code makes it."""

    module: nn.Module
    vocab: int
    stated: Mapping[str, Any]
    """What the user has to say."""
    beside: Callable[[Path], None] = lambda _folder: None
    """Writes what lies beside the file."""

    def logits(self, ids: Tensor) -> Tensor:
        with torch.no_grad():
            found = self.module(ids)
        return getattr(found, "logits", found[0] if isinstance(found, tuple) else found)


def _book() -> Example:
    from llms_from_scratch.ch04 import GPTModel

    sizes = {"vocab_size": 61, "context_length": 13, "emb_dim": 36, "n_heads": 3, "n_layers": 2, "drop_rate": 0.1}
    return Example(spread(GPTModel(sizes | {"qkv_bias": True})), 61, {"heads": 3})


def _hugging_face() -> Example:
    import transformers

    config = transformers.GPT2Config(vocab_size=57, n_positions=14, n_embd=33, n_layer=2, n_head=3)
    return Example(spread(transformers.GPT2LMHeadModel(config)), 57, {}, config.save_pretrained)


def _linear(bias: bool, tanh: bool, untied: bool = False) -> Example:
    model = Reference(ARGS | {"bias": bias}, tanh=tanh, masks=bias)
    if untied:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return Example(spread(model), 64, {"heads": 5})


class MinGpt(nn.Module):
    """minGPT as it was in 2020, written independently: names, a parameter of positions, separate projections."""

    def __init__(self) -> None:
        super().__init__()
        width, self.heads = 12, 3

        def block() -> nn.ModuleDict:
            names = ("key", "query", "value", "proj")
            attn = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
            attn.register_buffer("mask", torch.ones(1, 1, 14, 14).tril())
            mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))
            return nn.ModuleDict({"ln1": nn.LayerNorm(width), "ln2": nn.LayerNorm(width), "attn": attn, "mlp": mlp})

        self.tok_emb = nn.Embedding(19, width)
        self.pos_emb = nn.Parameter(torch.zeros(1, 14, width))
        self.blocks = nn.Sequential(block(), block())
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, 19, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tok_emb(ids) + self.pos_emb[:, : ids.shape[1]]
        for block in self.blocks:
            y = block["ln1"](x)
            attn = block["attn"]
            query, key, value = (
                attn[name](y).unflatten(-1, (self.heads, -1)).movedim(-2, 1) for name in ("query", "key", "value")
            )
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + attn["proj"](mixed.movedim(1, -2).flatten(-2))
            x = x + block["mlp"](block["ln2"](x))
        return self.head(self.ln_f(x))


FAMILIES: Mapping[str, Callable[[], Example]] = {
    "the book's `GPTModel`": _book,
    "Hugging Face GPT-2": _hugging_face,
    "nanoGPT, `bias=False`": lambda: _linear(bias=False, tanh=False),
    "build-nanogpt": lambda: _linear(bias=True, tanh=True),
    "minGPT": lambda: _linear(bias=True, tanh=True, untied=True),
    "minGPT of 2020": lambda: Example(spread(MinGpt()), 19, {"heads": 3}),
}


def _older(state: State) -> State:
    return {name: value * 0.5 for name, value in state.items()}


CONTAINERS: Mapping[str, Callable[[State], State]] = {
    "the dict alone": lambda state: state,
    "`model`": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "step": 3},
    "`state_dict`": lambda state: {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.4"},
    "`model_state`": lambda state: {"model_state": state, "epoch": 3},
    "`model_state_dict`": lambda state: {"model_state_dict": state, "optimizer_state_dict": {}},
    "`module`": lambda state: {"module": state, "ds_version": "0.15", "buffer_names": []},
    "`model`, after its EMA": lambda state: {"ema": _older(state), "model": state},
    "two levels": lambda state: {"checkpoint": {"model": state}, "args": {"lr": 1.0}},
}


def written(folder: Path, example: Example, prefix: str, container: str) -> Path:
    """The file of `example` as a training loop leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {prefix + name: tensor for name, tensor in example.module.state_dict().items()}
    torch.save(CONTAINERS[container](state), folder / "ckpt.pt")
    example.beside(folder)
    return folder / "ckpt.pt"


def ids_of(example: Example) -> Tensor:
    """Ids to compare on."""
    return seeded_ids(example.vocab)
