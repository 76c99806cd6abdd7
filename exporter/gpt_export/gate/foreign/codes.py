"""Matrices that somebody else's graph holds as integers: read back as numbers, and found among the source's.

Source of the operators' meaning: the ONNX operator specification, and onnxruntime's contrib operators
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor

from gpt_export.artifact.onnx_model import OnnxModel
from gpt_export.gate.weights_check import stored_array

Names = tuple[str, ...]

_BITS: Mapping[int, int] = {
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
_OPERANDS: Mapping[str, tuple[int, int, int]] = {
    "DequantizeLinear": (0, 1, 2),
    "DynamicQuantizeMatMul": (1, 2, 3),
    "MatMulIntegerToFloat": (1, 3, 5),
    "QLinearMatMul": (3, 4, 5),
    "QGemm": (3, 4, 5),
    "QAttention": (1, 4, 7),
    "MatMulNBits": (1, 2, 3),
}
"""Where an operator takes its codes, their scales and their zero points."""
LEAST_SQNR_DB = 10.0
"""Of a matrix that is the source's: 8 bits by tensor leave 25 dB or more, 4 bits by block 15; another matrix -3 dB."""
_SAMPLED_ROWS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """An initializer of codes, and what makes numbers of them."""

    codes: str
    scales: str
    zeros: str | None
    operator: str
    bits: int
    axis: int = 1
    """Of the scales, where there are several."""
    block: int = 0
    """Codes to a scale, where they are blocks; 0 where one scale is for a whole row or all."""
    shape: tuple[int, ...] | None = None
    """(outputs, inputs) where the codes are packed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesFound:
    """What the quantised matrices of a file are."""

    precision: str
    """That of ours which has as few bits as the matrix with the fewest."""
    figures: Mapping[str, Any]
    """JSON values, as a variant's own are recorded."""
    faults: tuple[str, ...]
    notes: tuple[str, ...]
    held: frozenset[str]
    """Parameters that are in the file as codes."""


def coded_matrices(model: OnnxModel) -> tuple[Coded, ...]:
    """The matrices that the graph multiplies by, or looks up in, as integers."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, Coded] = {}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            coded = _of_matmul_integer(node, tensors, makers, readers)
        elif node.op_type in _OPERANDS:
            coded = _of_operands(node, tensors, makers)
        else:
            continue
        if coded is not None and coded.codes not in found and len(coded.shape or tensors[coded.codes].dims) == 2:
            found[coded.codes] = coded
    return tuple(found.values())


def compare_codes(
    model: OnnxModel, coded: tuple[Coded, ...], weights: Mapping[str, Tensor], groups: Mapping[Names, list[Tensor]]
) -> CodesFound:
    """Each matrix beside the one of the source that it is nearest to.

    Args:
        groups: by the names of parameters that may be one matrix, their tensors.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    matrices = {names: parts for names, parts in groups.items() if all(part.dim() == 2 for part in parts)}
    sqnr: dict[str, float] = {}
    held: set[str] = set()
    faults: list[str] = []
    elements = 0
    for each in coded:
        stored = read_back(model, each, tensors)
        names, decibels = _nearest(stored, matrices)
        elements += stored.size
        if not decibels >= LEAST_SQNR_DB:
            near = f"; the nearest is {' + '.join(names)}, {decibels:.1f} dB above the difference" if names else ""
            faults.append(
                f"weight {each.codes} ({each.bits}-bit codes, {list(stored.shape)}) is none of the source's{near}"
            )
            continue
        sqnr[" + ".join(names)] = min(decibels, sqnr.get(" + ".join(names), math.inf))
        held |= set(names)
    bits = min(each.bits for each in coded)
    precision = "int4" if bits <= 4 else "int8"
    worst = min(sqnr, key=lambda name: sqnr[name], default="")
    operators = ", ".join(f"{count} {name}" for name, count in Counter(each.operator for each in coded).most_common())
    said = f"the weights are int{bits}: {len(coded)} matrices ({operators}) were read back and compared"
    shown = f"; {worst} is the worst, {sqnr[worst]:.1f} dB above its error" if worst else ""
    return CodesFound(
        precision=precision,
        figures={
            "matrices": len(coded),
            "elements": elements,
            "worst_sqnr_db": round(sqnr[worst], 2) if worst and math.isfinite(sqnr[worst]) else None,
            "worst_matrix": worst,
        },
        faults=tuple(f"{precision}, {fault}" for fault in faults),
        notes=(said + shown,),
        held=frozenset(held & weights.keys()),
    )


def read_back(model: OnnxModel, coded: Coded, tensors: Mapping[str, TensorProto]) -> NDArray[np.float32]:
    """The numbers that the codes stand for, float32, in the axes of the file; of packed ones (outputs, inputs)."""
    folder = model.path.parent
    codes = stored_array(tensors[coded.codes], folder)
    scales = np.asarray(stored_array(tensors[coded.scales], folder), np.float32)
    zeros = None if coded.zeros is None else stored_array(tensors[coded.zeros], folder)
    if coded.operator == "MatMulNBits":
        return _unpacked(coded, codes, scales, zeros)
    numbers = codes.astype(np.float32)
    for array, combine in ((zeros, np.subtract), (scales, np.multiply)):
        if array is not None:
            numbers = combine(numbers, _spread(np.asarray(array, np.float32), coded, numbers.shape))
    return numbers


