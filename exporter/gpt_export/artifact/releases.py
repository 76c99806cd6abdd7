"""What each onnxruntime release can load: opsets, IR versions, and the contrib operators that GPTs use.

The rows to 1.14 are onnxruntime's compatibility table (onnxruntime.ai/docs/reference/compatibility.html); those from
1.15 on were measured on the released Linux wheels, last patch of each, with one-node graphs. They agree except for
1.15, whose table promises opset 19 and whose wheels refuse it, and which reads IR 9. The operators come from the
wheels as well: the CPU kernels that they register from 1.16 on, the names in the library before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Version = tuple[int, int]
MINIMUM_ONNXRUNTIME = "1.17"
"""The oldest onnxruntime that the tests load artifacts in; it reads every opset that is exported."""


@dataclass(frozen=True, slots=True, order=True)
class Release:
    """An onnxruntime minor release and the newest formats that it loads."""

    number: Version
    opset: int
    ir_version: int

    @property
    def version(self) -> str:
        """As `1.17`."""
        return ".".join(map(str, self.number))


RELEASES: tuple[Release, ...] = tuple(
    Release((1, minor), opset, ir_version)
    for minor, opset, ir_version in (
        (10, 15, 8),
        (11, 16, 8),
        (12, 17, 8),
        (13, 17, 8),
        (14, 18, 8),
        (15, 18, 9),
        (16, 19, 9),
        (17, 20, 9),
        (18, 21, 10),
        (19, 21, 10),
        (20, 21, 10),
        (21, 22, 10),
        (22, 22, 10),
        (23, 23, 11),
        (24, 25, 13),
        (25, 26, 13),
        (26, 26, 13),
        (27, 26, 13),
        (28, 26, 13),
        (29, 26, 13),
        (30, 26, 13),
        (31, 26, 13),
        (32, 28, 14),
    )
)


def release_named(text: str) -> Release | None:
    """The release of a version such as `1.17` or `1.17.3`, None if the table does not have it."""
    match = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", text)
    number = (int(match[1]), int(match[2])) if match else None
    return next((release for release in RELEASES if release.number == number), None)


def first_release(*, opset: int = 0, ir_version: int = 0) -> Release | None:
    """The oldest release that loads this opset and IR version, None if the table has none."""
    return next((r for r in RELEASES if r.opset >= opset and r.ir_version >= ir_version), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContribOperator:
    """The first release with a CPU kernel for a com.microsoft operator, and those of the parts that came later."""

    cpu: Version | None
    """None: it has kernels for accelerators alone."""
    inputs: Mapping[int, Version] | None = None
    """By index of an input that came later."""
    attributes: Mapping[str, Version] | None = None
    """By name of an attribute that came later."""
    values: Mapping[tuple[str, int], Version] | None = None
    """By an attribute and a value of it that works only from then on."""


FIRST = RELEASES[0].number
_OLD = ContribOperator(cpu=FIRST)

CONTRIB_OPERATORS: Mapping[str, ContribOperator] = {
    **dict.fromkeys(
        (
            "Attention",
            "BiasGelu",
            "DequantizeLinear",
            "DynamicQuantizeMatMul",
            "EmbedLayerNormalization",
            "FastGelu",
            "FusedGemm",
            "FusedMatMul",
            "Gelu",
            "MatMulIntegerToFloat",
            "NGramRepeatBlock",
            "QAttention",
            "QEmbedLayerNormalization",
            "QGemm",
            "QLinearAdd",
            "QLinearMul",
            "QLinearSigmoid",
            "QuantizeLinear",
            "SkipLayerNormalization",
            "TransposeMatMul",
        ),
        _OLD,
    ),
    "BeamSearch": ContribOperator(cpu=(1, 11)),
    "CausalConvWithState": ContribOperator(cpu=(1, 25)),
    "DecoderMaskedMultiHeadAttention": ContribOperator(cpu=(1, 20)),
    "DecoderMaskedSelfAttention": ContribOperator(cpu=None),
    "GatherBlockQuantized": ContribOperator(cpu=(1, 20), attributes={"bits": (1, 23)}),
    "GreedySearch": ContribOperator(cpu=(1, 13)),
    "GroupQueryAttention": ContribOperator(
        cpu=(1, 18),
        inputs={9: (1, 22), 10: (1, 22), 11: (1, 23), 12: (1, 25), 13: (1, 25), 14: (1, 28), 15: (1, 28), 16: (1, 32)},
        attributes={
            "smooth_softmax": (1, 19),
            "softcap": (1, 20),
            "qk_output": (1, 23),
            "k_quant_type": (1, 25),
            "kv_cache_bit_width": (1, 25),
            "v_quant_type": (1, 25),
            "qk_norm_epsilon": (1, 28),
            "sliding_window_cache": (1, 29),
            "causal": (1, 30),
            "k_norm_epsilon": (1, 32),
            "q_norm_epsilon": (1, 32),
        },
        # To 1.26 its CPU kernel refuses such a cache; that of 1.27 looks at padding unless it has a `head_sink`.
        values={("kv_cache_bit_width", 8): (1, 28)},
    ),
    "LinearAttention": ContribOperator(cpu=(1, 25)),
    "MatMulBnb4": ContribOperator(cpu=(1, 16)),
    "MatMulFpQ4": ContribOperator(cpu=(1, 16)),
    "MatMulNBits": ContribOperator(
        cpu=(1, 16),
        inputs={4: (1, 18), 5: (1, 19)},
        attributes={"accuracy_level": (1, 17), "weight_prepacked": (1, 28)},
        values={("bits", 2): (1, 24), ("bits", 8): (1, 23)},
    ),
    "MoE": ContribOperator(cpu=(1, 23)),
    "MultiHeadAttention": ContribOperator(
        cpu=(1, 14), inputs={8: (1, 22), 9: (1, 22)}, attributes={"unidirectional": (1, 17)}
    ),
    "PackedAttention": ContribOperator(cpu=None),
    "PackedMultiHeadAttention": ContribOperator(cpu=None),
    "PagedAttention": ContribOperator(cpu=None),
    "QLinearSoftmax": ContribOperator(cpu=(1, 13)),
    "QMoE": ContribOperator(cpu=(1, 23)),
    "QuickGelu": ContribOperator(cpu=(1, 14)),
    "RotaryEmbedding": ContribOperator(
        cpu=(1, 16),
        attributes={"num_heads": (1, 17), "rotary_embedding_dim": (1, 17), "is_packed_batching": (1, 19)},
    ),
    "Sampling": ContribOperator(cpu=(1, 14)),
    "SkipSimplifiedLayerNormalization": ContribOperator(cpu=(1, 16)),
    "SparseAttention": ContribOperator(cpu=(1, 19)),
    "UnfoldTensor": ContribOperator(cpu=(1, 20)),
}
"""Operators of com.microsoft that decoders are made of."""
