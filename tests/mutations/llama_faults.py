"""Faults of Llama and its kin: a decoder that is wrong in one layer is exported, its reference stays right."""

from __future__ import annotations

from typing import Any

from tests.mutations.edits import exchanged, rounded_to_8_bits, transposed, wired_exchanged, wired_in_place_of
from tests.mutations.faults import BITS, Fault, Planted, edited, faults, scripted
from tests.mutations.llama import HEAD, WINDOW, Llama, Shape


def shaped(layer: int, **wrong: Any) -> Planted:
    """A fault of one layer's shape."""
    return scripted(Llama, {layer: Shape(**wrong)})


LLAMA_FAULTS: tuple[Fault, ...] = faults(
    # name, layer and part that must be named, words of the cause, how it is planted, what else is so
    # Attention.
    ("interleaved rotation for halves", 2, "attention", "interleaved where it should be by halves",
     shaped(2, interleaved=True)),
    ("another base of the rotation", 1, "attention", "base of the rotation is 500000", shaped(1, base=500_000.0)),
    ("half of the width rotated", 3, "attention", "8 wide, not 16", shaped(3, turned=HEAD // 2)),
    ("keys repeated in the wrong order", 2, "attention", "repeated in the wrong order", shaped(2, tiled=True)),
    ("the window one token wider", 1, "attention", "off by one", shaped(1, window=WINDOW + 1)),
    ("the window one token narrower", 3, "attention", "off by one", shaped(3, window=WINDOW - 1)),
    ("the window left out", 0, "attention", "left out", shaped(0, window=1000)),
    ("the soft cap left out", 2, "attention", "soft cap", shaped(2, cap=None)),
    ("another soft cap", 1, "attention", "capped at 50", shaped(1, cap=50.0)),
    ("QK norm behind the rotation", 1, "attention", "behind their rotation", shaped(1, norm_behind_rotation=True)),
    # Norms.
    ("another epsilon of the RMS norms", 2, "norm", "epsilon", shaped(2, epsilon=1e-6)),
    ("1 + w for w in the RMS norms", 1, "norm", "1 + w", shaped(1, offset=1.0)),
    # The MLP.
    ("gate and up exchanged", 3, "mlp", "exchanged", shaped(3, exchanged=True)),
    ("gate and up wired the wrong way", 1, "mlp", "exchanged", edited(
        wired_exchanged("layers.1.mlp.gate_proj.", "layers.1.mlp.up_proj."))),
    # Weights and layers.
    ("weights of gate and up swapped", 2, "mlp", "up_proj.weight", edited(
        exchanged("layers.2.mlp.gate_proj.", "layers.2.mlp.up_proj.")), BITS),
    ("a query weight transposed", 1, "attention", "transposed", edited(
        transposed("layers.1.self_attn.q_proj.weight")), BITS),
    ("a value weight rounded to 8 bits", 2, "attention", "rounded to 8 bits", edited(
        rounded_to_8_bits("layers.2.self_attn.v_proj.weight")), BITS),
    ("RMS norms of two layers swapped", 1, "norm", "layers.2", edited(
        exchanged("layers.1.input_layernorm.", "layers.2.input_layernorm.")), BITS),
    ("an MLP of this kind used in two layers", 2, "mlp", "used in both places", edited(
        wired_in_place_of("layers.2.mlp.", "layers.1.mlp."))),
)  # fmt: skip
