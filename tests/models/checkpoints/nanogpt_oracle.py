"""nanoGPT's model and its checkpoint, written independently of both nanoGPT and this project's reader."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tests.models.checkpoints.oracles import seeded_ids

ARGS = {"n_layer": 2, "n_head": 5, "n_embd": 35, "block_size": 12, "bias": False, "vocab_size": 64, "dropout": 0.2}


class Reference(nn.Module):
    """nanoGPT's architecture, written independently: its parameter names, fused projections, tied head, exact GELU."""

    def __init__(self, args, tanh=False, masks=False):
        super().__init__()
        width, bias = args["n_embd"], args["bias"]
        self.n_head, self.tanh = args["n_head"], tanh

        def linear(n_in, n_out):
            return nn.Linear(n_in, n_out, bias=bias)

        def block():
            attn = nn.ModuleDict({"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)})
            if masks:
                attn.register_buffer("bias", torch.ones(1, 1, args["block_size"], args["block_size"]).tril())
            return nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(width, bias=bias),
                    "attn": attn,
                    "ln_2": nn.LayerNorm(width, bias=bias),
                    "mlp": nn.ModuleDict({"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)}),
                }
            )

        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(args["vocab_size"], width),
                "wpe": nn.Embedding(args["block_size"], width),
                "h": nn.ModuleList([block() for _ in range(args["n_layer"])]),
                "ln_f": nn.LayerNorm(width, bias=bias),
            }
        )
        self.lm_head = nn.Linear(width, args["vocab_size"], bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids):
        parts = self.transformer
        x = parts["wte"](ids) + parts["wpe"].weight[: ids.shape[1]]
        hidden = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
        for block in parts["h"]:
            fused = block["attn"]["c_attn"](block["ln_1"](x))
            query, key, value = (
                part.unflatten(-1, (self.n_head, -1)).movedim(-2, 1) for part in fused.tensor_split(3, dim=-1)
            )
            scores = torch.einsum("bhtd,bhsd->bhts", query, key) / math.sqrt(query.shape[-1])
            mixed = torch.einsum("bhts,bhsd->bthd", scores.masked_fill(hidden, -math.inf).softmax(-1), value)
            x = x + block["attn"]["c_proj"](mixed.flatten(2))
            inner = block["mlp"]["c_fc"](block["ln_2"](x))
            x = x + block["mlp"]["c_proj"](functional.gelu(inner, approximate="tanh" if self.tanh else "none"))
        return self.lm_head(parts["ln_f"](x))


def save(path, model, args, prefix="", **changes):
    """Writes what train.py writes."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(seeded_ids(args["vocab_size"])).sum().backward()
    optimizer.step()
    everything = {
        "model": {prefix + name: tensor for name, tensor in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "model_args": args,
        "iter_num": 3,
        "best_val_loss": torch.tensor(1.5),
        "config": {"dataset": "shakespeare_char", "learning_rate": 6e-4, "compile": True, "wandb": None},
    }
    torch.save({name: value for name, value in (everything | changes).items() if value is not ...}, path)
