"""The table of faults: what is planted where, and what the gate must say of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gpt_export_models.gpt import GPTDecoder

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
    scripted: Callable[[], GPTDecoder] | None = None
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


BLOCK = "trf_blocks.{}"
QUERY, KEY, VALUE = (f"{BLOCK}.att.W_{kind}.weight" for kind in ("query", "key", "value"))
PROJECTION, UP, DOWN = f"{BLOCK}.att.out_proj.weight", f"{BLOCK}.ff.layers.0.weight", f"{BLOCK}.ff.layers.2.weight"

FAULTS: tuple[Fault, ...] = (
    # The MLP.
    Fault(name="erf for tanh GELU", scripted=partial(faulty.erf_gelu, 2), layer=2, part="mlp", cause="erf form"),
    Fault(name="ReLU for GELU", scripted=partial(faulty.relu, 1), layer=1, part="mlp", cause="ReLU"),
    Fault(name="sigmoid for tanh GELU", scripted=partial(faulty.quick_gelu, 3), layer=3, part="mlp", cause="sigmoid"),
    Fault(name="a bias left out", edit=edits.bias_left_out(UP.format(2)), layer=2, part="mlp", cause="bias is missing"),
    Fault(name="an activation in float16", edit=edits.in_float16(UP.format(1)), layer=1, part="mlp", cause="float16"),
    # The mask and the cache.
    Fault(
        name="causal mask off by one",
        scripted=partial(faulty.SeesTheNextToken, VICTIM),
        layer=0,
        part="attention",
        cause="one token too far",
    ),
    Fault(
        name="no causal mask",
        scripted=partial(faulty.SeesEverything, VICTIM),
        layer=0,
        part="attention",
        cause="no causal mask",
    ),
    Fault(
        name="padding ignored", scripted=partial(faulty.SeesPadding, VICTIM), layer=0, part="attention", cause="padding"
    ),
    Fault(
        name="causal mask without the past",
        scripted=partial(faulty.MasksWithoutThePast, VICTIM),
        layer=0,
        part="attention",
        cause="does not count the past",
    ),
    Fault(
        name="past ignored",
        scripted=partial(faulty.attention, 1, faulty.ForgetsThePast),
        layer=1,
        part="attention",
        cause="past is ignored",
    ),
    Fault(
        name="cache joined on the wrong axis",
        edit=edits.joined_on_axis(2, 1),
        layer=2,
        part="attention",
        cause="wrong axis, 1",
    ),
    Fault(
        name="cache joined in the wrong order",
        scripted=partial(faulty.attention, 2, faulty.JoinsNewBeforePast),
        layer=2,
        part="attention",
        cause="wrong order",
    ),
    Fault(
        name="caches of two layers swapped",
        edit=edits.presents_exchanged(1, 2),
        layer=1,
        part="attention",
        cause="that of layer 2: caches are swapped",
    ),
    # The rest of attention.
    Fault(name="1/sqrt(d) left out", scripted=partial(faulty.no_scale, 3), layer=3, part="attention", cause="scale"),
    Fault(
        name="query and key wired the wrong way",
        edit=edits.wired_exchanged("trf_blocks.1.att.W_query.", "trf_blocks.1.att.W_key."),
        layer=1,
        part="attention",
        cause="query and key are swapped",
    ),
    Fault(
        name="heads interleaved",
        scripted=partial(faulty.attention, 2, faulty.InterleavesHeads),
        layer=2,
        part="attention",
        cause="heads",
    ),
    Fault(
        name="softmax over the queries", edit=edits.softmax_over_queries(1), layer=1, part="attention", cause="softmax"
    ),
    Fault(
        name="heads permuted in the output projection",
        edit=edits.heads_permuted(3, VICTIM.n_heads),
        layer=3,
        part="attention",
        cause="heads",
        bits=True,
    ),
    # Positions and embeddings.
    Fault(
        name="position ids shifted",
        scripted=partial(faulty.ShiftsPositions, VICTIM),
        part="embedding",
        cause="shifted by +1",
    ),
    Fault(
        name="position ids ignored",
        scripted=partial(faulty.CountsPositionsItself, VICTIM),
        part="embedding",
        cause="count from 0 in every call",
    ),
    Fault(
        name="position table shifted by a row",
        edit=edits.shifted_rows("pos_emb.weight"),
        part="embedding",
        cause="rows shifted by +1",
        bits=True,
    ),
    # Weights.
    Fault(
        name="a square weight transposed",
        edit=edits.transposed(QUERY.format(1)),
        layer=1,
        part="attention",
        cause="transposed",
        bits=True,
    ),
    Fault(
        name="the output projection transposed",
        edit=edits.transposed(PROJECTION.format(3)),
        layer=3,
        part="attention",
        cause="transposed",
        bits=True,
    ),
    Fault(
        name="key and value weights swapped",
        edit=edits.exchanged(KEY.format(2), VALUE.format(2)),
        layer=2,
        part="attention",
        cause="W_value.weight",
        bits=True,
    ),
    Fault(
        name="one attention weight rounded to 8 bits",
        edit=edits.rounded_to_8_bits(VALUE.format(2)),
        layer=2,
        part="attention",
        cause="rounded to 8 bits",
        bits=True,
    ),
    Fault(
        name="one MLP weight rounded to 8 bits",
        edit=edits.rounded_to_8_bits(DOWN.format(3)),
        layer=3,
        part="mlp",
        cause="rounded to 8 bits",
        bits=True,
    ),
    Fault(
        name="all weights rounded to float16",
        edit=edits.rounded_to_float16,
        part="embedding",
        cause="float16",
        bits=True,
    ),
    Fault(
        name="one bit of a weight flipped", edit=edits.one_bit_flipped("tok_emb.weight", 50), bits=True, outputs=False
    ),
    # Layers.
    Fault(
        name="weights of two layers swapped",
        edit=edits.exchanged("trf_blocks.1.", "trf_blocks.2."),
        layer=1,
        part="norm",
        cause="trf_blocks.2",
        bits=True,
    ),
    Fault(
        name="two layers in the wrong order",
        edit=edits.wired_exchanged("trf_blocks.1.", "trf_blocks.2."),
        layer=1,
        part="norm",
        cause="wrong order",
    ),
    Fault(
        name="weights of one layer used in two",
        edit=edits.wired_in_place_of("trf_blocks.2.ff.", "trf_blocks.1.ff."),
        layer=2,
        part="mlp",
        cause="used in both places",
    ),
    Fault(
        name="the last layer left out",
        edit=edits.last_layer_left_out(3),
        layer=3,
        part="norm",
        cause="layer 3 is left out",
    ),
    Fault(
        name="a layer left out", edit=edits.middle_layer_left_out(1), layer=1, part="norm", cause="layer 1 is left out"
    ),
    Fault(
        name="a residual connection left out",
        edit=edits.residual_left_out(1),
        layer=1,
        part="attention",
        cause="residual",
    ),
    # Norms.
    Fault(
        name="eps 1e-12 for 1e-5",
        scripted=partial(faulty.other_epsilon, 1, "norm1"),
        layer=1,
        part="norm",
        cause="epsilon",
    ),
    Fault(
        name="eps 1e-12 for 1e-5 in a later norm",
        scripted=partial(faulty.other_epsilon, 3, "norm2"),
        layer=3,
        part="norm",
        cause="epsilon",
    ),
    Fault(name="sample variance in the final norm", scripted=faulty.sample_variance, part="norm", cause="n - 1"),
    Fault(name="the final norm left out", edit=edits.final_norm_left_out, part="norm", cause="left out"),
    # The head.
    Fault(name="an untied head", edit=edits.head_untied, tied=True, part="head", cause="untied"),
    Fault(name="log-probabilities for logits", edit=edits.logits_normalised, part="head", cause="softmax"),
    # Dropout.
    Fault(
        name="dropout left on in attention",
        scripted=partial(faulty.attention_dropout, 2),
        layer=2,
        part="attention",
        cause="dropout",
    ),
    Fault(
        name="dropout left on behind the embedding",
        scripted=faulty.embedding_dropout,
        part="embedding",
        cause="dropout",
    ),
    Fault(name="a Dropout node in training mode", edit=edits.dropout_inserted(1), layer=1, part="mlp", cause="dropout"),
    # Shapes.
    Fault(
        name="the sequence dim frozen in the mask",
        edit=edits.sequence_frozen(3),
        layer=0,
        part="attention",
        cause="frozen",
    ),
    Fault(
        name="the sequence dim frozen in the positions",
        edit=edits.positions_frozen(3),
        part="embedding",
        cause="frozen",
    ),
)
