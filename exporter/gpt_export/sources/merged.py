"""An adapter of PEFT's merged into a module's own parameters."""

from __future__ import annotations

from pathlib import Path

from gpt_export_models.checkpoints.adapters import read_adapter
from gpt_export_models.checkpoints.merging import merge
from torch import Tensor, nn


def merge_into(module: nn.Module, folder: Path) -> None:
    """Puts the merged matrices in the place of the module's own; tied ones come apart where only one is changed.

    Raises:
        CheckpointError: the adapter cannot be read, is not implemented, or is not of this module.
    """
    state: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    parts = dict(module.named_modules(remove_duplicate=False))

    def holds_transposed(name: str) -> bool:
        return type(parts[name.rpartition(".")[0]]).__name__ == "Conv1D"  # of transformers, which need not be there

    merged = merge(state, read_adapter(folder), held_transposed=holds_transposed)
    for name, tensor in merged.items():
        if tensor is not state[name]:
            prefix, _, last = name.rpartition(".")
            parts[prefix]._parameters[last] = nn.Parameter(tensor.detach(), requires_grad=False)
