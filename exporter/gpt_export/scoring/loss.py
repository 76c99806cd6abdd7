"""Logits to the loss of each token, in onnxruntime: no copy of the logits, all threads of the session.

A softmax over a large vocabulary is a tenth of a small model's whole time, and NumPy would take a quarter. onnxruntime
adds up its exponentials one after another in float32, which is off by up to 1e-4; so its probabilities are added up
once more, as a matrix product, and divided by their sum: 4e-6 nats from float64 at worst, 1e-7 in the mean
(`tests/exporter/scoring/test_loss.py`).
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gpt_export.runtime.options import CPU, session_options

_OPSET, _IR_VERSION = 17, 8  # what every onnxruntime loads that this project supports
_OUTPUTS = ("target", "top", "total")
_POSITIONS = 32
"""At once: what is made of them stays in cache."""
_SMALL = 1e-30
"""Probabilities below are computed from the logits in float64: float32 loses their digits."""

Floats = NDArray[np.float64]


class LossGraph:
    """Of logits and the tokens that followed: the log-probability of these, and of the likeliest."""

    def __init__(self, vocab_size: int, threads: int | None) -> None:
        model = _model(vocab_size).SerializeToString()
        self._session = ort.InferenceSession(model, session_options(threads=threads), providers=list(CPU))

    def __call__(self, logits: NDArray[np.float32], targets: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Log-probabilities in nats, float64 (positions,), of the targets and of the likeliest tokens.

        Args:
            logits: float32 (positions, vocabulary), contiguous; not copied.
            targets: int64 (positions,).
        """
        parts = [
            self._run(logits[at : at + _POSITIONS], targets[at : at + _POSITIONS])
            for at in range(0, len(targets), _POSITIONS)
        ]
        target, top, total = (np.concatenate(column).astype(np.float64) for column in zip(*parts, strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            log_total = np.log(total)
            log_target, log_top = np.log(target) - log_total, np.log(top) - log_total
        for at in np.flatnonzero(~(target >= _SMALL)):
            log_target[at] = _exact(logits[at], int(targets[at]))
        return log_target, log_top

    def _run(self, logits: NDArray[np.float32], targets: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("logits", ort.OrtValue.ortvalue_from_numpy(logits))
        binding.bind_cpu_input("targets", np.ascontiguousarray(targets[:, None]))
        for name in _OUTPUTS:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return [cast(NDArray[np.float32], value.numpy())[:, 0] for value in binding.get_outputs()]


def _exact(logits: NDArray[np.float32], target: int) -> float:
    row = logits.astype(np.float64)
    row -= row.max()
    return float(row[target] - np.log(np.exp(row).sum()))


def _model(vocab_size: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Softmax", ["logits"], ["each"], axis=-1),
        helper.make_node("GatherElements", ["each", "targets"], ["target"], axis=1),
        helper.make_node("ReduceMax", ["each"], ["top"], axes=[-1], keepdims=1),
        helper.make_node("MatMul", ["each", "ones"], ["total"]),
    ]
    inputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["positions", vocab_size]),
        helper.make_tensor_value_info("targets", TensorProto.INT64, ["positions", 1]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["positions", 1]) for name in _OUTPUTS]
    ones = numpy_helper.from_array(np.ones((vocab_size, 1), np.float32), "ones")
    graph = helper.make_graph(nodes, "loss", inputs, outputs, [ones])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
