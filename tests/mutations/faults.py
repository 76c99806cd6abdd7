"""The table of faults: what is planted where, and what the gate must say of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from tests.mutations import edits, faulty
from tests.mutations.edits import Edit
from tests.mutations.good import VICTIM

Part = Literal["embedding", "attention", "mlp", "norm", "head"]
TIED = dataclasses.replace(VICTIM, tied_head=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. It is in the file (`edit`) or in the model that was scripted (`scripted`)."""

    name: str
    edit: Edit | None = None
    scripted: Callable[[], nn.Module] | None = None
    tied: bool = False
    """Whether it is planted into the model whose head is its embedding."""
    layer: int | None = None
    part: Part | None = None
    """None where no part of the model is to blame."""
    cause: str = ""
    """Words that the cause must have."""
    bits: bool = False
    """Whether the weights' bits give it away too."""
    outputs: bool = True
    """Whether the outputs give it away."""


Planted = Mapping[str, Any]
Row = tuple[Any, ...]


def edited(edit: Edit) -> Planted:
    """A fault of the file."""
    return {"edit": edit}


def scripted(make: Callable[..., nn.Module], *args: Any) -> Planted:
    """A fault of the model that was scripted."""
    return {"scripted": partial(make, *args)}


def faults(*rows: Row) -> tuple[Fault, ...]:
    """The faults of a table: name, layer, part, cause, how it is planted, and the other fields of `Fault` if any."""
    return tuple(
        Fault(name=name, layer=layer, part=part, cause=cause, **planted, **dict(*more))
        for name, layer, part, cause, planted, *more in rows
    )


BITS = {"bits": True}
BITS_ALONE = {"bits": True, "outputs": False}
OF_TIED = {"tied": True}


BLOCK = "trf_blocks.{}"
QUERY, KEY, VALUE = (f"{BLOCK}.att.W_{kind}.weight" for kind in ("query", "key", "value"))
PROJECTION, UP, DOWN = f"{BLOCK}.att.out_proj.weight", f"{BLOCK}.ff.layers.0.weight", f"{BLOCK}.ff.layers.2.weight"

