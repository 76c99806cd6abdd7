"""Causes between the first products of a gated MLP (SwiGLU, GeGLU) and its last one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from gpt_export.gate.tracing.activations import Array
from gpt_export.gate.tracing.anchors import layer_of
from gpt_export.gate.tracing.evidence import Evidence

_FITS = 1e-4


def erf_gelu(x: Array) -> Array:
    """x times the normal distribution's integral up to x (Hendrycks and Gimpel, 2016)."""
    values: Array = 0.5 * x * (1 + torch.erf(torch.from_numpy(x / math.sqrt(2))).numpy())
    return values


def tanh_gelu(x: Array) -> Array:
    """GELU by its tanh approximation."""
    values: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return values


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "the tanh form of GELU": tanh_gelu,
    "the erf form of GELU": erf_gelu,
    "the sigmoid form of GELU, x * sigmoid(1.702 x)": lambda x: x / (1 + np.exp(-1.702 * x)),
    "ReLU": lambda x: np.maximum(x, 0),
    "squared ReLU": lambda x: np.square(np.maximum(x, 0)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def gated_cause(evidence: Evidence) -> str:
    """How the graph puts the gate and the other product together, from eager's; empty where the MLP has no gate."""
    anchor = evidence.anchor
    if anchor.part != "mlp" or anchor.end != "input":
        return ""
    block = evidence.module.rpartition(".")[0]
    products = {
        module: array.astype(np.float64)
        for (module, end), array in evidence.expected.items()
        if end == "output" and module.startswith(f"{block}.") and array.shape == evidence.got.shape
        if layer_of(module) == anchor.layer
    }
    for (gate, x), (up, y) in itertools.permutations(products.items(), 2):
        for name, activation in ACTIVATIONS.items():
            right = activation(x) * y
            if np.abs(right - evidence.wanted).max() <= _FITS * (float(np.abs(right).max()) or 1.0):
                return evidence.best(_wrong_gates(gate, x, up, y, name))
    return ""


def _wrong_gates(gate: str, x: Array, up: str, y: Array, name: str) -> Iterator[tuple[str, Array]]:
    own = ACTIVATIONS[name]
    yield f"{gate} and {up} are exchanged: {name} is of the wrong one", own(y) * x
    yield f"the activation of {gate} is left out", x * y
    yield f"{up} is left out", own(x)
    yield f"{gate} is left out", y
    for other, activation in ACTIVATIONS.items():
        if other != name:
            yield f"the activation is another kind: the graph computes {other}", activation(x) * y
