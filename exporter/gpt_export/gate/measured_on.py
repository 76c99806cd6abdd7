"""On what a comparison was made: another processor, or another number of threads, adds in another order."""

from __future__ import annotations

from typing import Any

import torch

from gpt_export.artifact.machine import available_cores, processor


def measured_on() -> dict[str, Any]:
    """JSON values: the `processor`, the `instruction_set` that torch chose on it, eager's `threads`, and the `cores`.

    onnxruntime chooses its instructions by the processor, and has a thread for each core.
    """
    return {
        "processor": processor(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": available_cores(),
    }
