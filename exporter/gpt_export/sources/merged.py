"""An adapter of PEFT's merged into a module's own parameters."""

from __future__ import annotations

from collections.abc import Mapping
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

    tied = _tied(module, state, parts)
    alone = {name: tensor for name, tensor in state.items() if name not in tied}
    merged = merge(alone, read_adapter(folder), held_transposed=holds_transposed, tied=tied)
    for name, tensor in merged.items():
        if tensor is not state[name]:
            prefix, _, last = name.rpartition(".")
            parts[prefix]._parameters[last] = nn.Parameter(tensor.detach(), requires_grad=False)


def _tied(module: nn.Module, state: Mapping[str, Tensor], parts: Mapping[str, nn.Module]) -> dict[str, str]:
    """By the name of a parameter that is a table's, the table's; none of a module that does not say it ties them.

    PEFT asks the configuration (`tie_word_embeddings`), and leaves the head of other modules as it was.
    """
    if not getattr(getattr(module, "config", None), "tie_word_embeddings", False):
        return {}
    tables = {
        id(tensor): name
        for name, tensor in reversed(tuple(state.items()))
        if isinstance(parts[name.rpartition(".")[0]], nn.Embedding)
    }
    found = {name: tables.get(id(tensor), name) for name, tensor in state.items()}
    return {name: table for name, table in found.items() if name != table}
