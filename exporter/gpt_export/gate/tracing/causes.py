"""What is known to cause a deviation, tried out on the values where it shows.

Each cause is a function from the evidence to words, empty where it does not explain the values. The first that does is
the one that is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx import TensorProto

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.anchors import WHOLE, layer_of, part_of
from gpt_export.gate.tracing.attention_causes import attention_cause
from gpt_export.gate.tracing.evidence import Evidence
from gpt_export.gate.tracing.gated_causes import erf_gelu, gated_cause, tanh_gelu
from gpt_export.gate.tracing.norms import EPSILONS, OTHER_EPSILON, fitted_norm, wrong_norms
from gpt_export.gate.tracing.weight_causes import linear_cause, stored_cause

RANDOM_OPERATORS = frozenset(
    {"Dropout", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_TRAINING_MODE = 2
"""The index of Dropout's third input, without which it does nothing."""
_NARROW = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def likely_cause(evidence: Evidence) -> str:
    """The cause of the first fault in words: what explains the values, or a hint where nothing does."""
    for cause in CAUSES:
        if words := cause(evidence):
            return words
    return _hint(evidence)


def _not_finite(evidence: Evidence) -> str:
    if np.isfinite(evidence.got).all():
        return ""
    return "numbers that are not finite: an overflow (of float16, or of a mask of -inf), or a division by zero"


def _random(evidence: Evidence) -> str:
    before = evidence.ancestors(evidence.anchor.tensor)
    drawing = [node for node in before if node.op_type != "Dropout" or len(node.input) > _TRAINING_MODE]
    operators = {node.op_type for node in drawing} & RANDOM_OPERATORS
    if not operators:
        return ""
    return f"dropout left on: {', '.join(sorted(operators))} draws random numbers in front of it"


def _half(evidence: Evidence) -> str:
    """Values that a narrower type holds exactly have passed through it, as have those behind a cast to it."""
    for node in evidence.ancestors(evidence.anchor.tensor):
        if node.op_type == "Cast" and (narrow := _NARROW.get(node.attribute[0].i)):
            return f"a precision limit: the values pass through {narrow} at {node.name or node.output[0]}"
    got = evidence.got.astype(np.float32)
    if evidence.module not in (WHOLE,) and part_of(evidence.module) == "embedding":
        return ""  # a table of narrow weights, which is another fault
    if np.array_equal(got.astype(np.float16).astype(np.float32), got):
        return "a precision limit: the values pass through float16"
    if not (got.view(np.uint32) & 0xFFFF).any():
        return "a precision limit: the values pass through bfloat16"
    return ""


def _norm(evidence: Evidence) -> str:
    module = evidence.module
    if part_of(module) != "norm" or evidence.anchor.end != "output":
        return ""
    x = evidence.graph_value(module, "input")
    if x is None or x.shape != evidence.got.shape:
        return ""
    right = fitted_norm(evidence, module)
    wrong = [] if right is None else list(wrong_norms(right, x))
    name = evidence.best([*wrong, *_norms(evidence, module, x)])
    if name == OTHER_EPSILON:
        stated = [
            attribute.f
            for node in evidence.graph.node
            if evidence.anchor.tensor in node.output
            for attribute in node.attribute
            if attribute.name == "epsilon"
        ]
        name += f" ({stated[0]:.3g} in the graph)" if stated else ""
    return name and f"{module}: {name}"


def _norms(evidence: Evidence, module: str, x: Array) -> Iterator[tuple[str, Array]]:
    own = _affine(evidence, module)
    centred = x.astype(np.float64) - x.mean(axis=-1, keepdims=True, dtype=np.float64)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    width = x.shape[-1]
    for epsilon in EPSILONS:
        yield OTHER_EPSILON, centred / np.sqrt(variance + epsilon + 1e-300) * own[0] + own[1]
    normal = centred / np.sqrt(variance + 1e-5)
    sample = centred / np.sqrt(variance * width / max(1, width - 1) + 1e-5)
    yield "the sample variance, divided by n - 1 and not by n", sample * own[0] + own[1]
    yield "the shift is left out", normal * own[0]
    yield "the scale is left out", normal + own[1]
    square = np.square(x, dtype=np.float64).mean(axis=-1, keepdims=True)
    yield "the mean is not taken off (an RMS norm)", x / np.sqrt(square + 1e-5) * own[0] + own[1]
    yield "the norm is left out", x
    for other in _modules_like(evidence, module):
        scale, shift = _affine(evidence, other)
        if scale.shape != own[0].shape:
            continue
        yield f"it computes with {other}'s parameters: layers or weights are swapped", normal * scale + shift


def _affine(evidence: Evidence, module: str) -> tuple[Array, Array]:
    scale = [evidence.parameter(f"{module}.{name}") for name in ("scale", "weight")]
    shift = [evidence.parameter(f"{module}.{name}") for name in ("shift", "bias")]
    return next((s for s in scale if s is not None), np.ones(1)), next((s for s in shift if s is not None), np.zeros(1))


def _modules_like(evidence: Evidence, module: str) -> list[str]:
    """The other modules of the same kind, by the last part of their names."""
    kind = part_of(module)
    modules = dict.fromkeys(name.rpartition(".")[0] for name in evidence.weights)
    return [other for other in modules if other != module and part_of(other) == kind]


