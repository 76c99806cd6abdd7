"""What is known to cause a deviation, tried out on the values where it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor

from exporter.activations import Array
from exporter.anchors import Anchor, End
from exporter.report import Deviation

_CLOSE = 1e-3


def likely_cause(
    fault: Deviation,
    graph: onnx.GraphProto,
    weights: Mapping[str, Tensor],
    expected: Mapping[tuple[str, End], Array],
    found: Mapping[str, Array],
    anchors: Sequence[Anchor],
) -> str:
    """The cause of the first fault in words, from what explains the values; a hint where nothing does."""
    module, _, end = fault.module.rpartition(" ")
    got = found[fault.tensor]
    operators = {node.op_type for node in graph.node}
    if end == "output" and f"{module}.weight" in weights and "emb" not in module:
        before = next((found[a.tensor] for a in anchors if a.end == "input" and module in a.modules), None)
        if before is None:
            before = expected.get((module, "input"))
        if before is not None and (cause := _linear_cause(module, got, before, weights)):
            return cause
    if fault.part == "mlp" and end == "input":
        before = next(
            (found[a.tensor] for a in anchors if a.layer == fault.layer and a.part == "mlp" and a.end == "output"), None
        )
        if before is not None and before.shape == got.shape and (cause := _gelu_cause(got, before)):
            return cause
    if fault.part == "norm":
        return "another epsilon, or another scale or shift, in the layer norm"
    if fault.part == "attention" and end == "input" and module.endswith(("out_proj", "c_proj")):
        return "the mask, the order of heads, or the way past and new keys are joined"
    if "Dropout" in operators or "RandomNormal" in operators or "RandomUniform" in operators:
        return "dropout left on: the graph draws random numbers"
    if fault.part == "embedding":
        return "other positions or ids than the model's: a shift of position ids, or padding counted as tokens"
    if end == "output":
        return "a weight that is not the source's, such as a rounded, swapped or transposed one"
    return "what stands between this tensor and the one before it"


def _linear_cause(module: str, got: Array, before: Array, weights: Mapping[str, Tensor]) -> str:
    weight = weights[f"{module}.weight"].detach().float().numpy()
    bias = weights[f"{module}.bias"].detach().float().numpy() if f"{module}.bias" in weights else np.float32(0)
    if weight.ndim != 2 or before.shape[-1] != weight.shape[1]:
        return ""
    if _explains(got, before @ weight.T + bias):
        return ""  # the layer does what it should; its input is off by less than the limit
    if weight.shape[0] == weight.shape[1] and _explains(got, before @ weight + bias):
        return f"{module}.weight is transposed"
    if np.ndim(bias) and _explains(got, before @ weight.T):
        return f"{module}.bias is missing"
    for name, other in weights.items():
        if name.endswith(".weight") and name != f"{module}.weight" and tuple(other.shape) == weight.shape:
            other_bias = weights.get(name.replace(".weight", ".bias"))
            shift = bias if other_bias is None else other_bias.detach().float().numpy()
            if _explains(got, before @ other.detach().float().numpy().T + shift):
                return f"{module} computes with {name}: layers or weights are swapped"
    return f"{module} computes with another weight or bias than the source's, such as a rounded one"


def _gelu_cause(got: Array, before: Array) -> str:
    x = before.astype(np.float64)
    erf: Tensor = torch.special.erf(torch.from_numpy(x / math.sqrt(2)))
    forms = {
        "GELU with erf": 0.5 * x * (1 + erf.numpy()),
        "GELU with tanh": 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "GELU with a sigmoid": x / (1 + np.exp(-1.702 * x)),
        "ReLU": np.maximum(x, 0),
    }
    errors = {name: float(np.abs(form - got).max()) for name, form in forms.items()}
    best = min(errors, key=errors.__getitem__)
    return f"the activation is another kind than the source's: it is nearest to {best}"


def _explains(got: Array, candidate: Array) -> bool:
    scale = float(np.sqrt(np.mean(np.square(candidate, dtype=np.float64)))) or 1.0
    return float(np.abs(got - candidate).max()) <= _CLOSE * scale