FAULTS: tuple[Fault, ...] = faults(
    # name, layer and part that must be named, words of the cause, how it is planted, what else is so
    # The MLP.
    ("erf for tanh GELU", 2, "mlp", "erf form", scripted(faulty.erf_gelu, 2)),
    ("ReLU for GELU", 1, "mlp", "ReLU", scripted(faulty.relu, 1)),
    ("sigmoid for tanh GELU", 3, "mlp", "sigmoid", scripted(faulty.quick_gelu, 3)),
    ("a bias left out", 2, "mlp", "bias is missing", edited(edits.bias_left_out(UP.format(2)))),
    ("an activation in float16", 1, "mlp", "float16", edited(edits.in_float16(UP.format(1)))),
    # The mask and the cache.
    ("causal mask off by one", 0, "attention", "one token too far", scripted(faulty.SeesTheNextToken, VICTIM)),
    ("no causal mask", 0, "attention", "no causal mask", scripted(faulty.SeesEverything, VICTIM)),
    ("padding ignored", 0, "attention", "padding", scripted(faulty.SeesPadding, VICTIM)),
    ("causal mask without the past", 0, "attention", "does not count the past",
     scripted(faulty.MasksWithoutThePast, VICTIM)),
    ("past ignored", 1, "attention", "past is ignored", scripted(faulty.attention, 1, faulty.ForgetsThePast)),
    ("cache joined on the wrong axis", 2, "attention", "wrong axis, 1", edited(edits.joined_on_axis(2, 1))),
    ("cache joined in the wrong order", 2, "attention", "wrong order",
     scripted(faulty.attention, 2, faulty.JoinsNewBeforePast)),
    ("caches of two layers swapped", 1, "attention", "that of layer 2: caches are swapped",
     edited(edits.presents_exchanged(1, 2))),
    # The rest of attention.
    ("1/sqrt(d) left out", 3, "attention", "scale", scripted(faulty.no_scale, 3)),
    ("query and key wired the wrong way", 1, "attention", "query and key are swapped",
     edited(edits.wired_exchanged("trf_blocks.1.att.W_query.", "trf_blocks.1.att.W_key."))),
    ("heads interleaved", 2, "attention", "heads", scripted(faulty.attention, 2, faulty.InterleavesHeads)),
    ("softmax over the queries", 1, "attention", "softmax", edited(edits.softmax_over_queries(1))),
    ("heads permuted in the output projection", 3, "attention", "heads",
     edited(edits.heads_permuted(3, VICTIM.n_heads)), BITS),
    # Positions and embeddings.
    ("position ids shifted", None, "embedding", "shifted by +1", scripted(faulty.ShiftsPositions, VICTIM)),
    ("position ids ignored", None, "embedding", "count from 0 in every call",
     scripted(faulty.CountsPositionsItself, VICTIM)),
    ("position table shifted by a row", None, "embedding", "rows shifted by +1",
     edited(edits.shifted_rows("pos_emb.weight")), BITS),
    # Weights.
    ("a square weight transposed", 1, "attention", "transposed", edited(edits.transposed(QUERY.format(1))), BITS),
    ("the output projection transposed", 3, "attention", "transposed",
     edited(edits.transposed(PROJECTION.format(3))), BITS),
    ("key and value weights swapped", 2, "attention", "W_value.weight",
     edited(edits.exchanged(KEY.format(2), VALUE.format(2))), BITS),
    ("one attention weight rounded to 8 bits", 2, "attention", "rounded to 8 bits",
     edited(edits.rounded_to_8_bits(VALUE.format(2))), BITS),
    ("one MLP weight rounded to 8 bits", 3, "mlp", "rounded to 8 bits",
     edited(edits.rounded_to_8_bits(DOWN.format(3))), BITS),
    ("all weights rounded to float16", None, "embedding", "float16", edited(edits.rounded_to_float16), BITS),
    ("one bit of a weight flipped", None, None, "", edited(edits.one_bit_flipped("tok_emb.weight", 50)), BITS_ALONE),
    # Layers.
    ("weights of two layers swapped", 1, "norm", "trf_blocks.2",
     edited(edits.exchanged("trf_blocks.1.", "trf_blocks.2.")), BITS),
    ("two layers in the wrong order", 1, "norm", "wrong order",
     edited(edits.wired_exchanged("trf_blocks.1.", "trf_blocks.2."))),
    ("weights of one layer used in two", 2, "mlp", "used in both places",
     edited(edits.wired_in_place_of("trf_blocks.2.ff.", "trf_blocks.1.ff."))),
    ("the last layer left out", 3, "norm", "layer 3 is left out", edited(edits.last_layer_left_out(3))),
    ("a layer left out", 1, "norm", "layer 1 is left out", edited(edits.middle_layer_left_out(1))),
    ("a residual connection left out", 1, "attention", "residual", edited(edits.residual_left_out(1))),
    # Norms.
    ("eps 1e-12 for 1e-5", 1, "norm", "epsilon", scripted(faulty.other_epsilon, 1, "norm1")),
    ("eps 1e-12 for 1e-5 in a later norm", 3, "norm", "epsilon", scripted(faulty.other_epsilon, 3, "norm2")),
    ("sample variance in the final norm", None, "norm", "n - 1", scripted(faulty.sample_variance)),
    ("the final norm left out", None, "norm", "left out", edited(edits.final_norm_left_out)),
    # The head.
    ("an untied head", None, "head", "untied", edited(edits.head_untied), OF_TIED),
    ("log-probabilities for logits", None, "head", "softmax", edited(edits.logits_normalised)),
    # Dropout.
    ("dropout left on in attention", 2, "attention", "dropout", scripted(faulty.attention_dropout, 2)),
    ("dropout left on behind the embedding", None, "embedding", "dropout", scripted(faulty.embedding_dropout)),
    ("a Dropout node in training mode", 1, "mlp", "dropout", edited(edits.dropout_inserted(1))),
    # Shapes.
    ("the sequence dim frozen in the mask", 0, "attention", "frozen", edited(edits.sequence_frozen(3))),
    ("the sequence dim frozen in the positions", None, "embedding", "frozen", edited(edits.positions_frozen(3))),
)  # fmt: skip