def _activation(evidence: Evidence) -> str:
    """What the MLP's second layer reads, from what its first one returned."""
    anchor = evidence.anchor
    if anchor.part != "mlp" or anchor.end != "input":
        return ""
    shape = evidence.got.shape
    seen = [
        evidence.found[a.tensor]
        for a in evidence.anchors
        if (a.layer, a.part, a.end) == (anchor.layer, "mlp", "output") and a.tensor in evidence.found
    ]
    inside = [  # a fused operator keeps what the first layer returned to itself, so eager's stands for it
        values
        for (module, end), values in evidence.expected.items()
        if (layer_of(module), part_of(module), end) == (anchor.layer, "mlp", "output")
    ]
    before = next((values for values in (*seen, *inside) if values.shape == shape), None)
    if before is None:
        return ""
    x = before.astype(np.float64)
    kind = evidence.best(
        [
            ("the graph computes the erf form of GELU", erf_gelu(x)),
            ("the graph computes the tanh form of GELU", tanh_gelu(x)),
            ("the graph computes the sigmoid form of GELU, x * sigmoid(1.702 x)", x / (1 + np.exp(-1.702 * x))),
            ("the graph computes ReLU", np.maximum(x, 0)),
            ("the graph computes SiLU", x / (1 + np.exp(-x))),
            ("it is left out", x),
        ]
    )
    return kind and f"the activation is another kind: {kind}"


def _table(evidence: Evidence) -> str:
    """Rows of an embedding that were looked up, beside those that should have been."""
    module = evidence.module
    table = evidence.parameter(f"{module}.weight")
    if evidence.anchor.end != "output" or part_of(module) != "embedding" or table is None or table.ndim != 2:
        return ""
    lengths = [row.shape[1] for row in evidence.case.rows()]
    right = np.concatenate([np.arange(length) for length in lengths])
    if table[right % len(table)].shape != evidence.got.shape or not np.array_equal(
        table[right % len(table)], evidence.wanted
    ):
        return ""  # not a table of positions
    chunked = np.zeros_like(evidence.case.mask)
    for start, stop in evidence.case.cuts():
        chunked[:, start:stop] = np.arange(stop - start)
    columns = np.broadcast_to(np.arange(evidence.case.mask.shape[1]), evidence.case.mask.shape)
    kept = evidence.case.mask.astype(bool)
    last = len(table) - 1
    guesses = [
        ("position ids count the padding on the left", columns[kept]),
        ("position ids count from 0 in every call: past and padding are not counted", chunked[kept]),
        *(
            (f"position ids are shifted by {shift:+d}", np.clip(right + shift, 0, last))
            for shift in (1, -1, 2, -2)
            if not np.array_equal(np.clip(right + shift, 0, last), right)
        ),
    ]
    return evidence.best((words, table[at]) for words, at in guesses if at.max(initial=0) <= last)


def _residual(evidence: Evidence) -> str:
    """The stream behind a part, from the stream before it and from what the part adds."""
    anchor = evidence.anchor
    if anchor.end != "input" or part_of(evidence.module) != "norm" or anchor.part not in ("attention", "mlp"):
        return ""
    for other in evidence.anchors:
        added = evidence.found.get(other.tensor)
        if other.end == "output" and (other.layer, other.part) == (anchor.layer, anchor.part) and added is not None:
            if added.shape != evidence.got.shape:
                continue
            if evidence.explains(added):
                return f"the residual connection around {other.modules[0]} is left out"
            if evidence.explains(evidence.wanted - added):
                return f"what {other.modules[0]} adds to the residual stream is left out"
    return ""


def _log_softmax(evidence: Evidence) -> str:
    if evidence.module != WHOLE and part_of(evidence.module) != "head":
        return ""
    logits = evidence.wanted.astype(np.float64)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return evidence.best(
        [
            ("the graph returns log-probabilities: a log-softmax stands behind the head", shifted - total),
            ("the graph returns probabilities: a softmax stands behind the head", np.exp(shifted - total)),
        ]
    )


def _foreign_weight(evidence: Evidence) -> str:
    """A product with a matrix that is none of the source's, as when a tied head was given its own."""
    if evidence.module != WHOLE and part_of(evidence.module) != "head":
        return ""
    matrices = {tensor.name for tensor in evidence.graph.initializer if len(tensor.dims) == 2}
    unknown = [
        name
        for node in evidence.ancestors(evidence.anchor.tensor)
        for name in node.input
        if name in matrices and name not in evidence.sources
    ]
    if not unknown:
        return ""
    return f"an untied or foreign head: it multiplies by {unknown[0]}, which is no weight of the source"


CAUSES: tuple[Callable[[Evidence], str], ...] = (
    _not_finite,
    _random,
    stored_cause,
    _norm,
    gated_cause,
    _activation,
    linear_cause,
    attention_cause,
    _table,
    _residual,
    _log_softmax,
    _foreign_weight,
    _half,
)


def _hint(evidence: Evidence) -> str:
    anchor = evidence.anchor
    if anchor.part == "norm":
        return "another epsilon, scale or shift in the layer norm, or another norm"
    if anchor.part == "attention" and anchor.end == "input":
        return "the mask, the order of heads, or the way past and new keys are joined"
    if anchor.part == "embedding":
        return "other positions or ids than the model's: a shift of position ids, or padding counted as tokens"
    if anchor.end == "output":
        return "another weight than the source's, such as a rounded, swapped or transposed one"
    return "what stands between this tensor and the one before it"
