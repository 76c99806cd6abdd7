"""How fast this machine reads memory with so many threads, in the way that decoding reads weights."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gpt_export.artifact.machine import available_cores
from gpt_export.runtime.options import CPU, session_options

LEAST_BYTES, MOST_BYTES = 2**29, 2**31
CACHES = 4
"""The array is so many times the largest cache, which would answer in the memory's place otherwise."""
COLUMNS = 4096
TIMES = 5


def measure_bandwidth(threads: int | None = None, size_bytes: int | None = None) -> dict[str, Any]:
    """The best of several readings of a large array: `gb_s` (10^9 bytes a second), `method`, `threads`, `array_mb`.

    Two methods read it, NumPy's maximum with a slice for each thread, and onnxruntime's product of a vector and a
    matrix; the faster one is told. The best and not the median: whatever else runs can only slow a reading down.

    Args:
        threads: as many as the session has; the cores of this process if left out.
        size_bytes: of the array; four times the largest cache if left out, within 0.5 and 2 GB.
    """
    threads = threads or available_cores()
    size_bytes = size_bytes or min(max(LEAST_BYTES, CACHES * largest_cache_bytes()), MOST_BYTES)
    rows = max(size_bytes // 4 // COLUMNS, threads)
    array = np.ones((rows, COLUMNS), dtype=np.float32)
    with ThreadPoolExecutor(threads) as pool:
        slices = np.array_split(array.reshape(-1).view(np.uint8), threads)
        readings: dict[str, Callable[[], Any]] = {
            "NumPy, maximum": lambda: list(pool.map(np.max, slices)),
            "onnxruntime, vector times matrix": _product(array, threads),
        }
        found = {name: array.nbytes / _best_seconds(read) / 1e9 for name, read in readings.items()}
    method = max(found, key=lambda name: found[name])
    return {
        "gb_s": round(found[method], 2),
        "method": method,
        "threads": threads,
        "array_mb": round(array.nbytes / 1e6),
    }


def largest_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache that Linux tells of; 0 where it tells of none."""
    found = [0]
    for path in sorted(folder.glob("index*/size")):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text(encoding="ascii").strip().removesuffix("K")) * 1024)
    return max(found)


def _best_seconds(read: Callable[[], Any]) -> float:
    read()
    times = []
    for _ in range(TIMES):
        started = time.perf_counter()
        read()
        times.append(time.perf_counter() - started)
    return min(times)


def _product(matrix: NDArray[np.float32], threads: int) -> Callable[[], Any]:
    """A vector times `matrix` in onnxruntime, which reads the matrix where it lies."""
    rows, columns = matrix.shape
    shapes = {"x": [1, rows], "w": [rows, columns], "y": [1, columns]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "product", [values["x"], values["w"]], [values["y"]])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    options = session_options(threads=threads)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=list(CPU))
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(np.ones((1, rows), dtype=np.float32)))
    binding.bind_ortvalue_input("w", ort.OrtValue.ortvalue_from_numpy(matrix))
    binding.bind_output("y", "cpu")
    return lambda: session.run_with_iobinding(binding)