def _spread(array: NDArray[np.float32], coded: Coded, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Scales or zero points in a shape that goes with the codes'."""
    if array.size == 1:
        return array.reshape(())
    if array.ndim == 1:
        around = [1] * len(shape)
        around[coded.axis] = array.size
        return array.reshape(around)
    if coded.block:
        repeated = np.repeat(array, coded.block, axis=coded.axis)
        return repeated[tuple(slice(size) for size in shape)]
    return array


def _unpacked(
    coded: Coded, codes: NDArray[Any], scales: NDArray[np.float32], zeros: NDArray[Any] | None
) -> NDArray[np.float32]:
    """Blocks of 4 or 8 bits, (outputs, blocks, bytes), each with a scale and a zero point, which is the middle if not
    there."""
    assert coded.shape is not None
    outputs, inputs = coded.shape
    blocks = -(-inputs // coded.block)
    numbers = _nibbles(codes.reshape(outputs, blocks, -1), coded.bits)[:, :, : coded.block].astype(np.float32)
    middle: Any = np.float32(2 ** (coded.bits - 1))
    if zeros is not None and zeros.dtype == np.uint8:
        middle = _nibbles(zeros.reshape(outputs, -1), coded.bits)[:, :blocks, None].astype(np.float32)
    elif zeros is not None:
        middle = zeros.reshape(outputs, blocks, 1).astype(np.float32)
    found: NDArray[np.float32] = ((numbers - middle) * scales.reshape(outputs, blocks, 1)).reshape(outputs, -1)
    return found[:, :inputs]


def _nibbles(array: NDArray[Any], bits: int) -> NDArray[Any]:
    if bits == 8:
        return array
    return np.stack([array & 15, array >> 4], axis=-1).reshape(*array.shape[:-1], -1)


def _of_operands(
    node: onnx.NodeProto, tensors: Mapping[str, TensorProto], makers: Mapping[str, onnx.NodeProto]
) -> Coded | None:
    codes, scales, zeros = (node.input[i] if i < len(node.input) else "" for i in _OPERANDS[node.op_type])
    looked_up = makers.get(codes)  # a table whose rows are looked up as codes
    if looked_up is not None and looked_up.op_type == "Gather":
        codes = looked_up.input[0]
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if codes not in tensors or scales not in tensors or (zeros and zeros not in tensors):
        return None
    packed = node.op_type == "MatMulNBits"
    bits = int(attributes.get("bits", 4)) if packed else _BITS.get(tensors[codes].data_type)
    if bits is None or (packed and bits not in (4, 8)):
        return None
    return Coded(
        codes=codes,
        scales=scales,
        zeros=zeros or None,
        operator=node.op_type,
        bits=bits,
        axis=int(attributes.get("axis", 1)),
        block=int(attributes.get("block_size", 0)),
        shape=(int(attributes["N"]), int(attributes["K"])) if packed else None,
    )


def _of_matmul_integer(
    node: onnx.NodeProto,
    tensors: Mapping[str, TensorProto],
    makers: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, list[onnx.NodeProto]],
) -> Coded | None:
    """The product of integers has no scale; a product behind it has, alone or already times that of the activations."""
    codes = node.input[1]
    if codes not in tensors or tensors[codes].data_type not in _BITS:
        return None
    zeros = node.input[3] if len(node.input) > 3 else ""
    value = node.output[0]
    for _ in range(4):
        behind = readers.get(value, [])
        product = next((each for each in behind if each.op_type == "Mul"), None)
        if product is not None:
            other = next((name for name in product.input if name != value), "")
            operands = [other, *(makers[other].input if other in makers and makers[other].op_type == "Mul" else ())]
            scale = next((name for name in operands if name in tensors), None)
            if scale is not None:
                bits = _BITS[tensors[codes].data_type]
                zero = zeros if zeros in tensors else None
                return Coded(codes=codes, scales=scale, zeros=zero, operator=node.op_type, bits=bits)
        carrier = next((each for each in behind if each.op_type in ("Cast", "Mul", "Reshape")), None)
        if carrier is None:
            return None
        value = carrier.output[0]
    return None


def _nearest(stored: NDArray[np.float32], matrices: Mapping[Names, list[Tensor]]) -> tuple[Names, float]:
    """The source's matrix that is nearest, and how far it is above the difference in dB; rows are tried before all."""
    tried = []
    for names, parts in matrices.items():
        rows, columns = sum(len(part) for part in parts), parts[0].shape[1]
        for turned in (False, True):
            if stored.shape == ((columns, rows) if turned else (rows, columns)):
                tried.append((_decibels(stored, parts, turned, sampled=True), names, turned))
    if not tried:
        return (), -math.inf
    _, names, turned = max(tried, key=lambda each: each[0])
    return names, _decibels(stored, matrices[names], turned, sampled=False)


def _decibels(stored: NDArray[np.float32], parts: list[Tensor], turned: bool, *, sampled: bool) -> float:
    signal = noise = 0.0
    for found, wanted in _rows(stored.T if turned else stored, parts, sampled=sampled):
        signal += float(np.square(wanted, dtype=np.float64).sum())
        noise += float(np.square(found - wanted, dtype=np.float64).sum())
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _rows(
    stored: NDArray[np.float32], parts: list[Tensor], *, sampled: bool
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    at = 0
    for part in parts:
        step = max(1, len(part) // _SAMPLED_ROWS) if sampled else 1
        wanted = part.detach()[::step].to(torch.float32).numpy()
        yield stored[at : at + len(part)][::step], wanted
        at += len(part)
