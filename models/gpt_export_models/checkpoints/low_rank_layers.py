"""The low-rank layers of the book's appendix E, merged into the Linear layers that they wrap.

Source: `LinearWithLoRA` and `LoRALayer`: linear(x) + alpha * (x A B), A (in, rank) and B (rank, out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gpt_export_models.checkpoints.merging import mapped
from gpt_export_models.checkpoints.statements import LORA_ALPHA
from gpt_export_models.checkpoints.stored import Stored
from gpt_export_models.errors import CheckpointError, UnstatedError
from gpt_export_models.problems import some

_A, _B, _LINEAR = ".lora.A", ".lora.B", ".linear."


def merge_low_rank(stored: Stored, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The state dict with plain Linear layers, and a note if any were merged; changed matrices are float32.

    Args:
        given: the user's configuration, which may hold `lora_alpha`.

    Raises:
        UnstatedError: nothing says alpha, which is not among the weights.
        CheckpointError: a layer is not whole.
    """
    values = dict(stored.values)
    layers = [name.removesuffix(_A) for name in values if name.endswith(_A)]
    if not layers:
        return values, ()
    alpha = given.get(LORA_ALPHA, stored.beside.get(LORA_ALPHA))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UnstatedError(
            f"{stored.path} has low-rank layers (LinearWithLoRA of the book's appendix E) and does not say their "
            "alpha, "
            "which scales them; pass the one of the training with --lora-alpha (16 in the book)"
        )
    for layer in layers:
        a, b = values.pop(layer + _A), values.pop(layer + _B, None)
        for name in [name for name in values if name.startswith(layer + _LINEAR)]:
            values[layer + "." + name.removeprefix(layer + _LINEAR)] = values.pop(name)
        weight: Any = values.get(f"{layer}.weight")
        if not _fit(a, b, weight):
            raise CheckpointError(
                f"{stored.path} has a low-rank layer {some([layer])} whose A, B and linear.weight do not fit each "
                "other; "
                "save the whole state dict again"
            )
        values[f"{layer}.weight"] = mapped(weight.detach().float() + alpha * (a.float() @ b.float()).T)
    return values, (f"{len(layers)} low-rank layers were merged with alpha {alpha:g}",)


def _fit(a: object, b: object, weight: object) -> bool:
    matrices = [part for part in (a, b, weight) if isinstance(part, Tensor) and part.dim() == 2]
    if len(matrices) != 3:
        return False
    a, b, weight = matrices
    return (a.shape[1], b.shape[1], a.shape[0]) == (b.shape[0], weight.shape[0], weight.shape[1])
