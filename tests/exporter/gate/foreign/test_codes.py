"""Quantised files of onnxruntime's own tools, judged as what they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from gpt_export.artifact.onnx_model import read_model
from gpt_export.gate.foreign.codes import coded_matrices, read_back
from onnx import numpy_helper

from tests.conftest import Run
from tests.exporter.gate.foreign.test_foreign import gpt2

assert gpt2  # a fixture
Cli = Callable[..., Run]


@pytest.fixture(scope="module")
def plain(gpt2: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float32 file of ours with standard operators alone, from ids to logits, and its checkpoint."""
    import gpt_export

    _, folder = gpt2
    out = tmp_path_factory.mktemp("plain") / "artifact"
    artifact = gpt_export.export(folder, out, profile="portable", cache=False, cases=("grid",), single_file=True)
    return artifact.variant_path("fp32"), folder


def dynamic(path: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, out, weight_type=QuantType.QInt8)


def dynamic_by_channel(path: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, out, weight_type=QuantType.QUInt8, per_channel=True)


def qdq(path: Path, out: Path) -> None:
    """Weights alone behind DequantizeLinear, by output channel."""
    model = onnx.load(path)
    nodes = []
    for tensor in list(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.ndim != 2 or array.dtype != np.float32:
            continue
        scale = (np.abs(array).max(axis=0) / 127).astype(np.float32)
        codes = np.round(array / scale).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(codes, f"{tensor.name}_q"))
        name = tensor.name.removesuffix("_q")
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_s"))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros_like(scale, np.int8), f"{name}_z"))
        nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [name], axis=1))
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    onnx.save(model, out)


def blocks(path: Path, out: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(path), block_size=16, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(out))


KINDS: dict[str, tuple[Callable[[Path, Path], None], int, str]] = {
    "quantize_dynamic": (dynamic, 8, "MatMulInteger"),
    "quantize_dynamic by channel": (dynamic_by_channel, 8, "MatMulInteger"),
    "QDQ": (qdq, 8, "DequantizeLinear"),
    "MatMulNBits": (blocks, 4, "MatMulNBits"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_file_is_judged_as_what_it_is(
    kind: str, plain: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    quantize, bits, operator = KINDS[kind]
    path, folder = plain
    quantize(path, tmp_path / "quantised.onnx")
    run = cli("validate", tmp_path / "quantised.onnx", "--against", folder, "--kl", "0.5", "--top1", "0.5", "--json")
    assert run.code == 0, run.err
    report = run.json()
    notes = " ".join(report["notes"])
    assert f"the weights are int{bits}: " in notes
    assert operator in notes
    figures = report["quantized"][f"int{bits}"]
    assert figures["matrices"] >= 8
    assert figures["worst_sqnr_db"] > (30 if bits == 8 else 12)
    assert set(report["targets"]) == {f"int{bits}"}
    strict = cli("validate", tmp_path / "quantised.onnx", "--against", folder, "--kl", "0")
    text = strict.refused(3, "mean KL")
    assert f"FAILED  int{bits}: " in strict.out
    assert "shift of position" not in text


@pytest.mark.parametrize("kind", ["quantize_dynamic", "QDQ"])
def test_another_matrix_is_found(kind: str, plain: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    quantize, _, _ = KINDS[kind]
    path, folder = plain
    quantize(path, tmp_path / "quantised.onnx")
    model = onnx.load(tmp_path / "quantised.onnx")
    coded = coded_matrices(read_model(tmp_path / "quantised.onnx"))
    names = {each.codes for each in coded}
    tensor = next(t for t in model.graph.initializer if t.name in names and t.dims[0] == t.dims[1])
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[::-1]), tensor.name))
    onnx.save(model, tmp_path / "quantised.onnx")
    run = cli("validate", tmp_path / "quantised.onnx", "--against", folder, "--kl", "9", "--top1", "0")
    run.refused(3, "is none of the source's; the nearest is")


def test_codes_are_read_back_as_onnxruntime_computes_with_them(plain: tuple[Path, Path], tmp_path: Path) -> None:
    path, _ = plain
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    for i, (quantize, bits, _) in enumerate(KINDS.values()):
        out = tmp_path / f"{i}.onnx"
        quantize(path, out)
        model = read_model(out)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for each in coded_matrices(model):
            found = read_back(model, each, tensors)
            name = next(n for n in floats if each.codes.startswith(n) and floats[n].ndim == 2)
            forms = [form for form in (floats[name], floats[name].T) if form.shape == found.shape]
            step = np.abs(floats[name]).max() / (2 ** (bits - 1) - 1)
            assert min(np.abs(found - form).max() for form in forms) <= 1.05 * step, (each, name)


def halved(path: Path, out: Path, *, keep_io_types: bool = True) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=keep_io_types), out)


def narrowed(path: Path, out: Path) -> None:
    """Matrices in bfloat16 and computing in float32."""
    model = onnx.load(path)
    casts = []
    for tensor in list(model.graph.initializer):
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
            name, numbers = tensor.name, torch.from_numpy(numpy_helper.to_array(tensor).copy()).bfloat16()
            tensor.ClearField("float_data")
            tensor.raw_data, tensor.data_type = numbers.view(torch.int16).numpy().tobytes(), onnx.TensorProto.BFLOAT16
            tensor.name = f"{name}_narrow"
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *kept])
    onnx.save(model, out)


HALVED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "inputs and outputs kept": (halved, "fp16"),
    "all of it": (partial(halved, keep_io_types=False), "fp16"),
    "bfloat16": (narrowed, "bf16"),
}


@pytest.mark.filterwarnings("ignore:the float32 number:UserWarning")
@pytest.mark.parametrize("kind", HALVED)
def test_a_file_in_16_bits_is_judged_by_their_limits(
    kind: str, plain: tuple[Path, Path], cli: Cli, tmp_path: Path
) -> None:
    convert, precision = HALVED[kind]
    path, folder = plain
    convert(path, tmp_path / "half.onnx")
    run = cli("validate", tmp_path / "half.onnx", "--against", folder)
    assert run.code == 0, run.err
    assert f"passed  {precision}: " in run.out
    said = " ".join(run.out.split())
    assert f"bit for bit once they are rounded to {precision}" in said
    model = onnx.load(tmp_path / "half.onnx")
    kinds = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    tensor = next(t for t in model.graph.initializer if t.data_type in kinds and len(t.dims) == 2)
    numbers = bytearray(tensor.raw_data)
    numbers[3] ^= 0x40  # the exponent of the second element
    tensor.raw_data = bytes(numbers)
    onnx.save(model, tmp_path / "half.onnx")
    altered = cli("validate", tmp_path / "half.onnx", "--against", folder)
    altered.refused(3, "1 of ")
