"""State dicts of Andrej Karpathy's minGPT as it was in 2020: https://github.com/karpathy/minGPT.

Later ones have GPT-2's names over Linear layers, as nanoGPT's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt_export_models.checkpoints.checkpoint import Checkpoint
from gpt_export_models.checkpoints.contract import Form
from gpt_export_models.checkpoints.fit import Declared, fit, to_config, without_buffers
from gpt_export_models.checkpoints.layout import Layout
from gpt_export_models.checkpoints.registry import Family, register
from gpt_export_models.checkpoints.statements import head_count, head_count_in, settings_beside
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.json_files import read_json_object

LANDMARK = re.compile(r"tok_emb\.weight|pos_emb$|blocks\.[0-9]+\.(attn|mlp|ln1|ln2)\.")
_PARTS = {
    "ln1.weight": "norm1.scale",
    "ln1.bias": "norm1.shift",
    "ln2.weight": "norm2.scale",
    "ln2.bias": "norm2.shift",
    **{
        f"attn.{theirs}.{kind}": f"att.{ours}.{kind}"
        for theirs, ours in (("query", "W_query"), ("key", "W_key"), ("value", "W_value"), ("proj", "out_proj"))
        for kind in ("weight", "bias")
    },
    **{f"mlp.{i}.{kind}": f"ff.layers.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")},
}
LAYOUT = Layout(
    blocks="blocks",
    names={
        "tok_emb.weight": ("tok_emb.weight",),
        "pos_emb": ("pos_emb.weight",),
        **{f"blocks.{{}}.{theirs}": (f"trf_blocks.{{}}.{ours}",) for theirs, ours in _PARTS.items()},
        "ln_f.weight": ("final_norm.scale",),
        "ln_f.bias": ("final_norm.shift",),
        "head.weight": ("out_head.weight",),
    },
    buffers=("blocks.{}.attn.mask",),
)
SIZES = {"n_layer": "n_layers", "n_embd": "emb_dim", "block_size": "context_length", "vocab_size": "vocab_size"}


def recognises(state: Mapping[str, Any], beside: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Whether the layers are called blocks and have projections for queries and keys."""
    return any(re.match(r"blocks\.[0-9]+\.attn\.query\.", name) for name in state)


def reads(stored: Stored, config_file: Path | None, heads: int | None = None) -> Checkpoint:
    """minGPT's model of 2020, whose head count its settings or the user say.

    Raises:
        CheckpointError: tensors or settings do not fit, or nothing says the head count.
    """
    where, said = settings_beside(stored) if config_file is None else (str(config_file), read_json_object(config_file))
    state, notes = without_buffers(stored.values, LAYOUT)
    positions = state.get("pos_emb")
    if isinstance(positions, Tensor) and positions.dim() == 3 and positions.shape[0] == 1:
        state["pos_emb"] = positions[0]
    form = Form(qkv_bias=True)
    fitted = fit(stored, state, LAYOUT, form, Declared(source=where, values=said, names=SIZES))
    how = 'JSON with {"n_head": ...} with --config, or '
    n_heads = head_count(stored.path, fitted.sizes["emb_dim"], head_count_in(said), heads, where=where, how=how)
    config = to_config(stored, fitted, n_heads=n_heads, drop_rate=0.0, activation="gelu_erf", norm_eps=1e-5)
    return Checkpoint(
        family="mingpt",
        config=config,
        tensors=fitted.in_order(config),
        folder=stored.folder,
        files=stored.files if config_file is None else (*stored.files, config_file),
        notes=(*stored.notes, *notes, "the exact GELU was taken, as in minGPT of 2020"),
    )


FAMILY = register(Family(name="mingpt", landmark=LANDMARK, recognises=recognises, reads=reads))
